"""A law: what a plan says a run takes at worst, no run exceeds: requests, dollars and seconds.

Random flows under random policies ask random models that fail, hang, babble and are slow, on virtual time. Several runs
go at once, so that they stand in each other's way in bulkheads, limits, budgets, breakers and caches.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any, ClassVar, Literal

import anyio
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from llmflow import (
    Band,
    Budget,
    BudgetTooSmallWarning,
    Bulkhead,
    Cache,
    CircuitBreaker,
    Deadline,
    DefinitionError,
    Fallback,
    Hedge,
    LLMFlowError,
    Model,
    Price,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExceeded,
    RateLimit,
    RateLimited,
    Repair,
    Reply,
    Retry,
    Runtime,
    StepError,
    Timeout,
    UnpricedModelWarning,
    Usage,
    flow,
    gather,
    hookimpl,
    or_else,
    plan,
    prompt,
    step,
    switch,
    task,
    when,
)
from llmflow.backend import monotonic
from llmflow.testing._time import virtual_backend
from llmflow.tokens import estimate_tokens

PROMPT_TOKENS = 120
"""More than any first prompt below has."""
MAX_TOKENS = 40
LATENCIES = (0.0, 0.0, 0.3, 2.0, 7.0, 40.0, 500.0)
PRICES = (Price(input=1.0, output=3.0), Price(input=0.2, output=50.0, cache_write=2.5), Price(input=0, output=0), None)


# -- models ------------------------------------------------------------------------------------------------------------


@dataclass
class World:
    """Models, and what each run asked of them.

    Attributes:
        greedy: They use up every try and re-ask that the policies of a step allow, at full length and almost until the
            timeout; else they do whatever comes to their mind.
        slow: Whether they take their time about it.
        end: What a greedy model does in the end: answer, refuse for good, or leave the answer to the last fallback.
    """

    chance: Random
    greedy: bool
    slow: bool
    end: str
    policies: dict[str, dict[type, Any]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    spent: defaultdict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))

    def model(self, name: str, price: Price | None) -> Model:
        return Model(f"fake/{name}", handler=self.answer, price=price, account=name)

    async def answer(self, request: Any) -> Reply:
        self.requests[request.call.run_id] += 1
        if self.greedy:
            return await self._trouble(request, self.policies[request.call.step])
        if latency := self.chance.choice(LATENCIES):
            await anyio.sleep(latency)
        return self._whatever(request)

    async def _trouble(self, request: Any, kinds: dict[type, Any]) -> Reply:
        if self.slow:
            await anyio.sleep(0.999 * kinds[Timeout].seconds if Timeout in kinds else 100)
        usage = Usage(input_tokens=estimate_tokens(request), output_tokens=MAX_TOKENS)
        if Retry in kinds and request.attempt < kinds[Retry].attempts:
            longest = kinds[Retry].retry_after_max
            raise RateLimited("slow down", status=429, retry_after=longest if self.slow else None)
        if Repair in kinds and len(request.turns) // 2 < kinds[Repair].reasks:
            return Reply(text="I would rather not say.", usage=usage)
        if self.end == "refuse" or (self.end == "last" and request.model.name != "fake/m2"):
            raise QuotaExceeded("no money", status=429)
        return Reply(text='"yes"', usage=usage)

    def _whatever(self, request: Any) -> Reply:
        what = self.chance.randrange(12)
        if what < 5:
            raise self._failure(what)
        if what == 5:
            return Reply(text=None, usage=self._usage(request), finish_reason="length")
        text = "I would rather not say." if what < 9 else '"yes"'
        return Reply(text=text, usage=self._usage(request))

    def _failure(self, what: int) -> Exception:
        asked = self.chance.choice((None, 0.0, 1.5, 30.0, 900.0))
        failures: tuple[Exception, ...] = (
            ProviderUnavailable("down", status=503),
            RateLimited("slow down", status=429, retry_after=asked),
            ProviderTimeout("too late"),
            QuotaExceeded("no money", status=429),
            ConnectionError("gone"),
        )
        return failures[what]

    def _usage(self, request: Any) -> Usage | None:
        if self.chance.random() < 0.1:
            return None
        prompt_tokens = estimate_tokens(request)
        return Usage(
            input_tokens=self.chance.randint(prompt_tokens // 2, prompt_tokens),
            output_tokens=self.chance.choice((1, MAX_TOKENS)),
            cache_write_tokens=self.chance.choice((0, prompt_tokens // 2)),
        )

    @hookimpl
    def llmflow_policies(self) -> tuple[Any, ...]:
        return (Spy(self),) if self.greedy else ()

    @hookimpl
    def llmflow_attempt_finished(self, event: Any) -> None:
        self.spent[event.run_id] += event.cost_usd or 0


@dataclass(frozen=True)
class Spy:
    """Tells the models which policies a step has; somebody else's policy, which says that it sends nothing twice."""

    world: World
    band: ClassVar[Band] = Band.OBSERVE
    sends: ClassVar[int] = 1

    def wrap(self, proceed: Any, site: Any) -> Any:
        self.world.policies[site.step] = {type(one): one for one in site.policies}
        return proceed


