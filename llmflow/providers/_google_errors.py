"""The one place where exceptions of the google-genai SDK become llmflow's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmflow.providers._errors import Facts, Source, codes_in, error_from_facts, message_in
from llmflow.providers._json import as_mapping, mappings_in
from llmflow.providers._limit_headers import limit_headers
from llmflow.providers._retry_after import retry_after
from llmflow.providers._sdk_errors import from_misuse, from_unreadable, translate_by

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmflow.errors import StepError
    from llmflow.providers._sdk_errors import Translator

__all__ = ["TRANSLATORS", "translate"]

_DELAY = "type.googleapis.com/google.rpc.RetryInfo"


def translate(exc: Exception, source: Source, now: float) -> StepError:
    """Return llmflow's error for what the google-genai SDK raised."""
    return translate_by(TRANSLATORS, exc, source, now)


def _from_api_error(exc: Any, source: Source, now: float) -> StepError:
    headers: Mapping[str, str] = getattr(exc.response, "headers", None) or {}
    wait = retry_after(headers, now)
    return error_from_facts(
        Facts(
            status=exc.code if isinstance(exc.code, int) else None,
            codes=_codes(exc.details),
            text=message_in(exc.details),
            retry_after=_delay_in(exc.details) if wait is None else wait,
            limits=limit_headers(headers),
        ),
        source,
    )


def _codes(details: object) -> frozenset[str]:
    """Return the words for the failure; a day's quota used up is told from a minute's only by the name of the quota."""
    codes = codes_in(details)
    for detail in _details_in(details):
        if any("PerDay" in str(violation.get("quotaId")) for violation in mappings_in(detail.get("violations"))):
            return codes | {"quota_exceeded"}
    reasons = {str(detail.get("reason")).lower() for detail in _details_in(details)}
    return codes | {"invalid_api_key"} if "api_key_invalid" in reasons else codes


def _delay_in(details: object) -> float | None:
    """Return the seconds of a RetryInfo, which Google sends instead of a header: `"retryDelay": "34s"`."""
    for detail in _details_in(details):
        if detail.get("@type") == _DELAY:
            return retry_after({"retry-after": str(detail.get("retryDelay")).removesuffix("s")}, 0.0)
    return None


def _details_in(details: object) -> list[dict[str, Any]]:
    body = as_mapping(details)
    return mappings_in(as_mapping(body.get("error", body)).get("details"))


TRANSLATORS: dict[str, Translator] = {
    "APIError": _from_api_error,
    "ClientError": _from_api_error,
    "ServerError": _from_api_error,
    "UnknownApiResponseError": from_unreadable,
    "ContinuationInterruptedError": from_unreadable,
    "UnknownFunctionCallArgumentError": from_misuse,
    "UnsupportedFunctionError": from_misuse,
    "FunctionInvocationError": from_misuse,
    "JSONDecodeError": from_unreadable,
    "ValidationError": from_unreadable,  # pydantic's, when a reply does not fit the SDK's classes
}
"""By class name, because versions of the SDK differ in what they have. A test compares it with the installed SDK."""
