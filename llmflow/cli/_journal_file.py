"""Which file the reports are about, and what to say when it cannot be read."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llmflow.cli._failures import UsageError
from llmflow.cli._session import session
from llmflow.runtime import Runtime
from llmflow.stores._journal_reports import AmbiguousRun, NoJournal, NoRun, Reports, open_reports

if TYPE_CHECKING:
    from llmflow.journal import RecordedRun

__all__ = ["check_journal", "find_run", "journal_path", "reports"]


_NAME_A_FILE = "Name a file: LLMFLOW_JOURNAL=sqlite:///.llmflow/llmflow.db, or journal = ... in [tool.llmflow]."


def journal_path(runtime: Runtime) -> Path | None:
    """Return the file of a runtime's journal, None when it is in memory or in a store of a third party."""
    path = getattr(runtime.journal, "path", None)
    return path if isinstance(path, Path) else None


@contextmanager
def reports() -> Generator[Reports]:
    """Open the journal for a command."""
    with session() as runtime:
        path = journal_path(runtime)
    if path is None:
        raise UsageError(
            "the journal is in memory, or in a store that cannot be looked into",
            _NAME_A_FILE,
        )
    with ExitStack() as opened:
        try:
            found = opened.enter_context(open_reports(path))
        except NoJournal as exc:
            raise UsageError(str(exc), "It is made when something is run: llmflow run TARGET") from exc
        except (sqlite3.Error, OSError) as exc:
            raise UsageError(f"the journal {path} cannot be read: {exc}") from exc
        try:
            yield found
        except (NoRun, AmbiguousRun) as exc:
            raise UsageError(str(exc), *_ways_out(exc)) from exc
        except sqlite3.Error as exc:  # a page of the file may be broken although its head is not
            raise UsageError(f"the journal {path} cannot be read: {exc}") from exc


def _ways_out(exc: NoRun | AmbiguousRun) -> tuple[str, ...]:
    if isinstance(exc, AmbiguousRun):
        return (f"Write more of it: {', '.join(exc.runs)}",)
    return ("`llmflow runs` lists those that there are.",)


def check_journal(runtime: Runtime) -> None:
    """Refuse to look into a journal that cannot be read, or is not there yet.

    Raises:
        UsageError: Saying what to do.
    """
    path = journal_path(runtime)
    if path is None:
        raise UsageError("the journal is in memory, or in a store that cannot be looked into", _NAME_A_FILE)
    if not path.exists():
        raise UsageError(f"there is no journal {path}", "It is made when something is run: llmflow run TARGET")


def find_run(runtime: Runtime, run: str) -> RecordedRun:
    """Return a run by its id, the beginning of its id, or `last`.

    Raises:
        UsageError: When there is no such run, or several.
    """
    find = getattr(runtime.journal, "runs", None)
    if find is None:
        raise UsageError("the journal is in memory, or in a store that cannot be looked into", _NAME_A_FILE)
    found: list[RecordedRun] = find(run)
    if not found:
        raise UsageError(f"there is no run {run!r}", "`llmflow runs` lists those that there are.")
    if len(found) > 1:
        raise UsageError(
            f"{run!r} is the beginning of {len(found)} runs",
            f"Write more of it: {', '.join(one.run_id for one in found)}",
        )
    return found[0]
