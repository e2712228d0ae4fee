"""Bounds in words a person reads, never less than they are."""

from __future__ import annotations

import math
from decimal import ROUND_UP, Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmflow.policy import Bounds

__all__ = ["bounds_in_words", "spending_in_words"]

_MINUTE = 60
_HOUR = 3600


def bounds_in_words(bounds: Bounds) -> str:
    """Return `36 provider calls, $0.0412, 5 min 0 s`; what has no bound is said to have none."""
    return f"{spending_in_words(bounds)}, {_seconds(bounds.seconds)}"


def spending_in_words(bounds: Bounds) -> str:
    """Return `36 provider calls, $0.0412`."""
    return "no provider calls" if bounds.calls == 0 else f"{_calls(bounds.calls)}, {_dollars(bounds.usd)}"


def _calls(number: int | None) -> str:
    if number is None:
        return "any number of provider calls"
    return f"{number:,} provider call{'' if number == 1 else 's'}"


def _dollars(usd: Decimal | None) -> str:
    if usd is None:
        return "unknown dollars"
    if not usd:
        return "$0.00"
    cents = Decimal("0.01") if usd >= 1 else Decimal("0.0001")
    return f"${usd.quantize(cents, rounding=ROUND_UP):,}"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "unknown time"
    if seconds < _MINUTE:
        tenths = math.ceil(seconds * 10 - 1e-6) / 10  # 0.3 * 10 is a little more than 3
        return f"{tenths:g} s"
    hours, rest = divmod(math.ceil(seconds - 1e-6), _HOUR)
    minutes, last = divmod(rest, _MINUTE)
    return f"{hours} h {minutes} min {last} s" if hours else f"{minutes} min {last} s"
