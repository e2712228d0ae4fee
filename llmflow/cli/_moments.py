"""Points of time as people write and read them."""

from __future__ import annotations

from datetime import datetime

from llmflow.cli._failures import UsageError
from llmflow.errors import DefinitionError
from llmflow.policy import seconds
from llmflow.stores._report_groups import Window

__all__ = ["day_and_time", "moment", "point", "window"]

_MINUTE = 60
_HOUR = 3600


def window(since: str | None, until: str | None, now: float) -> Window:
    """Return what `--since` and `--until` say."""
    found = Window(
        since=None if since is None else point("--since", since, now),
        until=None if until is None else point("--until", until, now),
    )
    if found.since is not None and found.until is not None and found.since >= found.until:
        raise UsageError(f"--since {since} is not before --until {until}")
    return found


def point(option: str, text: str, now: float) -> float:
    """Return the point of time that an option names.

    Raises:
        UsageError: When it names none.
    """
    try:
        return now - seconds(text, name=option)
    except DefinitionError:
        pass
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()  # what names no time zone is local
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"{option} {text!r} is no time",
            "Write how long ago it was, such as 90m, 24h or 7d, or a date such as 2026-03-31 or 2026-03-31T15:00.",
        ) from None


def moment(time: float, now: float) -> str:
    """Return when something was, in local time; how long ago when it was today."""
    then, today = _local(time), _local(now)
    ago = now - time
    if then.date() != today.date() or ago < 0:
        return f"{then:%Y-%m-%d %H:%M}"
    if ago < _MINUTE:
        return f"{ago:.0f} s ago"
    return f"{ago / _MINUTE:.0f} min ago" if ago < _HOUR else f"today {then:%H:%M}"


def day_and_time(time: float) -> str:
    """Return when something was, in local time, with all there is to say."""
    return f"{_local(time):%a %Y-%m-%d %H:%M:%S %z}"


def _local(time: float) -> datetime:
    return datetime.fromtimestamp(time).astimezone()
