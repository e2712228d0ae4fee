"""`llmflow run` of one call."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from llmflow.cli._inputs import InputReader, read_source
from llmflow.cli._report import plain_result, result_line
from llmflow.cli._session import check, run_async, session
from llmflow.cli._target import load_target
from llmflow.cli._terminal import error_console, is_live, jsonable, say, write_json
from llmflow.messages import Result
from llmflow.step import Unit

__all__ = ["run_once"]


def run_once(target: str, *, source: str | None, model: str | None, as_json: bool, quiet: bool) -> None:
    """Call a target once and write its value."""
    unit = load_target(target)
    reader = InputReader(unit)
    arguments = reader.nothing() if source is None else reader.read(read_source(source))
    with session(model) as runtime:
        check(unit, runtime)
        with _waiting(unit, quiet=quiet):
            result: Result[Any] = run_async(lambda: unit.run(**arguments), runtime)
    write_json(plain_result(result) if as_json else jsonable(result.value))
    if not quiet:
        say(result_line(result), "dim")


def _waiting(unit: Unit[..., Any], *, quiet: bool) -> AbstractContextManager[object]:
    """Show on a terminal that something is going on."""
    if not is_live(quiet=quiet):
        return nullcontext()
    return error_console().status(f"{unit.name} is running", spinner="dots")
