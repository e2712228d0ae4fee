"""The one place where exceptions of the anthropic SDK become llmflow's."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    from llmflow.errors import StepError
    from llmflow.providers._errors import Source
    from llmflow.providers._sdk_errors import Translator

__all__ = ["TRANSLATORS", "translate"]


def translate(exc: Exception, source: Source, now: float) -> StepError:
    """Return llmflow's error for what the anthropic SDK raised."""
    return translate_by(TRANSLATORS, exc, source, now)


TRANSLATORS: dict[str, Translator] = {
    "AnthropicError": from_credentials,  # raised bare only for missing or contradictory credentials
    "CredentialsError": from_credentials,
    "IdentityTokenFileError": from_credentials,
    "WorkloadIdentityError": from_credentials,
    "APIError": from_stream_event,
    "APIConnectionError": connection_failed,
    "APITimeoutError": from_time_out,
    "APIResponseValidationError": from_unreadable,
    "APIWebhookValidationError": from_misuse,
    "RetryableError": connection_failed,
    "APIStatusError": from_status_error,  # and its hundred subclasses: the status and the body say what they are
    "StreamAlreadyConsumed": from_unreadable,
    "MutuallyExclusiveAuthError": from_credentials,
    "MissingDependencyError": from_misuse,
    "ToolsetUsageError": from_misuse,
    "ToolsetContractError": from_misuse,
    "ToolsetsFixedError": from_misuse,
    "ToolsetClosedError": from_misuse,
    "ToolsetConfigError": from_misuse,
}
"""By class name, because versions of the SDK differ in what they have. A test compares it with the installed SDK."""
