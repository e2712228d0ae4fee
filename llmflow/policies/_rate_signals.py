"""What a provider says about its own limits, and what is believed of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmflow.policies._rate_window import Entry

__all__ = ["Remaining", "Signals", "remaining_in", "reset_in"]

LONGEST_BELIEF = 3600.0
"""Seconds; junk in a header must not shut a program out for a day."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0

_NEVER = float("-inf")
_ALL = float("inf")

_REQUESTS = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
)
_TOKENS = (
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
)
_DIGITS = 15
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")
_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|[dhms])")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_EPOCH = 1e9
"""A number as large as this is a date: seconds since 1970, or milliseconds."""
_EPOCH_MS = 1e11


Remaining: TypeAlias = "tuple[int | None, str, int | None, str]"
"""Requests left and the header that says until when, tokens left and the header that says until when."""


class Signals:
    """What is believed of the provider at the moment, by all pots of one limit. Whoever uses it holds the limit's lock.

    Attributes:
        until: When the last of it is forgotten; afterwards nothing here has a say.
        closed_until: Nothing is sent before.
        requests_left: How many requests the provider still takes before `requests_until`.
        tokens_left: How many tokens the provider still takes before `tokens_until`.
        admitted: How many requests were let through.
        reserved: How many tokens they reserved.
    """

    __slots__ = (
        "_closed_after",
        "_heard_from",
        "_strikes",
        "admitted",
        "closed_until",
        "requests_left",
        "requests_until",
        "reserved",
        "tokens_left",
        "tokens_until",
        "until",
    )

    def __init__(self) -> None:
        self.admitted = 0
        self.reserved = 0
        self.forget()

    def forget(self) -> None:
        """Believe nothing."""
        self.until = self.closed_until = self.requests_until = self.tokens_until = _NEVER
        self.requests_left = self.tokens_left = _ALL
        self._strikes = 0
        self._closed_after = self.admitted
        self._heard_from = 0

    def ready(self, at: float, tokens: int, requests_left: float, tokens_left: float) -> float:
        """Return when the provider would take a request, not before `at`."""
        at = max(at, self.closed_until)
        if requests_left < 1:
            at = max(at, self.requests_until)
        if tokens_left < tokens:
            at = max(at, self.tokens_until)
        return at

    def refund(self, entry: Entry) -> None:
        """Take back a request that was never sent; what the provider said before it still holds."""
        if entry.number > self._heard_from:
            self.requests_left += 1
            self.tokens_left += entry.tokens

    def is_news(self, entry: Entry) -> bool:
        """Whether the reply to this request tells more than the replies before: requests overtake each other."""
        if entry.number < self._heard_from:
            return False
        self._heard_from = entry.number
        return True

    def hear_requests(self, left: float, until: float) -> None:
        """Believe that the provider takes so many requests more, until then."""
        self.requests_left, self.requests_until = left, until
        self.until = max(self.until, until)

    def hear_tokens(self, left: float, until: float) -> None:
        """Believe that the provider takes so many tokens more, until then."""
        self.tokens_left, self.tokens_until = left, until
        self.until = max(self.until, until)

    def close(self, entry: Entry, now: float, asked: float | None) -> None:
        """Send nothing for so long as the provider asked for, or a short while when it did not say.

        Requests that were under way when it was closed are refused with it; they say nothing new.
        """
        if asked is None:
            if entry.number <= self._closed_after:
                return
            asked = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._strikes, 10))
            self._strikes += 1
        self._closed_after = self.admitted
        self.closed_until = max(self.closed_until, now + min(asked, LONGEST_BELIEF))
        self.until = max(self.until, self.closed_until)

    def went_well(self, entry: Entry) -> None:
        """Take note that the provider answers again."""
        if self._strikes and entry.number > self._closed_after:
            self._strikes = 0

    def is_open(self, now: float) -> bool:
        """Whether the provider takes anything at all."""
        return self.ready(now, 1, self.requests_left, self.tokens_left) <= now

    @property
    def is_on_guard(self) -> bool:
        """Whether the last that was heard is a refusal."""
        return self._strikes > 0


def remaining_in(headers: Mapping[str, str]) -> Remaining:
    """Return how many requests and tokens a reply says are left, each with the name of the header that says how long."""
    requests, requests_reset = _first(headers, _REQUESTS)
    tokens, tokens_reset = _first(headers, _TOKENS)
    return requests, requests_reset, tokens, tokens_reset


def _first(headers: Mapping[str, str], names: tuple[tuple[str, str], ...]) -> tuple[int | None, str]:
    for remaining, reset in names:
        value = headers.get(remaining)
        if value is not None:
            # Only digits: int() takes "-1", "1_0" and digits of other scripts too.
            is_count = len(value) <= _DIGITS and value.isascii() and value.isdigit()
            return (int(value) if is_count else None), reset
    return None, ""


def reset_in(text: str | None, wall_now: float) -> float | None:
    """Return in how many seconds a limit is reset: `"1s"`, `"6m0s"`, `"120ms"`, `"17.5"`, a date, None for nonsense."""
    if text is None:
        return None
    text = text.strip()
    seconds = _number(text, wall_now)
    if seconds is None:
        seconds = _duration(text)
    if seconds is None:
        seconds = _until(text, wall_now)
    return None if seconds is None or seconds < 0 else min(seconds, LONGEST_BELIEF)


def _number(text: str, wall_now: float) -> float | None:
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    if value < _EPOCH:
        return value
    return (value if value < _EPOCH_MS else value / 1000) - wall_now


def _duration(text: str) -> float | None:
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _until(text: str, wall_now: float) -> float | None:
    try:
        date = datetime.fromisoformat(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - wall_now
    except (ValueError, OverflowError, OSError):
        return None
