"""Playing a whole run of a flow again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from llmflow.context import runtimes
from llmflow.errors import DefinitionError
from llmflow.replay._answers import reading_of
from llmflow.replay._compare import compare
from llmflow.replay._inputs import Misfit, Restored, restore
from llmflow.replay._judge import check_judge
from llmflow.replay._judge import judge as asked_judge
from llmflow.replay._pair import Pair, as_json
from llmflow.replay._recorded import Divergence, Replaying, Script
from llmflow.replay._report import Report
from llmflow.replay._setting import replaying
from llmflow.stores._journal_past import PastRun

if TYPE_CHECKING:
    from collections.abc import Generator

    from llmflow.journal import RecordedRun
    from llmflow.messages import Result
    from llmflow.models import Model
    from llmflow.prompts import Wording
    from llmflow.replay._judge import Judge
    from llmflow.runtime import Runtime
    from llmflow.step import Unit
    from llmflow.stores._claims import Reading

__all__ = ["RunReplay", "replay_run", "restored_inputs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReplay:
    """A run of a flow, played again.

    Attributes:
        run_id: The recorded run.
        new_run_id: The run that played it again, None when it failed.
        recorded: What the flow returned then, as JSON has it.
        new: What it returns now.
        equal: Whether the two are; None when what it returned then was not stored as it was, or the run had failed.
        error: What it fails with now.
        failed_before: Whether the recorded run had failed as well.
        nodes: How many nodes gave what is recorded of them.
        divergences: The nodes that are not as they were.
        report: The answers that were asked anew beside those that are recorded.
        requests: How many requests were sent.
        cost_usd: What they cost, None when that is not known.
    """

    run_id: str
    new_run_id: str | None
    recorded: Any
    new: Any
    equal: bool | None
    error: Exception | None
    failed_before: bool
    nodes: int
    divergences: Sequence[Divergence]
    report: Report
    requests: int
    cost_usd: Decimal | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it, without the pairs."""
        error = self.error
        return {
            "run_id": self.run_id,
            "new_run_id": self.new_run_id,
            "equal": self.equal,
            "recorded": self.recorded,
            "new": self.new,
            "error": None if error is None else {"type": type(error).__name__, "message": str(error)},
            "failed_before": self.failed_before,
            "nodes_as_recorded": self.nodes,
            "divergences": [
                {"key": one.key, "name": one.name, "kind": one.kind, "what": one.what} for one in self.divergences
            ],
            "requests": self.requests,
            "cost_usd": None if self.cost_usd is None else f"{self.cost_usd:f}",
            "report": self.report.to_dict(),
        }


async def replay_run(
    flow: Unit[..., Any],
    run: RecordedRun,
    *,
    model: Model | str | None = None,
    step: str | None = None,
    prompt: Wording | str | None = None,
    judge: Judge | None = None,
    run_tasks: bool = False,
    cache: bool = False,
    runtime: Runtime | None = None,
    reading: Reading | None = None,
) -> RunReplay:
    """Play a run of a flow again with its recorded inputs; what is as it was is neither asked nor run.

    A step is asked anew where its prompt, its model or its inputs are not as they were, and its answer goes on to what
    comes after it. The recorded run stays as it is: this is a run of its own.

    Args:
        flow: What is run.
        run: The recorded run, as the journal has it.
        model: Ask this model in every step, without fallbacks.
        step: Which step `prompt` is for.
        prompt: Ask with this wording, or with the one that has this label.
        judge: Asked about answers that differ; see `replay_step`.
        run_tasks: Run tasks too, instead of taking their recorded values.
        cache: Whether new answers may come from the cache.
        runtime: Whose journal and models; the current one unless given.
        reading: Reads the journal that the run is in, where that is another one; see `reading_of`.

    Raises:
        DefinitionError: For a run that cannot be played again, and for whatever is wrong with the flow or the judge.
        JournalUnavailable: When the journal cannot be read.
    """
    around: Runtime = runtime or runtimes.current()
    if judge is not None:
        check_judge(judge)
    arguments = restored_inputs(flow, run)
    script = Script(PastRun(reading or reading_of(around), run.run_id), run_tasks=run_tasks)
    with _setting(around, run, script, model=model, step=step, prompt=prompt, cache=cache) as seen:
        result, error = await _play(_unnamed(flow), arguments)
        if error is None:
            script.find_gone()
        pairs = [await _judged(pair, asked, judge) for pair, asked in script.pairs]
    new = None if result is None else as_json(flow, result.value)
    recorded = None if run.output is None else from_json(run.output)
    return RunReplay(
        run_id=run.run_id,
        new_run_id=seen[0] if seen else None,
        recorded=recorded,
        new=new,
        equal=_equal(run, recorded, new, error),
        error=error,
        failed_before=run.status == "failed",
        nodes=script.recorded,
        divergences=tuple(script.divergences),
        report=Report(pairs=pairs),
        requests=script.requests,
        cost_usd=script.cost_usd,
    )


