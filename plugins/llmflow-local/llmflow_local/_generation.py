"""From the engine's chunks to one answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from llmflow_local._failures import LocalFailure, engine_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Collector", "Generation"]

_MISMATCH = "does not match the expected"
"""Part of what the engine says when its own parser does not accept a finished answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A finished answer of the engine."""

    text: str
    finish_reason: Literal["stop", "length"] = "stop"
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    request_id: str | None = None


class Collector:
    """Receives the chunks of one answer, on the engine's thread.

    Args:
        on_text: Told each piece of text as it comes.
        stopped: Asked after each piece whether anybody still wants the answer.
    """

    def __init__(self, on_text: Callable[[str], None], stopped: Callable[[], bool]) -> None:
        self._on_text = on_text
        self._stopped = stopped
        self._texts: list[str] = []
        self._finish: str | None = None
        self._usage: Mapping[str, Any] = {}
        self._request_id: str | None = None
        self._error: Mapping[str, Any] | None = None
        self._bug: Exception | None = None

    def receive(self, chunk: Mapping[str, Any]) -> bool:
        """Take one chunk; True stops the engine. It must not raise: the engine would drop that silently."""
        try:
            self._read(chunk)
        except Exception as exc:  # noqa: BLE001  # raised again by `generation`, outside of the engine
            self._bug = exc
        return self._error is not None or self._bug is not None or self._stopped()

    def _read(self, chunk: Mapping[str, Any]) -> None:
        self._error = chunk.get("error")
        self._request_id = chunk.get("id", self._request_id)
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk.get("choices", ()):
            self._finish = choice.get("finish_reason") or self._finish
            if text := choice.get("delta", {}).get("content"):
                self._texts.append(text)
                self._on_text(text)

    def generation(self) -> Generation:
        """Return the answer, or raise what kept it from coming.

        An answer that the engine wrote but could not parse is an answer: judging it is the caller's business.
        """
        if self._bug is not None:
            raise self._bug
        if self._error is not None and not (self._texts and _MISMATCH in str(self._error)):
            raise engine_failure(self._error)
        if self._error is None and self._finish is None:
            msg = "the engine stopped in the middle of the answer"
            raise LocalFailure(msg)
        prompt_details: Mapping[str, Any] = self._usage.get("prompt_tokens_details") or {}
        return Generation(
            text="".join(self._texts),
            finish_reason="length" if self._finish == "length" else "stop",
            input_tokens=self._usage.get("prompt_tokens"),
            output_tokens=self._usage.get("completion_tokens"),
            cached_tokens=prompt_details.get("cached_tokens"),
            request_id=self._request_id,
        )
