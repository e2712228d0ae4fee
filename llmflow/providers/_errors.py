"""Builds errors of providers: what may be said in one, and which status means what."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmflow.errors import (
    AuthenticationFailed,
    BadRequest,
    ContentFiltered,
    ContextTooLong,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExceeded,
    RateLimited,
    StepError,
)
from llmflow.providers._json import as_mapping

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Facts",
    "Source",
    "clean_text",
    "codes_in",
    "error_from_facts",
    "message_in",
    "scrub",
    "timed_out",
    "unavailable",
]

_LONGEST_TEXT = 300
_MASK = "**********"
_SHORTEST_SECRET = 5  # a placeholder like "k" is no secret, and hiding every k of a message hides the message
_LOOKS_LIKE_KEY = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|key)-[A-Za-z0-9_\-*]{6,}|\bAIza[A-Za-z0-9_\-]{10,}|\bBearer\s+[^\s'\",]+"
)

_QUOTA_CODES = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "quota_exceeded", "credit_limit_reached"}
    | {"enforced_spend_limit_reached", "contract_spend_limit_reached"}
)
_QUOTA_TEXT = re.compile(
    r"exceeded your current quota|billing hard limit|credit balance is too low|insufficient (?:credits|balance)",
    re.IGNORECASE,
)
_CONTEXT_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error", "context_window_exceeded"})
_CONTEXT_TEXT = re.compile(
    r"maximum context length|context window|context length|context size|prompt is too long|input is too long"
    r"|too many (?:input )?tokens|input token count.{0,40}exceeds",
    re.IGNORECASE,
)
_RATE_CODES = frozenset({"rate_limit_exceeded", "rate_limit_error", "rate_limited", "too_many_requests"})
_KEY_CODES = frozenset({"invalid_api_key", "authentication_error", "permission_error", "permission_denied"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Who failed: the model's name for the message, and the secrets that must not be in it."""

    provider: str
    model: str
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a provider said about a failure."""

    status: int | None = None
    codes: frozenset[str] = frozenset()
    """The error's own words for its kind, such as `insufficient_quota`."""
    text: str = ""
    retry_after: float | None = None
    should_retry: bool | None = None
    """What `x-should-retry` says."""
    limits: Mapping[str, str] | None = None
    """The reply's headers about rate limits."""


def error_from_facts(facts: Facts, source: Source) -> StepError:
    """Return the error that says what happened, of the class that says what helps."""
    kind, retryable = _kind_of(facts)
    if facts.should_retry is not None:
        retryable = facts.should_retry
    text = _sentence(facts, source)
    if issubclass(kind, ContentFiltered):
        filtered = kind(text)
        filtered.status = facts.status
        return filtered
    assert issubclass(kind, ProviderError)
    error = kind(
        text,
        provider=source.provider,
        model=source.model,
        status=facts.status,
        retryable=retryable,
        retry_after=facts.retry_after,
    )
    error.headers = facts.limits
    return error


def unavailable(source: Source, text: str, *, status: int | None = None, retryable: bool = True) -> ProviderUnavailable:
    """Return the error for no reply, or for one that cannot be read."""
    message = f"{source.model}: {clean_text(text, source.secrets)}"
    return ProviderUnavailable(
        message, provider=source.provider, model=source.model, status=status, retryable=retryable
    )


def timed_out(source: Source) -> ProviderTimeout:
    """Return the error for a time-out of the client itself; llmflow's own clients have none."""
    return ProviderTimeout(f"{source.model}: the client timed out", provider=source.provider, model=source.model)


def message_in(body: object) -> str:
    """Return the provider's own words from an error body, and nothing else of it: it may repeat the prompt."""
    if isinstance(body, str):
        return "" if body.lstrip().startswith(("<", "{", "[")) else body
    inner = as_mapping(body)
    texts = (message_in(inner[name]) for name in ("message", "error", "detail", "error_description") if name in inner)
    return next(filter(None, texts), "")


def clean_text(text: str, secrets: tuple[str, ...] = ()) -> str:
    """Make text from outside fit for a message: one line, nothing invisible, no keys, not long."""
    line = " ".join(scrub(text[:100_000], secrets).split())
    line = line if len(line) <= _LONGEST_TEXT else f"{line[:_LONGEST_TEXT]}..."
    return line if line.isascii() and line.isprintable() else "".join(map(_visible, line))


def scrub(text: str, secrets: tuple[str, ...]) -> str:
    """Hide the given secrets, and whatever looks like a key."""
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, _MASK)
    return _LOOKS_LIKE_KEY.sub(_MASK, text)


def _visible(character: str) -> str:
    # Control, format (bidirectional overrides) and surrogate characters can forge what a reader of a log sees.
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character.encode("unicode_escape", "surrogatepass").decode("ascii")
    return character


def _sentence(facts: Facts, source: Source) -> str:
    status = "" if facts.status is None else f"{facts.status} "
    return f"{source.model}: {status}{clean_text(facts.text, source.secrets) or 'without a message'}"


def _kind_of(facts: Facts) -> tuple[type[StepError], bool | None]:
    """Return the class, and whether it may be sent again where the class alone does not say it."""
    status = facts.status
    if facts.codes & _QUOTA_CODES or status == 402 or (status in (400, 403, 429) and _QUOTA_TEXT.search(facts.text)):
        return QuotaExceeded, None
    if facts.codes & _CONTEXT_CODES or (status in (400, 413, 422) and _CONTEXT_TEXT.search(facts.text)):
        return ContextTooLong, None
    if "invalid_api_key" in facts.codes:  # Google answers 400
        return AuthenticationFailed, None
    if "content_filter" in facts.codes:
        return ContentFiltered, None
    if status is None:
        return _kind_of_codes(facts.codes)
    return _kind_of_status(status)


def _kind_of_status(status: int) -> tuple[type[StepError], bool | None]:
    if status in (401, 403):
        return AuthenticationFailed, None
    if status == 429:
        return RateLimited, None
    if status >= 500 or status == 408:
        return ProviderUnavailable, True
    if status < 400:  # a redirect, which is never followed: the address is wrong, and will be next time
        return ProviderUnavailable, False
    return BadRequest, None


def _kind_of_codes(codes: frozenset[str]) -> tuple[type[StepError], bool | None]:
    """Judge an error that came without a status: inside a 200, or as an event of a stream."""
    if codes & _RATE_CODES:
        return RateLimited, None
    if codes & _KEY_CODES:
        return AuthenticationFailed, None
    if "invalid_request_error" in codes:
        return BadRequest, None
    return ProviderUnavailable, True


def codes_in(body: object) -> frozenset[str]:
    """Return the words by which an error body names its kind."""
    inner = as_mapping(body)
    values: list[object] = [inner.get(name) for name in ("code", "type", "status", "error_code")]
    nested = [codes_in(inner[name]) for name in ("error", "details") if name in inner]
    return frozenset(value.lower() for value in values if isinstance(value, str)).union(*nested)