def restored_inputs(flow: Unit[..., Any], run: RecordedRun) -> Restored:
    """Return the arguments that a run was given.

    Raises:
        DefinitionError: When they are not stored, or do not fit the flow, or the run has not ended.
    """
    if run.status not in ("ok", "failed"):
        error = DefinitionError(f"run {run.run_id!r} is {run.status}; a run is replayed once it has ended")
        error.add_note(f"`llmflow resume {run.run_id}` finishes it.")
        raise error
    if run.inputs is None:
        msg = f"the inputs of run {run.run_id!r} are not stored, only their hash, so it cannot be replayed"
        raise DefinitionError(msg)
    try:
        arguments = restore(flow, run.inputs, run.input_hash)
    except Misfit as exc:
        msg = f"the inputs of run {run.run_id!r} do not fit {flow.kind} {flow.name!r}: {exc}"
        raise DefinitionError(msg) from exc
    if run.content == "redacted" and not arguments.is_exact:
        msg = f"the inputs of run {run.run_id!r} were redacted before they were stored, so it cannot be replayed"
        raise DefinitionError(msg)
    return arguments


def _unnamed(flow: Unit[..., Any]) -> Unit[..., Any]:
    """Return a flow without a run id of its own: a replay is another run."""
    if flow.run_id is None:
        return flow
    made = flow.with_()
    made.run_id = None
    return made


@contextmanager
def _setting(runtime: Runtime, run: RecordedRun, script: Script, **changes: Any) -> Generator[list[str]]:
    """Make runs of this runtime play the script; gives a list that the id of the run is put into."""
    seen: list[str] = []

    def record(recorder: Any, unit: Any, of: Any, kind: Any, make: Callable[..., Replaying]) -> Any:
        if seen:  # the judge's runs
            return runtime.recorder.new_record(recorder, unit, of, kind)
        seen.append(of.id)
        return make(recorder, unit, of, kind)

    make = partial(Replaying, script=script)
    with replaying(runtime, of=run.run_id, records=partial(record, make=make), **changes):
        yield seen


async def _play(flow: Unit[..., Any], arguments: Restored) -> tuple[Result[Any] | None, Exception | None]:
    try:
        return await flow.run(**arguments), None
    except DefinitionError:
        raise
    except Exception as exc:  # noqa: BLE001  # it is what the replay shows
        return None, exc


async def _judged(pair: Pair, asked: Any, judge: Judge | None) -> Pair:
    if judge is None or asked is None or pair.equal:
        return pair
    codec = asked.unit.codec
    try:
        recorded = pair.recorded if codec is None else codec.load(asked.past.output)
    except ValueError:
        recorded = pair.recorded
    return replace(pair, judgement=await asked_judge(judge, asked.inputs, recorded, asked.value))


def _equal(run: RecordedRun, recorded: Any, new: Any, error: Exception | None) -> bool | None:
    if run.output is None or (run.content == "redacted"):
        return None
    return error is None and all(state == "equal" for state in compare(recorded, new).values())
