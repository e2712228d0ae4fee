"""Ids that callers give to runs."""

from __future__ import annotations

from llmflow.errors import DefinitionError

__all__ = ["check_run_id", "inner_run"]

_LONGEST_ID = 200
_TAKEN = "last"
"""What the commands call the run that began last; a run of that name would hide it."""


def check_run_id(run_id: object, where: str) -> str:
    """Return a run id, refusing what cannot name a run in a file, a table and a command.

    Raises:
        DefinitionError: For anything but a text of 1 to 200 printable characters, and for `last`.
    """
    if not isinstance(run_id, str) or not 0 < len(run_id) <= _LONGEST_ID or not run_id.isprintable():
        msg = f"{where}: run_id is {run_id!r}, expected a text of 1 to {_LONGEST_ID} printable characters"
        raise DefinitionError(msg)
    if run_id == _TAKEN:
        msg = f"{where}: run_id is {run_id!r}, which names the run that began last: llmflow resume {_TAKEN}; use another one"
        raise DefinitionError(msg)
    return run_id


def inner_run(name: str, run_id: str | None, where: str) -> DefinitionError:
    """Return the error for a unit with a run id of its own that is called inside of another run."""
    msg = (
        f"{name!r} has the run id {run_id!r}, but is called inside of {where}; a run is the outermost call, so give the id "
        f"to that one"
    )
    return DefinitionError(msg)
