"""`llmflow resume`: finishing a run that ended before it was done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pydantic_core import from_json

from llmflow.cli._failures import UsageError
from llmflow.cli._inputs import InputReader
from llmflow.cli._journal_file import find_run
from llmflow.cli._map import run_map
from llmflow.cli._report import plain_result, result_line
from llmflow.cli._run import recorded_line, waiting
from llmflow.cli._session import check, run_async, session
from llmflow.cli._taking_up import again, telling_how
from llmflow.cli._target import load_target
from llmflow.cli._terminal import jsonable, say, write_json
from llmflow.cli._told import say_model, told
from llmflow.replay import reading_of
from llmflow.step import Recall, Unit
from llmflow.stores._claims import Claim

if TYPE_CHECKING:
    from llmflow.journal import RecordedRun
    from llmflow.messages import Result
    from llmflow.runtime import Runtime
    from llmflow.step import OnChange

__all__ = ["resume_run"]


def resume_run(run: str, *, on_change: OnChange | None, target: str | None, as_json: bool, quiet: bool) -> int:
    """Finish a run and write its value; what it has recorded is neither run nor paid again."""
    if target is not None:
        load_target(target)  # its module may make the runtime whose journal has the run
    with session() as runtime:
        found = find_run(runtime, run)
    place = target or _place_of(found)
    unit = load_target(place)
    model: str | None = told(found).get("model")
    with session(model) as runtime:  # perhaps of the one that the module made just now
        find_run(runtime, found.run_id)
        runtime.recorder.on_change = on_change or runtime.recorder.on_change
        runtime.recorder.on_busy = _say_busy
        if found.status != "ok" or found.kind == "map":
            say_model(found, model, quiet=quiet)
        if found.kind == "map":
            return _resume_map(found, place, quiet=quiet)
        with telling_how(runtime, found.run_id, place, quiet=quiet):
            _resume_call(unit, found, place, runtime, as_json=as_json, quiet=quiet)
    return 0


def _place_of(found: RecordedRun) -> str:
    """Return where the target of a run is.

    Raises:
        UsageError: For a run that is not taken up again, or that does not say it.
    """
    if "replay" in told(found):
        raise UsageError(
            f"run {found.run_id!r} is a replay, which is not taken up again", "Run `llmflow replay` again."
        )
    if found.ref is None:
        raise UsageError(
            f"run {found.run_id!r} does not say where {found.target!r} is, as it stands inside of a function",
            f"Call it again in your program with run_id={found.run_id!r}, or name it with --target.",
        )
    return found.ref


def _resume_call(
    unit: Unit[..., Any], found: RecordedRun, place: str, runtime: Runtime, *, as_json: bool, quiet: bool
) -> None:
    why_not = _why_not(found, place)
    if why_not is not None and found.status != "ok":
        raise why_not
    if why_not is not None:
        result = _recalled(unit, found, runtime)
    else:
        arguments = InputReader(unit).arguments(from_json(found.inputs or b"{}"))
        check(unit, runtime)
        runtime.recorder.ref = found.ref
        named = unit.with_(run_id=found.run_id)
        with waiting(unit, quiet=quiet):
            result = run_async(lambda: named.run(**arguments), runtime)
    write_json(plain_result(result) if as_json else jsonable(result.value))
    if not quiet:
        say(recorded_line(result) if result.recorded else result_line(result), "dim")


def _recalled(unit: Unit[..., Any], found: RecordedRun, runtime: Runtime) -> Result[Any]:
    """Return the value of a run that has ended well, which takes none of its inputs.

    Raises:
        UsageError: When the target is another one.
        RunConflict: When its value is not stored as it was.
    """
    if (unit.kind, unit.name) != (found.kind, found.target):
        raise UsageError(
            f"run {found.run_id!r} is of {found.kind} {found.target!r}, not of {unit.kind} {unit.name!r}",
            "Name it with --target.",
        )
    claimed = Claim("finished", found.run_id, found, reading_of(runtime))
    kind: Any = unit.kind
    return Recall(runtime.recorder, claimed, found.run_id).run(unit, kind)


def _why_not(found: RecordedRun, place: str) -> UsageError | None:
    """Return why the arguments of a run cannot be taken from the record, None when they can."""
    in_program = f"Call {found.target!r} again in your program, with the same inputs and run_id={found.run_id!r}."
    if found.inputs is None:
        return UsageError(
            f"the inputs of run {found.run_id!r} are not stored, only their hash", again(found, place), in_program
        )
    if found.content != "whole":
        return UsageError(
            f"texts in the inputs of run {found.run_id!r} were redacted before they were stored",
            again(found, place),
            in_program,
        )
    inputs: dict[str, Any] = from_json(found.inputs)
    for name, value in inputs.items():
        if isinstance(value, dict) and cast("dict[str, Any]", value).keys() == {"?"}:
            return UsageError(
                f"the argument {name!r} of run {found.run_id!r} could not be stored, it is a {value['?']}", in_program
            )
    return None


def _resume_map(found: RecordedRun, place: str, *, quiet: bool) -> int:
    said = told(found)
    if "map" not in said:
        raise UsageError(
            f"run {found.run_id!r} is a map whose items came from a program",
            f"Run that program again with run_id={found.run_id!r}: the items it has done are taken from the record.",
        )
    if said["map"] == "-":
        raise UsageError(
            f"run {found.run_id!r} read its lines from stdin, which is gone",
            f"Pipe the same lines again: llmflow run {place} --map - --run-id {found.run_id}",
        )
    return run_map(
        place,
        path=said["map"],
        out=said["out"],
        concurrency=said["concurrency"],
        model=said["model"],
        quiet=quiet,
        resume=said["out"] is not None,
        overwrite=False,
        run_id=found.run_id,
    )


def _say_busy(run_id: str) -> None:
    say(f"run {run_id} is being run by another process; waiting for it", "dim")
