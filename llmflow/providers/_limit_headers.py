"""Which headers of a reply are kept: those that say how much of a rate limit is left."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["limit_headers"]

_PREFIXES = ("x-ratelimit-", "anthropic-ratelimit-", "retry-after")
_LONGEST_VALUE = 100
_VALUE = re.compile(
    r"-?\d[\d.,:+\-TZdhms ]*"  # a number, a duration such as 6m0s, a moment such as 2026-01-27T12:00:00Z
    r"|[A-Z][a-z]{2,8}, \d{2}[ -][A-Z][a-z]{2}[ -]\d{2,4} [\d:]{8} GMT"  # a date of HTTP
)
"""What such a header can say. A gateway may echo anything there, a key too, and nothing else could be made use of."""


def limit_headers(headers: Mapping[str, str]) -> dict[str, str] | None:
    """Return the headers about limits, None when there are none; the others may hold what belongs in no record."""
    kept = {
        lower: value
        for name, value in headers.items()
        if (lower := name.lower()).startswith(_PREFIXES)
        and len(value) <= _LONGEST_VALUE
        and _VALUE.fullmatch(value) is not None
    }
    return kept or None