# -- policies ----------------------------------------------------------------------------------------------------------

durations = st.sampled_from((0.5, 3, 10, 60))
OFTEN = (
    st.builds(
        Retry,
        st.integers(1, 4),
        wait_initial=durations,
        wait_max=durations,
        retry_after_max=st.sampled_from((0, 2, 60)),
        on=st.sampled_from((None, ConnectionError)),
    ),
    st.builds(Repair, st.integers(0, 3)),
    st.builds(Timeout, durations),
    st.builds(Deadline, st.sampled_from((1, 8, 50, 400))),
    st.builds(Bulkhead, st.integers(1, 3), queue=st.sampled_from((None, 0, 1))),
    st.builds(CircuitBreaker, min_calls=st.integers(1, 3), open_for=durations),
    st.builds(
        Budget,
        calls=st.sampled_from((None, 1, 4)),
        usd=st.sampled_from((None, "0.0003", "0.001", "0.01")),
        tokens=st.just(1_000),
        per=st.sampled_from(("call", "run", "day", "total")),
        key=st.sampled_from((None, None, "tenant")),
        on_unpriced=st.sampled_from(("refuse", "allow", "allow")),
    ),
    st.builds(Hedge, st.sampled_from(("p50", 0.1, 1, 5)), st.integers(1, 3)),
    st.builds(RateLimit, st.integers(1, 5), per=durations),
    st.builds(Cache, st.sampled_from((1, 100)), stale=st.sampled_from((0, 100))),
)
OFF = st.sampled_from((Retry.off, Repair.off, Timeout.off, Bulkhead.off, Deadline.off))


@st.composite
def policies(draw: st.DrawFn, most: int) -> tuple[Any, ...]:
    """Draw policies of different kinds."""
    drawn = draw(st.lists(st.one_of(*OFTEN, OFF, OFF), max_size=most))
    kinds = {getattr(one, "policy", type(one)): one for one in drawn}
    return tuple(kinds.values())


# -- flows -------------------------------------------------------------------------------------------------------------

Word = Literal["yes", "no"]


@task(Timeout(20))
async def choose(word: str) -> bool:
    await anyio.sleep(0.5)
    return len(word) % 2 == 0


@task(Timeout(20), Retry(3, on=ValueError))
async def stumble(word: str) -> str:
    await anyio.sleep(0.5)
    if len(word) % 2:
        raise ValueError(word)
    return word


@dataclass(frozen=True)
class Steps:
    """Four steps that ask for a word each."""

    one: Any
    two: Any
    three: Any
    four: Any


def chain(s: Steps, *around: Any) -> Any:
    one, two, three = s.one, s.two, s.three

    @flow(*around)
    async def chained(word: str) -> str:
        first = await one(word)
        second = await two(first)
        return await three(second)

    return chained


def side_by_side(s: Steps, *around: Any) -> Any:
    one, two, three, four = s.one, s.two, s.three, s.four

    @flow(*around)
    async def parallel(word: str) -> list[str]:
        first, second = await gather(one(word), two(word))
        third = await three(word)
        return [await four(second), first, third]

    return parallel


def decided(s: Steps, *around: Any) -> Any:
    one, two, three, four = s.one, s.two, s.three, s.four

    @flow(*around)
    async def deciding(word: str) -> tuple[str, str]:
        first = await one(word)
        second = await when(await choose(word), two(word), three(first))
        return second, await switch(first, {"yes": four(word)}, default=stumble(second))

    return deciding


