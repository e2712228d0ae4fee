"""Checking the options of policies, so that an absurd value is refused where it is written."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import TypeAlias

from llmflow.errors import DefinitionError

__all__ = ["Duration", "check_count", "check_key", "check_name", "check_seconds", "seconds"]

Duration: TypeAlias = float | timedelta | str
"""Seconds, a `timedelta`, or text such as `"90s"`, `"5m"`, `"1h30m"`, `"2d"`, `"250ms"`."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")


def seconds(value: Duration, /, *, name: str) -> float:
    """Return `value` in seconds; `name` says in errors whose value it is."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str):
        return _parse(value, name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"{name} is {value!r}, expected seconds, a timedelta or text such as '1h30m'"
        raise DefinitionError(msg)
    return float(value)


def _parse(text: str, name: str) -> float:
    squeezed = text.replace(" ", "")
    parts = _PART.findall(squeezed)
    if not parts or "".join(number + unit for number, unit in parts) != squeezed:
        msg = f"{name} is {text!r}, expected a duration such as '30s', '5m', '1h30m' or '2d'"
        raise DefinitionError(msg)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def check_seconds(value: Duration, /, *, name: str, zero: bool = False) -> float:
    """Return `value` in seconds, refusing what no clock can wait for."""
    result = seconds(value, name=name)
    if not math.isfinite(result) or result < 0 or (result == 0 and not zero):
        msg = f"{name} is {value!r}, expected {'zero or ' if zero else ''}a positive, finite duration"
        raise DefinitionError(msg)
    return result


def check_count(value: int, /, *, name: str, minimum: int = 1) -> int:
    """Return `value`, refusing anything but a whole number of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        msg = f"{name} is {value!r}, expected a whole number of at least {minimum}"
        raise DefinitionError(msg)
    return value


def check_key(value: object, *, policy: str) -> None:
    """Refuse a `key=` that does not say what is counted apart."""
    if value is not None and value != "tenant" and not callable(value):
        msg = f"{policy}: key is {value!r}, expected 'tenant' or a function of the request"
        raise DefinitionError(msg)


def check_name(value: object, *, policy: str) -> None:
    """Refuse a `name=` that is no text, or empty."""
    if value is not None and (not isinstance(value, str) or not value):
        msg = f"{policy}: name is {value!r}, expected text"
        raise DefinitionError(msg)
