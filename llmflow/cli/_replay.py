"""`llmflow replay`: recorded runs played again."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmflow.cli._failures import EXIT_REFUSED, EXIT_RUN_FAILED, Failure, UsageError
from llmflow.cli._journal_file import check_journal, find_run
from llmflow.cli._moments import window
from llmflow.cli._printable import escaped
from llmflow.cli._replay_find import StepFinder, find_judge, read_prompt
from llmflow.cli._replay_plan import show_plan_of_answers, show_plan_of_run
from llmflow.cli._replay_words import run_sentence, show_report, show_run_replay
from llmflow.cli._session import run_async, session
from llmflow.cli._similar import guess
from llmflow.cli._target import load_target
from llmflow.cli._terminal import error_console, is_live, write_json, write_line
from llmflow.cli._told import say_model, told
from llmflow.context import runtimes
from llmflow.replay import Report, play, prepare, reading_of, replay_run, replaying, verdict
from llmflow.stores._journal_past import past_answers, past_steps

if TYPE_CHECKING:
    from llmflow.journal import RecordedRun
    from llmflow.prompts import Wording
    from llmflow.replay import Judge, Pair, Prepared
    from llmflow.runtime import Runtime
    from llmflow.step import Unit
    from llmflow.stores._claims import Reading

__all__ = ["Wanted", "run_replay"]

_LAST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The options of the command."""

    run: str | None
    last: int | None
    step: str | None
    model: str | None
    prompt: str | None
    judge: str | None
    target: str | None
    since: str | None
    out: str | None
    overwrite: bool
    concurrency: int
    min_agreement: float | None
    run_tasks: bool
    cache: bool
    dry: bool
    as_json: bool
    quiet: bool


def run_replay(wanted: Wanted) -> int:
    """Play again what is wanted, write it, and return the exit code."""
    if wanted.run is None and wanted.step is None:
        raise UsageError("say which run, or with --step NAME which step", "llmflow replay --last 100 --step triage")
    if wanted.target is not None:
        load_target(wanted.target)  # its module may make a runtime, whose journal it is then
    with session(wanted.model) as runtime:
        check_journal(runtime)
        run = None if wanted.run is None else find_run(runtime, wanted.run)
        if run is not None and wanted.model is None:
            wanted = replace(wanted, model=told(run).get("model"))
            say_model(run, wanted.model, quiet=wanted.quiet)
        prompt = None if wanted.prompt is None else read_prompt(wanted.prompt)
        if run is not None and run.kind == "flow" and wanted.step is None:
            return _replay_flow(wanted, run, runtime)
        return _replay_answers(wanted, run, prompt, runtime)


# -- answers -----------------------------------------------------------------------------------------------------------


def _replay_answers(wanted: Wanted, run: RecordedRun | None, prompt: Wording | str | None, runtime: Runtime) -> int:
    if wanted.run_tasks:
        raise UsageError("--run-tasks is for a whole run of a flow", "Name a run, and no step.")
    if prompt is not None and wanted.step is None:
        raise UsageError("--prompt is the prompt of one step", "Say which with --step NAME.")
    found = past_answers(
        reading_of(runtime),
        step=wanted.step,
        run_id=None if run is None else run.run_id,
        since=window(wanted.since, None, time.time()).since,
        last=wanted.last or (_LAST if run is None else None),
    )
    of = wanted.step or "" if run is None else run.run_id
    finder = StepFinder(wanted.target)
    finder.load(found.answers)
    around: Runtime = runtimes.current()
    with replaying(around, of=of, model=wanted.model, step=wanted.step, prompt=prompt, cache=wanted.cache) as inside:
        with redirect_stdout(sys.stderr):  # what bodies print is no data
            prepared = prepare(found.answers, finder, inside)
        prepared = replace(prepared, skipped=Counter(prepared.skipped) + Counter(found.unfit))
        _check_any(wanted, run, prepared, reading_of(runtime))
        if wanted.dry:
            return show_plan_of_answers(prepared, inside, concurrency=wanted.concurrency, as_json=wanted.as_json)
        judge = _judge(wanted)
        with _lines(wanted) as write, _working(wanted, f"{len(prepared.to_ask)} answers are asked"):
            report = run_async(
                lambda: play(prepared, concurrency=wanted.concurrency, judge=judge, on_pair=write), inside
            )
    if wanted.as_json:
        write_json({"verdict": verdict(report), **report.to_dict(), **_pairs(wanted, report)})
    elif not wanted.quiet:
        show_report(report)
    return _exit_code(wanted, report)


