"""The journal that commands read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmflow.cli._failures import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from llmflow.journal import RecordedRun
    from llmflow.runtime import Runtime

__all__ = ["find_run", "journal_path"]


def journal_path(runtime: Runtime) -> Path | None:
    """Return the file of a runtime's journal, None when it is kept elsewhere."""
    path: Path | None = getattr(runtime.journal, "path", None)
    return path


def find_run(runtime: Runtime, run: str) -> RecordedRun:
    """Return a run by its id, the beginning of its id, or `last`.

    Raises:
        UsageError: When there is no such run, or several.
    """
    journal = runtime.journal
    runs = getattr(journal, "runs", None)
    if runs is None:
        raise UsageError(
            "the journal is in memory, or in a store that cannot be looked into",
            "Name a file: LLMFLOW_JOURNAL=sqlite:///runs.db, or journal = ... in [tool.llmflow].",
        )
    found: list[RecordedRun] = runs(run)
    if not found:
        raise UsageError(f"there is no run {run!r}", "`llmflow runs` lists them.")
    if len(found) > 1:
        raise UsageError(
            f"{run!r} is the beginning of {len(found)} runs: {', '.join(one.run_id for one in found[:3])}, ..."
        )
    return found[0]
