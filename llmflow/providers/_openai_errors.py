"""The one place where exceptions of the openai SDK become llmflow's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from llmflow.errors import AuthenticationFailed, BadRequest, ContentFiltered, StepError, Truncated
from llmflow.providers._decoding import ReplyTooLarge
from llmflow.providers._errors import (
    Facts,
    Source,
    clean_text,
    codes_in,
    error_from_facts,
    message_in,
    timed_out,
    unavailable,
)
from llmflow.providers._retry_after import retry_after
from llmflow.providers._scrubbing import scrub_exception

if TYPE_CHECKING:
    from collections.abc import Callable

    Translator: TypeAlias = Callable[[Any, Source, float], StepError]

__all__ = ["TRANSLATORS", "connection_failed", "from_status_error", "translate"]


def translate(exc: Exception, source: Source, now: float) -> StepError:
    """Return llmflow's error for what the SDK raised; raise it `from` that exception, which then holds no key.

    Args:
        exc: Raised by the SDK.
        source: Which model was asked.
        now: Seconds since the epoch, for a `Retry-After` that is a date.
    """
    translator = next(
        (TRANSLATORS[cls.__name__] for cls in type(exc).__mro__ if cls.__name__ in TRANSLATORS), connection_failed
    )
    error = translator(exc, source, now)
    scrub_exception(exc, source.secrets)
    return error


def from_status_error(exc: Any, source: Source, now: float) -> StepError:
    """Judge a reply with an error status."""
    headers = exc.response.headers
    return error_from_facts(
        Facts(
            status=exc.status_code,
            codes=codes_in(exc.body),
            text=_text_of(exc),
            retry_after=retry_after(headers, now),
            should_retry={"true": True, "false": False}.get(headers.get("x-should-retry", "")),
        ),
        source,
    )


def connection_failed(exc: Exception, source: Source, now: float) -> StepError:
    """Judge a request that got no complete reply."""
    del now
    cause = exc.__cause__ or exc
    if isinstance(cause, ReplyTooLarge):  # it would be as large the next time
        return unavailable(source, str(cause), retryable=False)
    detail = str(cause) or type(cause).__name__
    return unavailable(source, f"connection failed: {detail}")


def _text_of(exc: Any) -> str:
    location = exc.response.headers.get("location")
    if location is not None and exc.status_code < 400:
        return f"the provider redirects to {location}, and redirects are not followed; correct base_url"
    content_type = exc.response.headers.get("content-type", "").partition(";")[0]
    return message_in(exc.body) or (f"a reply of type {content_type}" if "html" in content_type else "")


def _from_stream_event(exc: Any, source: Source, now: float) -> StepError:
    """Judge an error inside a 200, which has a body but no status; some gateways put the status into `code`."""
    del now
    code = exc.body.get("code") if isinstance(exc.body, dict) else None
    status = int(code) if str(code).isdecimal() and 400 <= int(str(code)[:4]) <= 599 else None
    return error_from_facts(Facts(status=status, codes=codes_in(exc.body), text=message_in(exc.body)), source)


def _from_timeout(exc: Exception, source: Source, now: float) -> StepError:
    del exc, now
    return timed_out(source)


def _from_credentials(exc: Exception, source: Source, now: float) -> StepError:
    del now
    text = clean_text(str(exc), source.secrets)
    return AuthenticationFailed(f"{source.model}: {text}", provider=source.provider, model=source.model)


def _from_broken_stream(exc: Exception, source: Source, now: float) -> StepError:
    del now
    return unavailable(source, str(exc))


def _from_length(exc: Exception, source: Source, now: float) -> StepError:
    del exc, now
    return Truncated(f"{source.model}: the answer was cut at max_tokens")


def _from_filter(exc: Exception, source: Source, now: float) -> StepError:
    del exc, now
    return ContentFiltered(f"{source.model}: the provider withheld the answer")


def _from_misuse(exc: Exception, source: Source, now: float) -> StepError:
    """Judge the SDK's complaint about how a client of the user's own is set up; the same call fails again."""
    del now
    text = clean_text(str(exc), source.secrets)
    return BadRequest(f"{source.model}: {text}", provider=source.provider, model=source.model)


TRANSLATORS: dict[str, Translator] = {
    "OpenAIError": _from_credentials,  # raised bare only for missing or contradictory credentials
    "SubjectTokenProviderError": _from_credentials,
    "MutuallyExclusiveAuthError": _from_credentials,
    "APIRemovedInV1": _from_misuse,
    "_AmbiguousModuleClientUsageError": _from_misuse,
    "APIError": _from_stream_event,
    "APIConnectionError": connection_failed,
    "APITimeoutError": _from_timeout,
    "APIResponseValidationError": _from_broken_stream,
    "APIStatusError": from_status_error,
    "BadRequestError": from_status_error,
    "AuthenticationError": from_status_error,
    "OAuthError": from_status_error,
    "PermissionDeniedError": from_status_error,
    "NotFoundError": from_status_error,
    "ConflictError": from_status_error,
    "UnprocessableEntityError": from_status_error,
    "RateLimitError": from_status_error,
    "InternalServerError": from_status_error,
    "LengthFinishReasonError": _from_length,
    "ContentFilterFinishReasonError": _from_filter,
    "StreamAlreadyConsumed": _from_broken_stream,
    "WebSocketConnectionClosedError": _from_broken_stream,
    "WebSocketQueueFullError": _from_broken_stream,
}
"""By class name, because versions of the SDK differ in what they have. A test compares it with the installed SDK."""
