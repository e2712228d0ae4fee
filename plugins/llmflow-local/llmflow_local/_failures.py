"""What can go wrong below the provider, and how it is told above it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmflow.errors import BadRequest, ContextTooLong, ProviderError, ProviderUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LocalFailure", "engine_failure"]

_SERVER_ERROR = 500
"""From here on a status means that the engine failed, below that the request was wrong."""


class LocalFailure(Exception):
    """Why the engine could not answer.

    One failure may concern many waiting requests, for example when the weights cannot be fetched. llmflow writes the
    step and the attempts of a call into the error it raises, so every request makes its own with `as_error`.

    Args:
        message: What happened, without the name of the model.
        error: The class llmflow's policies decide by.
        status: The status the engine gave, in the meaning of HTTP.
        retryable: Whether the same request may work a moment later; None for what the class says.
    """

    def __init__(
        self,
        message: str,
        error: type[ProviderError] = ProviderUnavailable,
        *,
        status: int | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.error = error
        self.status = status
        self.retryable = retryable

    def as_error(self, model: str) -> ProviderError:
        """Return the failure as an error of one request."""
        return self.error(
            f"model {model!r}: {self}", provider="local", model=model, status=self.status, retryable=self.retryable
        )


def engine_failure(error: Mapping[str, Any]) -> LocalFailure:
    """Return what an error object of the engine means: `{"code", "message", "type", ...}`."""
    message = error.get("message", "no reason given")
    status = error.get("code")
    if error.get("type") == "exceed_context_size_error":
        return LocalFailure(_too_long(error), ContextTooLong, status=status)
    if status is not None and status < _SERVER_ERROR:
        return LocalFailure(f"the engine refused the request: {message}", BadRequest, status=status)
    return LocalFailure(f"the engine failed: {message}", status=status)


def _too_long(error: Mapping[str, Any]) -> str:
    prompt, window = error.get("n_prompt_tokens"), error.get("n_ctx")
    return f"the prompt has {prompt} tokens, the context window {window}; shorten it or raise Model(..., context=)"