def _check_any(wanted: Wanted, run: RecordedRun | None, prepared: Prepared, reading: Reading) -> None:
    if prepared.answers:
        return
    what = "answer" if wanted.step is None else f"answer of step {wanted.step!r}"
    where = "" if run is None else f" in run {run.run_id!r}"
    if not prepared.skipped:
        meant = () if wanted.step is None else guess(wanted.step, past_steps(reading))
        raise UsageError(f"there is no recorded {what}{where}", *meant, "`llmflow runs` lists what was run.")
    raise UsageError(
        f"no recorded {what}{where} can be replayed", *(f"{number}: {why}" for why, number in prepared.skipped.items())
    )


def _exit_code(wanted: Wanted, report: Report) -> int:
    """3 below the agreement that was asked for, or when a budget refused all that failed; 1 when answers failed."""
    agreement = report.agreement
    if wanted.min_agreement is not None and (agreement is None or agreement < wanted.min_agreement):
        return EXIT_REFUSED
    if report.failed:
        return EXIT_REFUSED if set(report.failed) == {"BudgetExceeded"} else EXIT_RUN_FAILED
    return 0


# -- a whole run -------------------------------------------------------------------------------------------------------


def _replay_flow(wanted: Wanted, run: RecordedRun, runtime: Runtime) -> int:
    for option, given in (("--prompt", wanted.prompt), ("--last", wanted.last), ("--since", wanted.since)):
        if given is not None:
            raise UsageError(
                f"{option} is for the answers of one step, and this is a run of a flow", "Say --step NAME."
            )
    unit = _flow_of(run, wanted.target)
    around: Runtime = runtimes.current()  # the module may have made one
    if wanted.dry:
        found, finder = past_answers(reading_of(runtime), run_id=run.run_id), StepFinder(wanted.target)
        return show_plan_of_run(
            unit, run, found, around, finder, model=wanted.model, cache=wanted.cache, as_json=wanted.as_json
        )
    judge = _judge(wanted)
    with _lines(wanted) as write:
        again = partial(
            replay_run,
            unit,
            run,
            model=wanted.model,
            judge=judge,
            run_tasks=wanted.run_tasks,
            cache=wanted.cache,
            runtime=around,
            reading=reading_of(runtime),
        )
        with _working(wanted, f"{unit.name} is played again"):
            played = run_async(again, around)
        for pair in played.report.pairs:
            write(pair)
    if wanted.as_json:
        write_json({"verdict": run_sentence(played), **played.to_dict(), **_pairs(wanted, played.report)})
    elif not wanted.quiet:
        show_run_replay(played)
    if played.error is not None and not played.failed_before:
        return Failure.of(played.error).exit_code
    return _exit_code(wanted, played.report) if played.report.pairs else 0


def _flow_of(run: RecordedRun, target: str | None) -> Unit[..., Any]:
    place = target or run.ref
    if place is None:
        raise UsageError(
            f"run {run.run_id!r} does not say where {run.target!r} is, as it stands inside of a function",
            "Name it with --target.",
        )
    unit = load_target(place)
    if unit.kind != "flow":
        raise UsageError(f"{place} is a {unit.kind}, but run {run.run_id!r} is one of a flow", "Name it with --target.")
    return unit


# -- what is written ---------------------------------------------------------------------------------------------------


@contextmanager
def _lines(wanted: Wanted) -> Generator[Callable[[Pair], None]]:
    """Give what writes a pair: as a line of the file or of stdout, and not at all where it is a part of one document."""
    stdout = sys.stdout  # before it is redirected for what the program prints
    if wanted.out is None:
        yield (lambda _: None) if wanted.as_json else (lambda pair: write_line(_line(pair), stdout))
        return
    path = Path(wanted.out)
    if path.is_file() and path.stat().st_size and not wanted.overwrite:
        raise UsageError(f"--out {path}: the file holds something already", "--overwrite begins it anew.")
    try:
        file = path.open("w", encoding="utf-8", errors="replace")
    except OSError as exc:
        raise UsageError(f"--out {path}: cannot write the file: {exc.strerror or exc}") from exc
    with file:
        yield lambda pair: write_line(_line(pair), file)


def _line(pair: Pair) -> str:
    return escaped(json.dumps(pair.to_dict(), ensure_ascii=False))


def _pairs(wanted: Wanted, report: Report) -> dict[str, Any]:
    """Return the pairs for the document, unless they are in a file."""
    pairs: Iterable[Pair] = report.pairs
    return {} if wanted.out is not None else {"pairs": [one.to_dict() for one in pairs]}


def _working(wanted: Wanted, what: str) -> AbstractContextManager[object]:
    """Show on a terminal that something is going on."""
    if not is_live(quiet=wanted.quiet):
        return nullcontext()
    return error_console().status(what, spinner="dots")


def _judge(wanted: Wanted) -> Judge | None:
    return None if wanted.judge is None else find_judge(wanted.judge)
