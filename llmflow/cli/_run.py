"""`llmflow run` of one call."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from llmflow.cli._inputs import InputReader, read_source
from llmflow.cli._report import plain_result, result_line
from llmflow.cli._session import check, run_async, session
from llmflow.cli._taking_up import telling_how
from llmflow.cli._target import load_target
from llmflow.cli._terminal import error_console, is_live, jsonable, say, write_json
from llmflow.cli._told import as_command
from llmflow.messages import Result
from llmflow.step import OnChange, Unit

__all__ = ["recorded_line", "run_once", "waiting"]


def run_once(
    target: str,
    *,
    source: str | None,
    model: str | None,
    as_json: bool,
    quiet: bool,
    run_id: str | None = None,
    on_change: OnChange | None = None,
) -> None:
    """Call a target once and write its value."""
    unit = load_target(target)
    if run_id is not None:
        unit = unit.with_(run_id=run_id)
    reader = InputReader(unit)
    arguments = reader.nothing() if source is None else reader.read(read_source(source))
    with session(model) as runtime:
        check(unit, runtime)
        runtime.recorder.ref = target
        runtime.recorder.command = as_command(model=model)
        runtime.recorder.on_change = on_change or runtime.recorder.on_change
        with telling_how(runtime, run_id, target, quiet=quiet), waiting(unit, quiet=quiet):
            result: Result[Any] = run_async(lambda: unit.run(**arguments), runtime)
    write_json(plain_result(result) if as_json else jsonable(result.value))
    if not quiet:
        say(recorded_line(result) if result.recorded else result_line(result), "dim")


def recorded_line(result: Result[Any]) -> str:
    """Return the line that follows a run which had ended before."""
    return f"{result.step}: run {result.run_id} had ended well; this is the value it gave, and nothing was paid"


def waiting(unit: Unit[..., Any], *, quiet: bool) -> AbstractContextManager[object]:
    """Show on a terminal that something is going on."""
    if not is_live(quiet=quiet):
        return nullcontext()
    return error_console().status(f"{unit.name} is running", spinner="dots")
