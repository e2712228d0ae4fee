"""How long a provider asks to wait."""

from __future__ import annotations

import math
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["retry_after"]

_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds to wait by `retry-after-ms` or `Retry-After` (seconds or HTTP date), None for nonsense.

    Args:
        headers: The reply's headers, with names looked up in lower case.
        now: Seconds since the epoch, to count from to a date.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    return seconds if seconds is not None else _until(value, now)


def _number(value: str | None) -> float | None:
    # A pattern instead of float(): that one also takes "inf", "nan", "1_0" and "-1".
    if value is None or not _NUMBER.fullmatch(value.strip()):
        return None
    return float(value)


def _until(value: str | None, now: float) -> float | None:
    if value is None:
        return None
    try:
        date = parsedate_to_datetime(value)
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
