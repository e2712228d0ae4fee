"""Playing recorded answers of a step again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from llmflow.context import runtimes
from llmflow.errors import DefinitionError
from llmflow.policy import check_count
from llmflow.replay._change import change
from llmflow.replay._find import whole
from llmflow.replay._inputs import Misfit, Restored, restore
from llmflow.replay._judge import check_judge
from llmflow.replay._judge import judge as asked_judge
from llmflow.replay._pair import Pair, failed_pair, new_pair, same_pair
from llmflow.replay._report import Report
from llmflow.replay._setting import replaying
from llmflow.step import Step
from llmflow.stores._journal_past import past_answers

if TYPE_CHECKING:
    from llmflow.journal import RecordedAnswer
    from llmflow.models import Model
    from llmflow.prompts import Wording
    from llmflow.replay._judge import Judge
    from llmflow.runtime import Runtime
    from llmflow.stores._claims import Reading

__all__ = ["Prepared", "Replayable", "play", "prepare", "reading_of", "replay_step"]

T = TypeVar("T")

Find = Callable[["RecordedAnswer"], "Step[..., Any] | str"]
"""Returns the step that gave an answer, or says why there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayable:
    """A recorded answer and the step that would give it now.

    Attributes:
        why: What is different from when it was recorded; None when it stands.
        arguments: What the step is asked with, where it is asked.
    """

    past: RecordedAnswer
    step: Step[..., Any]
    why: str | None
    arguments: Restored


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a replay has before it.

    Attributes:
        answers: Those that can be played again.
        skipped: How many cannot, by why.
    """

    answers: Sequence[Replayable]
    skipped: Mapping[str, int]

    @property
    def to_ask(self) -> list[Replayable]:
        """Those that have to be asked anew."""
        return [one for one in self.answers if one.why is not None]


def prepare(
    answers: Iterable[RecordedAnswer], find: Find, runtime: Runtime, *, with_all_arguments: bool = False
) -> Prepared:
    """Find out which answers stand, and make the arguments of the others; nothing is asked.

    Args:
        answers: What is recorded.
        find: Returns the step that gave an answer, or says why there is none.
        runtime: Where it will be asked.
        with_all_arguments: Make the arguments of those that stand too.

    Raises:
        DefinitionError: For whatever is wrong with a step, before anything is sent.
    """
    made: list[Replayable] = []
    skipped = Counter[str]()
    for past in answers:
        step = find(past)
        if isinstance(step, str):
            skipped[step] += 1
            continue
        why = change(past, step.bound(runtime, None)) or _misfit(past, step)
        try:
            arguments = (
                Restored()
                if why is None and not with_all_arguments
                else restore(step, past.inputs or b"null", past.input_hash)
            )
        except Misfit as exc:
            skipped[f"their inputs do not fit step {step.name!r}: {exc}"] += 1
            continue
        made.append(Replayable(past=past, step=step, why=why, arguments=arguments))
    return Prepared(answers=made, skipped=skipped)


def _misfit(past: RecordedAnswer, step: Step[..., Any]) -> str | None:
    """Say that a recorded answer is none of what the step gives now, which a version that is given by hand may hide."""
    try:
        if step.codec is not None:
            step.codec.load(past.output or b"null")
    except ValueError:
        return "its answer no longer fits the type"
    return None


async def play(
    prepared: Prepared,
    *,
    concurrency: int = 16,
    judge: Judge | None = None,
    on_pair: Callable[[Pair], None] | None = None,
) -> Report:
    """Ask what has to be asked, in the runtime that is current, and compare.

    Args:
        prepared: What `prepare` returned for the same runtime.
        concurrency: How many are in work at a time.
        judge: Asked about answers that differ.
        on_pair: Told of every pair as it comes.

    Raises:
        DefinitionError: For a judge that does not take what it is given.
    """
    check_count(concurrency, name="replay: concurrency")
    if judge is not None:
        check_judge(judge)
    pairs: list[Pair] = []

    async def one(answer: Replayable) -> None:
        pair = await _pair(answer, judge)
        pairs.append(pair)
        if on_pair is not None:
            on_pair(pair)

    await _each(prepared.answers, one, concurrency)
    return Report(pairs=pairs, skipped=prepared.skipped)


async def _pair(answer: Replayable, judge: Judge | None) -> Pair:
    if answer.why is None:
        return same_pair(answer.past)
    step, clock = answer.step, runtimes.current().clock
    began = clock.monotonic()
    try:
        result = await step.run(**answer.arguments)
    except DefinitionError:
        raise
    except Exception as exc:  # noqa: BLE001  # how often the new answer fails is what is asked
        pair = failed_pair(answer.past, exc, answer.why, clock.monotonic() - began, step.prompt_version)
    else:
        pair = new_pair(answer.past, step, result, answer.why)
        if judge is not None and not pair.equal:
            judgement = await asked_judge(judge, answer.arguments, _value(answer), result.value)
            pair = replace(pair, judgement=judgement)
    return replace(pair, is_exact=answer.arguments.is_exact)


def _value(answer: Replayable) -> object:
    """Return the recorded answer as the step's own type where it still fits, else as JSON has it."""
    past, codec = answer.past, answer.step.codec
    try:
        return same_pair(past).recorded if codec is None else codec.load(past.output or b"null")
    except ValueError:
        return same_pair(past).recorded


