"""What the exceptions of the SDKs of OpenAI and Anthropic mean; both come from one generator."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

from llmflow.errors import AuthenticationFailed, BadRequest, ProviderError, StepError
from llmflow.providers._decoding import ReplyTooLarge, UnreadableReply
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
from llmflow.providers._json import as_mapping
from llmflow.providers._limit_headers import limit_headers
from llmflow.providers._retry_after import retry_after
from llmflow.providers._scrubbing import scrub_exception

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Translator: TypeAlias = Callable[[Any, Source, float], StepError]

__all__ = [
    "connection_failed",
    "from_credentials",
    "from_misuse",
    "from_status_error",
    "from_stream_event",
    "from_time_out",
    "from_unreadable",
    "translate_by",
]


_ERROR_STATUS = re.compile(r"[45][0-9][0-9]")


def translate_by(translators: Mapping[str, Translator], exc: Exception, source: Source, now: float) -> StepError:
    """Return llmflow's error for what an SDK raised; raise it `from` that exception, which then holds no key.

    Args:
        translators: By class name; the nearest base counts.
        exc: Raised by the SDK, or by the network below it.
        source: Which model was asked.
        now: Seconds since the epoch, for a `Retry-After` that is a date.
    """
    names = (cls.__name__ for cls in type(exc).__mro__)
    translator = next((translators[name] for name in names if name in translators), _from_anything)
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
            limits=limit_headers(headers),
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
    error = unavailable(source, f"connection failed: {detail}")
    error.sent = not _never_connected(exc)
    return error


_NEVER_CONNECTED = frozenset(
    {
        "ClientConnectorError",
        "ConnectError",
        "ConnectFailed",
        "ConnectTimeout",
        "ConnectionRefusedError",
        "SSLCertVerificationError",
        "gaierror",
    }
)
"""What is raised while a connection is being made: by llmflow itself, httpx, the socket module, aiohttp."""


def _never_connected(exc: BaseException) -> bool:
    """Whether the failure, or what it came from, says that there was no connection to send anything on."""
    cause: BaseException | None = exc
    for _ in range(_LONGEST_CHAIN):
        if cause is None:
            return False
        if any(cls.__name__ in _NEVER_CONNECTED for cls in type(cause).__mro__):
            return True
        cause = cause.__cause__
    return False


_LONGEST_CHAIN = 10


def _text_of(exc: Any) -> str:
    location = exc.response.headers.get("location")
    if location is not None and exc.status_code < 400:
        return f"the provider redirects to {location}, and redirects are not followed; correct base_url"
    content_type = exc.response.headers.get("content-type", "").partition(";")[0]
    return message_in(exc.body) or (f"a reply of type {content_type}" if "html" in content_type else "")


def from_stream_event(exc: Any, source: Source, now: float) -> StepError:
    """Judge an error inside a 200, which has a body but no status; some gateways put the status into `code`."""
    del now
    body: object = exc.body
    code = str(as_mapping(body).get("code"))
    status = int(code) if _ERROR_STATUS.fullmatch(code) else None
    return error_from_facts(Facts(status=status, codes=codes_in(body), text=message_in(body)), source)


def from_time_out(exc: Exception, source: Source, now: float) -> StepError:
    """Judge a time-out of a client of the user's own."""
    del now
    error = timed_out(source)
    error.sent = not _never_connected(exc)
    return error


def from_credentials(exc: Exception, source: Source, now: float) -> StepError:
    """Judge the SDK's complaint that it has no credentials, or contradictory ones."""
    del now
    text = clean_text(str(exc), source.secrets)
    return AuthenticationFailed(f"{source.model}: {text}", provider=source.provider, model=source.model)


def from_unreadable(exc: Exception, source: Source, now: float) -> StepError:
    """Judge a reply that the SDK could not read."""
    del now
    return unavailable(source, str(exc))


def from_misuse(exc: Exception, source: Source, now: float) -> StepError:
    """Judge the SDK's complaint about how a client of the user's own is set up; the same call fails again."""
    del now
    text = clean_text(str(exc), source.secrets)
    return BadRequest(f"{source.model}: {text}", provider=source.provider, model=source.model)


def _from_anything(exc: Exception, source: Source, now: float) -> StepError:
    """Judge what is none of the SDK's errors: the network, or a client of the user's own."""
    status = getattr(exc, "status_code", None)
    if type(status) is int and 300 <= status <= 599:
        return error_from_facts(Facts(status=status, text=message_in(getattr(exc, "body", None) or "")), source)
    if isinstance(exc, (OSError, ReplyTooLarge, UnreadableReply)) or type(exc).__module__.partition(".")[0] in (
        "httpx",
        "httpx2",
        "aiohttp",
    ):
        return connection_failed(exc, source, now)
    text = clean_text(f"{type(exc).__name__}: {exc}", source.secrets)
    return ProviderError(f"{source.model}: the client failed with {text}", provider=source.provider, model=source.model)
