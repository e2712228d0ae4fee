"""The one place where exceptions of the openai SDK become llmflow's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmflow.errors import ContentFiltered, StepError, Truncated
from llmflow.providers._sdk_errors import (
    connection_failed,
    from_credentials,
    from_misuse,
    from_status_error,
    from_stream_event,
    from_time_out,
    from_unreadable,
    translate_by,
)

if TYPE_CHECKING:
    from llmflow.providers._errors import Source
    from llmflow.providers._sdk_errors import Translator

__all__ = ["TRANSLATORS", "translate"]


def translate(exc: Exception, source: Source, now: float) -> StepError:
    """Return llmflow's error for what the openai SDK raised."""
    return translate_by(TRANSLATORS, exc, source, now)


def _from_length(exc: Exception, source: Source, now: float) -> StepError:
    del exc, now
    return Truncated(f"{source.model}: the answer was cut at max_tokens")


def _from_filter(exc: Exception, source: Source, now: float) -> StepError:
    del exc, now
    return ContentFiltered(f"{source.model}: the provider withheld the answer")


TRANSLATORS: dict[str, Translator] = {
    "OpenAIError": from_credentials,  # raised bare only for missing or contradictory credentials
    "SubjectTokenProviderError": from_credentials,
    "MutuallyExclusiveAuthError": from_credentials,
    "APIRemovedInV1": from_misuse,
    "MissingDependencyError": from_misuse,
    "_AmbiguousModuleClientUsageError": from_misuse,
    "APIError": from_stream_event,
    "APIConnectionError": connection_failed,
    "APITimeoutError": from_time_out,
    "APIResponseValidationError": from_unreadable,
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
    "StreamAlreadyConsumed": from_unreadable,
    "WebSocketConnectionClosedError": from_unreadable,
    "WebSocketQueueFullError": from_unreadable,
}
"""By class name, because versions of the SDK differ in what they have. A test compares it with the installed SDK."""
