"""`llmflow replay --dry-run`: what a replay would take at worst; nothing is sent."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from llmflow.cli._failures import EXIT_REFUSED
from llmflow.cli._report import count
from llmflow.cli._terminal import write_json, write_line
from llmflow.prices import money
from llmflow.replay import prepare, replaying, restored_inputs
from llmflow.runtime import plan_map

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmflow.cli._replay_find import StepFinder
    from llmflow.journal import RecordedRun
    from llmflow.replay import Prepared, Replayable
    from llmflow.runtime import Plan, Runtime
    from llmflow.step import Step, Unit
    from llmflow.stores._journal_past import PastAnswers

__all__ = ["show_plan_of_answers", "show_plan_of_run"]

_CONCURRENCY = 16


def show_plan_of_answers(prepared: Prepared, runtime: Runtime, *, concurrency: int, as_json: bool) -> int:
    """Write how many answers would be asked anew, and what that takes; returns the exit code."""
    plans = _plans(prepared.to_ask, runtime, concurrency)
    asked = len(prepared.to_ask)
    what = f"{asked:,} of {count(len(prepared.answers), 'answer')} would be asked anew"
    return _show(what, plans, as_json=as_json, answers=len(prepared.answers), asked=asked, skipped=prepared.skipped)


def show_plan_of_run(
    flow: Unit[..., Any],
    run: RecordedRun,
    found: PastAnswers,
    runtime: Runtime,
    find: StepFinder,
    *,
    model: str | None,
    cache: bool,
    as_json: bool,
) -> int:
    """Write whether anything of a run would be asked anew, and what it takes when all else follows from that."""
    restored_inputs(flow, run)
    with replaying(runtime, of=run.run_id, model=model, cache=cache) as inside:
        with redirect_stdout(sys.stderr):
            prepared = prepare(found.answers, find, inside, with_all_arguments=True)
        unfit = sum(prepared.skipped.values()) + sum(found.unfit.values())
        changed = len(prepared.to_ask) + unfit
        plans = _plans(prepared.answers if changed else (), inside, _CONCURRENCY)
    what = f"{changed:,} of {count(len(found.answers), 'answer')} would be asked anew"
    if changed:
        what += ", and those that follow from them"
    return _show(what, plans, as_json=as_json, answers=len(found.answers), asked=changed)


def _plans(answers: Iterable[Replayable], runtime: Runtime, concurrency: int) -> list[Plan]:
    by_step: dict[Step[..., Any], list[Replayable]] = {}
    for one in answers:
        by_step.setdefault(one.step, []).append(one)
    with redirect_stdout(sys.stderr):  # what bodies print is no data
        return [
            plan_map(step, [one.arguments for one in ones], concurrency=concurrency, runtime=runtime)
            for step, ones in by_step.items()
        ]


def _show(what: str, plans: Sequence[Plan], *, as_json: bool, **said: object) -> int:
    calls, usd = _sum(plans)
    if as_json:
        write_json({**said, "requests": calls, "usd": None if usd is None else f"{usd:f}"})
    else:
        requests = "an unknown number of requests" if calls is None else count(calls, "request")
        write_line(f"{what}: at worst {requests}, {'unknown dollars' if usd is None else money(usd)}")
    return EXIT_REFUSED if any(one.refused for one in plans) else 0


def _sum(plans: Sequence[Plan]) -> tuple[int | None, Decimal | None]:
    calls, usd = [one.bounds.calls for one in plans], [one.bounds.usd for one in plans]
    known_calls, known_usd = [one for one in calls if one is not None], [one for one in usd if one is not None]
    return (
        sum(known_calls) if len(known_calls) == len(calls) else None,
        sum(known_usd, Decimal(0)) if len(known_usd) == len(usd) else None,
    )