def mapped(s: Steps, *around: Any) -> Any:
    one, two = s.one, s.two

    @flow(*around)
    async def mapping(words: list[str], word: str) -> tuple[list[Any], str]:
        several = await one.map(words, concurrency=2)
        more = await two.map(["a", "b", word], concurrency=3, on_error="collect")
        return [several, more], await two(several[0])

    return mapping


def rescued(s: Steps, *around: Any) -> Any:
    one, two, three = s.one, s.two, s.three

    @flow(Deadline(30))
    async def inside(word: str) -> str:
        return await three(await two(word))

    @flow(*around)
    async def rescuing(word: str) -> tuple[str, str]:
        first = await or_else(one(word), two(word))
        return first, await or_else(inside(first), "no", on=(StepError, ValueError))

    return rescuing


SHAPES = (chain, side_by_side, decided, rescued, mapped)


@st.composite
def programs(draw: st.DrawFn) -> tuple[World, Any, Runtime, dict[str, Any]]:
    """Draw a flow, or a single step, with its models, and the runtime it runs in."""
    world = World(
        Random(draw(st.integers(0, 2**32))),
        greedy=draw(st.sampled_from((True, True, False))),
        slow=draw(st.booleans()),
        end=draw(st.sampled_from(("fine", "last", "refuse"))),
    )
    models = [world.model(f"m{number}", draw(st.sampled_from(PRICES))) for number in range(3)]
    steps = Steps(*(_step(draw, name, models) for name in ("one", "two", "three", "four")))
    shape = draw(st.sampled_from((*SHAPES, None, None)))
    target = steps.one if shape is None else shape(steps, *draw(policies(2)))
    around = draw(st.sampled_from(((Bulkhead.off,), (Bulkhead.off, Deadline(2000)))) | policies(1))
    runtime = Runtime(plugins=[world], policies=around, seed=draw(st.integers(0, 9)))
    inputs: dict[str, Any] = {"word": draw(st.sampled_from(("a", "bb")))}
    return world, target, runtime, {**inputs, "words": ["a", "b", "cc", "a"]} if shape is mapped else inputs


def _step(draw: st.DrawFn, name: str, models: list[Model]) -> Any:
    others = draw(st.lists(st.sampled_from(models[1:]), max_size=2, unique=True))
    chosen = (*draw(policies(3)), *([Fallback(*others)] if others else ()))

    @step(models[0], *chosen, name=name, params={"max_tokens": MAX_TOKENS})
    def question(word: str) -> Word:
        return prompt(f"Is this a word: {word}?")

    return question


# -- the law -----------------------------------------------------------------------------------------------------------


async def run_several(world: World, target: Any, runtime: Runtime, inputs: dict[str, Any], runs: int) -> None:
    """Run it a few times at once and hold each run against what the plan said."""
    async with runtime:
        known = plan(target, inputs=inputs, prompt_tokens=PROMPT_TOKENS).bounds
        assumed = plan(target, prompt_tokens=PROMPT_TOKENS).bounds
        took: dict[str, float] = {}

        async def run(run_id: str) -> None:
            started = monotonic()
            try:
                await target.with_(run_id=run_id)(**inputs)
            except (LLMFlowError, ConnectionError, ValueError):
                pass
            took[run_id] = monotonic() - started

        async with anyio.create_task_group() as group:
            for number in range(runs):
                group.start_soon(run, f"run-{number}")
        for run_id, seconds in took.items():
            for bounds in (known, assumed):
                assert bounds.calls is None or world.requests[run_id] <= bounds.calls
                assert bounds.usd is None or world.spent[run_id] <= bounds.usd
                assert bounds.seconds is None or seconds <= bounds.seconds + 1e-6


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(program=programs(), runs=st.integers(1, 3))
def test_no_run_exceeds_its_plan(backend: str, program: Any, runs: int) -> None:
    """Requests, dollars and seconds of each run stay within what was said before it began."""
    name, options = virtual_backend(backend)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BudgetTooSmallWarning)
        warnings.simplefilter("ignore", UnpricedModelWarning)
        try:
            anyio.run(run_several, *program, runs, backend=name, backend_options=options)
        except DefinitionError as exc:
            assert "nobody knows what" in str(exc)
            reject()
