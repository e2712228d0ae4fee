"""What the command that started a run was told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llmflow.cli._terminal import say

if TYPE_CHECKING:
    from llmflow.journal import RecordedRun

__all__ = ["as_command", "say_model", "told"]


def as_command(**options: object) -> str:
    """Return what a command was told, as the journal keeps it."""
    return json.dumps(options)


def told(run: RecordedRun) -> dict[str, Any]:
    """Return what the command that started a run was told, nothing when a program started it."""
    found: dict[str, Any] = {} if run.command is None else json.loads(run.command)
    return found


def say_model(run: RecordedRun, model: str | None, *, quiet: bool) -> None:
    """Say that the model is asked that a run was told to ask: it is not the one that the code names."""
    if model is not None and not quiet:
        say(f"run {run.run_id} was told --model {model}, so that is asked", "dim")