async def _each(items: Sequence[T], work: Callable[[T], Awaitable[None]], concurrency: int) -> None:
    """Do some work for every item, so many at a time; the first failure leaves as itself."""
    source = iter(items)

    async def worker() -> None:
        for item in source:
            await work(item)

    try:
        async with anyio.create_task_group() as group:
            for _ in range(min(concurrency, len(items))):
                group.start_soon(worker)
    except BaseExceptionGroup as failures:
        raise _first(failures) from None


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first: BaseException = failures
    while isinstance(first, BaseExceptionGroup):
        several: BaseExceptionGroup[BaseException] = first  # pyright: ignore[reportUnknownVariableType]  # narrowed to no argument
        first = several.exceptions[0]
    return first


# -- for programs ------------------------------------------------------------------------------------------------------


async def replay_step(
    step: Step[..., Any],
    *,
    last: int | None = 100,
    run_id: str | None = None,
    since: float | None = None,
    model: Model | str | None = None,
    prompt: Wording | str | None = None,
    judge: Judge | None = None,
    cache: bool = False,
    concurrency: int = 16,
    runtime: Runtime | None = None,
) -> Report:
    """Play recorded inputs of a step again, and compare the answers with those that are recorded.

    An answer whose prompt and model are as they were stands as it is, without a request. Each of the others is a run of
    its own, with all the policies of the step but its cache, in the journal and in the budgets of the runtime.

    Args:
        step: What is asked.
        last: How many of its latest answers, None for all.
        run_id: Only answers of this run.
        since: Only those of this time on, in seconds since the epoch.
        model: Ask this model instead, without fallbacks.
        prompt: Ask with this wording, or with the one that has this label.
        judge: Asked about answers that differ: a function or step that is given the inputs by name, the recorded answer
            and the new one, and returns a bool, a number from 0 to 1, or `better`, `same` or `worse`.
        cache: Whether new answers may come from the cache.
        concurrency: How many are asked at a time.
        runtime: Whose journal and models; the current one unless given.

    Raises:
        DefinitionError: For a journal that cannot be read so, and for whatever is wrong with the step or the judge.
        JournalUnavailable: When the journal cannot be read.
    """
    around: Runtime = runtime or runtimes.current()
    asked = whole(step)
    found = past_answers(reading_of(around), step=step.name, run_id=run_id, since=since, last=last)
    with replaying(around, of=run_id or step.name, model=model, step=step.name, prompt=prompt, cache=cache) as inside:
        prepared = prepare(found.answers, lambda _: asked, inside)
        report = await play(prepared, concurrency=concurrency, judge=judge)
    return replace(report, skipped=Counter(report.skipped) + Counter(found.unfit))


def reading_of(runtime: Runtime) -> Reading:
    """Return what reads the journal of a runtime.

    Raises:
        DefinitionError: For a journal of a third party that only writes.
    """
    reading = getattr(runtime.journal, "reading", None)
    if reading is None:
        msg = "this journal cannot be read back, so nothing of it can be replayed; sqlite:///path can"
        raise DefinitionError(msg)
    return reading  # type: ignore[no-any-return]
