"""`llmflow runs --forget-before`: what was asked and answered long ago need not be kept for ever."""

from __future__ import annotations

import sqlite3

from llmflow.cli._failures import UsageError
from llmflow.cli._journal_file import journal_path
from llmflow.cli._moments import day_and_time, window
from llmflow.cli._report import count
from llmflow.cli._session import session
from llmflow.cli._terminal import say
from llmflow.stores._forget import forget

__all__ = ["forget_runs"]


def forget_runs(*, before: str, all_of_it: bool) -> None:
    """Drop the content of runs that began before a point of time, or everything about them."""
    with session() as runtime:
        path, now = journal_path(runtime), runtime.clock.time()
    until = window(None, before, now).until
    assert until is not None  # it was given
    if path is None or not path.exists():
        raise UsageError("there is no journal in a file here")
    try:
        dropped = forget(path, until, all_of_it=all_of_it)
    except (sqlite3.Error, OSError) as exc:
        raise UsageError(f"the journal {path} cannot be used: {exc}") from exc
    what = "forgotten" if all_of_it else "stripped of inputs and outputs"
    say(f"{count(dropped, 'run')} from before {day_and_time(until)} {what}")
