"""`llmflow runs --forget-before` and `--delete-before`: what was asked and answered long ago need not be kept for ever."""

from __future__ import annotations

import sqlite3

from llmflow.cli._failures import UsageError
from llmflow.cli._journal_file import journal_path
from llmflow.cli._moments import day_and_time, point
from llmflow.cli._report import count
from llmflow.cli._session import session
from llmflow.cli._terminal import say
from llmflow.stores._forget import forget

__all__ = ["forget_runs"]


def forget_runs(*, forget_before: str | None, delete_before: str | None) -> None:
    """Drop the content of runs that began before a point of time, or everything about them."""
    if forget_before is not None and delete_before is not None:
        raise UsageError(
            "--forget-before and --delete-before exclude each other",
            "Run the command twice: --delete-before for the oldest, then --forget-before.",
        )
    all_of_it = delete_before is not None
    option, before = ("--delete-before", delete_before) if all_of_it else ("--forget-before", forget_before)
    assert before is not None  # one of them was given
    with session() as runtime:
        path, now = journal_path(runtime), runtime.clock.time()
    until = point(option, before, now)
    if path is None or not path.exists():
        raise UsageError("there is no journal in a file here")
    try:
        dropped = forget(path, until, all_of_it=all_of_it)
    except (sqlite3.Error, OSError) as exc:
        raise UsageError(f"the journal {path} cannot be used: {exc}") from exc
    what = "deleted" if all_of_it else "stripped of inputs and outputs"
    say(f"{count(dropped, 'run')} from before {day_and_time(until)} {what}")
