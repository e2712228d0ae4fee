"""What was once found by attacking calls and maps, each as one test."""

from __future__ import annotations

import dataclasses
import gc
import warnings
from decimal import Decimal
from typing import ClassVar

import anyio
import pytest

from llmflow import (
    Band,
    Budget,
    BudgetExceeded,
    DefinitionError,
    Model,
    Price,
    ProviderUnavailable,
    Retry,
    Runtime,
    Usage,
    flow,
    hookimpl,
    prompt,
    step,
    task,
)
from llmflow.testing import scripted

pytestmark = pytest.mark.anyio


@task
async def increase(number: int) -> int:
    await anyio.lowlevel.checkpoint()
    return number + 1


async def test_maps_can_be_chained_through_an_async_generator():
    """The source may hold a task group or cancel scope: one task reads it."""

    async def streamed():
        async with increase.map(range(20)) as outcomes:
            async for one in outcomes:
                yield one.value

    async def scoped():
        with anyio.fail_after(30):
            for number in range(20):
                yield number

    with Runtime():
        assert (20, 20) == (len(await increase.map(streamed())), len(await increase.map(scoped())))


async def test_a_map_is_single_use_and_says_when_it_is_forgotten():
    """As a call does."""
    with Runtime():
        once = increase.map(iter([1, 2]))
        assert [2, 3] == await once
        with pytest.raises(RuntimeError, match="awaited before"):
            await once

        with pytest.warns(RuntimeWarning, match="'increase.map' was never awaited"):
            increase.map([1])
            gc.collect()


async def test_one_exception_object_raised_by_two_calls_names_each():
    """A function that stands for a model may keep one and raise it again."""
    error = ProviderUnavailable("503")

    @step(scripted(default=error), Retry.off)
    def first(text: str) -> str:
        return prompt(text)

    second = step(scripted(default=error), Retry(2, wait_initial=0), name="second")(first.function)

    with Runtime():
        with pytest.raises(ProviderUnavailable, match="step 'first': 503"):
            await first("a")
        with pytest.raises(ProviderUnavailable, match="^step 'second': 503$") as caught:
            await second("a")

    assert ("second", 2) == (caught.value.step, len(caught.value.attempts))


class Elsewhere:
    """Sends every ask to another model."""

    band: ClassVar[Band] = Band.OBSERVE

    def __init__(self, model: Model) -> None:
        self.model = model

    def wrap(self, proceed, site, /):
        async def elsewhere(message):
            return await proceed(dataclasses.replace(message, model=self.model))

        return elsewhere


class TooLate(Elsewhere):
    """Does it where the provider is chosen already."""

    band: ClassVar[Band] = Band.after(Band.RETRY)


async def test_a_policy_may_choose_the_model():
    """What the result names is what was asked."""
    other = scripted("other", name="other/m")

    @step(scripted(name="scripted/m"), Elsewhere(other))
    def ask(text: str) -> str:
        return prompt(text)

    with Runtime():
        result = await ask.run("x")

    assert ("other", "other/m", ["other/m"]) == (result.value, result.model, [one.model for one in result.attempts])


async def test_a_request_policy_may_not_change_the_model():
    """It would be ignored without a word."""

    @step(scripted("x", name="scripted/m"), TooLate(scripted(name="other/m")))
    def ask(text: str) -> str:
        return prompt(text)

    with Runtime(), pytest.raises(DefinitionError, match=r"other/m.*Band\.FALLBACK"):
        await ask("x")


async def test_a_call_collected_while_a_flow_is_traced_is_not_the_flows():
    """The garbage collector comes when it likes."""
    forgotten = [increase(1)]
    forgotten.append(forgotten)

    @flow
    async def innocent(number: int) -> int:
        if forgotten:
            forgotten.clear()
            gc.collect()
        return await increase(number)

    with Runtime(), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert 2 == await innocent(1)


def test_system_exit_in_a_sync_call_leaves_the_loop_usable():
    """It is the caller's to have."""

    @task
    async def leave() -> None:
        raise SystemExit(3)

    with Runtime():
        with pytest.raises(SystemExit):
            leave.sync()
        assert [2, 2] == [increase.sync(1), increase.sync(1)]


def test_positional_only_parameters_are_refused():
    """A body is called by name."""
    with pytest.raises(DefinitionError, match="'text' is positional-only"):

        @step(scripted())
        def ask(text: str, /) -> str:
            return prompt(text)


async def test_a_call_that_sent_nothing_cost_nothing():
    """V5, B4: a refusal before any request costs $0, which is known; None would say that nobody knows."""
    told = []

    class Listener:
        @hookimpl
        def llmflow_call_finished(self, event):
            told.append(event.cost_usd)

    model = scripted(default="fine", price=Price(input=0, output=10), usage=Usage(input_tokens=1, output_tokens=1000))

    @step(model, Budget("0.015", per="total"), params={"max_tokens": 1000})
    def question(word: str) -> str:
        return prompt(word)

    with Runtime(plugins=[Listener()]):
        await question("a")
        with pytest.raises(BudgetExceeded) as caught:
            await question("b")

    assert ((), Decimal(0)) == (caught.value.attempts, caught.value.cost_usd)
    assert [Decimal("0.01"), Decimal(0)] == told
