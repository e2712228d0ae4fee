"""How a run that has not ended well is taken up again."""

from __future__ import annotations

import shlex
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llmflow.cli._terminal import say
from llmflow.cli._told import told
from llmflow.errors import JournalUnavailable, RunConflict

if TYPE_CHECKING:
    from llmflow.journal import RecordedRun
    from llmflow.runtime import Runtime

__all__ = ["again", "telling_how"]

_ENDED = ("failed", "cancelled", "interrupted")


@contextmanager
def telling_how(runtime: Runtime, run_id: str | None, target: str, *, quiet: bool) -> Generator[None]:
    """Around a run with an id: when it does not end well, tell how it goes on, if there is something to go on with."""
    try:
        yield
    except KeyboardInterrupt:
        if not quiet and (how := _how(runtime, run_id, target)) is not None:
            say(f"interrupted; {how}", "dim")
        raise
    except RunConflict:  # it says itself what can be done
        raise
    except Exception as exc:
        if (how := _how(runtime, run_id, target)) is not None:
            exc.add_note(how)
        raise


def _how(runtime: Runtime, run_id: str | None, target: str) -> str | None:
    run = None if run_id is None else _recorded(runtime, run_id)
    if run is None or run.status not in _ENDED:
        return None
    if run.content != "whole" or run.inputs is None:
        return again(run, target)
    return f"To go on with what it has done: llmflow resume {shlex.quote(run.run_id)}"


def _recorded(runtime: Runtime, run_id: str) -> RecordedRun | None:
    find = getattr(runtime.journal, "runs", None)
    if find is None:  # in memory, and gone with this process
        return None
    try:
        found: list[RecordedRun] = find(run_id)
    except JournalUnavailable:
        return None
    return next((one for one in found if one.run_id == run_id), None)


def again(run: RecordedRun, target: str) -> str:
    """Return how a run goes on whose inputs are not stored as they were: somebody has to give them again."""
    model = told(run).get("model")
    options = ["--run-id", shlex.quote(run.run_id), *(["--model", shlex.quote(model)] if model else [])]
    if run.inputs is None:  # nor is what its nodes gave
        options.append("--rerun-changed")
    return f"Give it the same input again: llmflow run {shlex.quote(target)} --input ... {' '.join(options)}"
