"""Which headers of a reply are kept: those that say how much of a rate limit is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["limit_headers"]

_PREFIXES = ("x-ratelimit-", "anthropic-ratelimit-", "retry-after")
_LONGEST_VALUE = 100


def limit_headers(headers: Mapping[str, str]) -> dict[str, str] | None:
    """Return the headers about limits, None when there are none; the others may hold what belongs in no record."""
    kept = {
        lower: value
        for name, value in headers.items()
        if (lower := name.lower()).startswith(_PREFIXES) and len(value) <= _LONGEST_VALUE
    }
    return kept or None
