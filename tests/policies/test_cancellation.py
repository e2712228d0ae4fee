"""R8: cancellation passes through unchanged, is never retried, and returns everything, wherever it strikes."""

from __future__ import annotations

import asyncio
import gc
import weakref
from functools import partial

import anyio
import pytest

from llmflow import (
    Bulkhead,
    Deadline,
    Fallback,
    ProviderUnavailable,
    RateLimited,
    Repair,
    Retry,
    Runtime,
    Timeout,
    prompt,
    step,
)
from llmflow.policies._bulkhead import Places
from llmflow.testing._scripted import after, hang, scripted
from llmflow.testing._time import VirtualLoop

pytestmark = pytest.mark.anyio


def unavailable(_):
    raise ProviderUnavailable("503")


def places_of(runtime):
    return [one.statistics for one in runtime._shared.values() if isinstance(one, Places)]


async def cancelled_after(seconds, call):
    """Run a call in a task that is cancelled after so long; return what ended it."""
    ended = []

    async def run():
        try:
            await call
        except BaseException as exc:
            ended.append(exc)
            raise

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await anyio.sleep(seconds)
        group.cancel_scope.cancel()
    return ended


async def test_r8_a_request_in_flight_is_cancelled_and_not_retried(asking, runtime, now):
    """Fault 59: the backend's own exception, one request, its record, and the place back."""
    model = scripted(default=hang())
    started = now()

    (ended,) = await cancelled_after(5, asking(model, Retry(5), Fallback(scripted("not asked")))("x"))

    assert anyio.get_cancelled_exc_class() is type(ended)
    assert (1, 0, started + 5) == (len(model.requests), model.in_flight, pytest.approx(now()))
    assert [{"in_use": 0, "waiting": 0}] * 2 == places_of(runtime)


async def test_r8_backoff_is_cancelled_at_once(asking, now):
    """Fault 60: no further request, no rest of the sleep."""
    model = scripted(default=lambda _: _raise(RateLimited("429", retry_after=50)))
    started = now()

    (ended,) = await cancelled_after(10, asking(model)("x"))

    assert anyio.get_cancelled_exc_class() is type(ended)
    assert (1, started + 10) == (len(model.requests), pytest.approx(now()))


def _raise(error):
    raise error


async def test_r8_the_wait_for_a_place_is_cancelled_at_once(asking, runtime):
    """The line is left, and the one that holds the place is not hurt."""
    model = scripted(after(20, "fine"))
    ask = asking(model, Bulkhead(1))
    answers = []

    async def first():
        answers.append(await ask("x"))

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await anyio.sleep(1)
        await cancelled_after(5, ask("x"))
        assert {"in_use": 1, "waiting": 0} in places_of(runtime)

    assert (["fine"], 1) == (answers, len(model.requests))


async def test_r8_what_was_cancelled_is_counted_as_such(asking, runtime):
    """Statistics know it: one operation and one attempt, both `cancelled`."""
    await cancelled_after(5, asking(scripted(hang()))("x"))

    stats = runtime.stats()
    assert {"cancelled": 1} == stats.steps["question"].errors
    assert {"cancelled": 1} == stats.models["scripted/model"].errors


class _Cancels:
    """A coroutine driven to its n-th suspension on an event loop, and cancelled there."""

    def __init__(self, coroutine, nth):
        self._coroutine, self._left = coroutine, nth
        self.cancelled = False

    def __await__(self):
        resume = partial(self._coroutine.send, None)
        while True:
            try:
                waited_for = resume()
            except StopIteration as stop:
                return stop.value
            self._left -= 1
            if self._left == 0:
                self.cancelled = True
                asyncio.current_task().cancel()
            try:
                resume = partial(self._coroutine.send, (yield waited_for))
            except BaseException as exc:
                resume = partial(self._coroutine.throw, exc)


def everything():
    """Return a step with all policies on, whose call waits in every place there is: queue, attempt, backoff, re-ask."""
    primary = scripted(after(1, unavailable), after(1, "junk"), after(1, "junk"), after(1, "junk"), name="scripted/a")
    fallback = scripted(after(1, unavailable), after(1, "junk"), after(1, "4"), name="scripted/b")

    @step(primary, Fallback(fallback), Retry(2, wait_initial=0.5), Repair(2), Timeout(30), Deadline(100), Bulkhead(1))
    async def count(word: str) -> int:
        await anyio.sleep(0.1)
        return prompt(word)

    return count, primary, fallback


async def _cancelled_at_checkpoint(nth):
    """Cancel the n-th suspension of a call; return whether it came so far, and check that nothing is left."""
    count, primary, fallback = everything()
    async with Runtime(seed=1) as runtime:
        holder = asyncio.create_task(_hold_places(runtime, count))
        await asyncio.sleep(0)
        driven = _Cancels(count("x"), nth)
        task = asyncio.create_task(_run(driven))
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        await holder
        assert all(one == {"in_use": 0, "waiting": 0} for one in places_of(runtime))
        assert (0, 0) == (primary.in_flight, fallback.in_flight)
        assert {asyncio.current_task()} == asyncio.all_tasks()
        if driven.cancelled:
            assert isinstance(outcome, asyncio.CancelledError)
            requests = len(primary.requests) + len(fallback.requests)
            await asyncio.sleep(1000)  # whatever was left behind would wake up now
            assert requests == len(primary.requests) + len(fallback.requests)
        else:
            assert 4 == outcome
    return driven.cancelled


async def _run(driven):
    return await driven


async def _hold_places(runtime, count):
    """Occupy every place for a moment, so that the call has to stand in line as well."""
    count.bound(runtime, None)
    held = [one for one in runtime._shared.values() if isinstance(one, Places)]
    for places in held:
        assert places.take_nowait()
    await asyncio.sleep(0.5)
    for places in held:
        places.give_back()


def test_r8_cancelled_at_every_checkpoint_on_asyncio():
    """For n = 1, 2, ...: cancelled at the n-th suspension, a call returns its places and leaves nothing behind."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        nth = 1
        while runner.run(_cancelled_at_checkpoint(nth)):
            nth += 1

    assert nth > 10


async def test_r8_cancelled_at_every_moment(now):
    """The same by time, on both backends: in the body, in line, in an attempt, in backoff, in a re-ask, in the fallback."""
    moments = 0
    for nth in range(1, 80):
        count, primary, fallback = everything()
        async with Runtime(seed=1) as runtime:
            done = []

            async def call(count=count, done=done):
                done.append(await count("x"))

            async with anyio.create_task_group() as group:
                group.start_soon(call)
                await anyio.sleep(nth * 0.13)
                group.cancel_scope.cancel()

            assert all(one == {"in_use": 0, "waiting": 0} for one in places_of(runtime))
            assert (0, 0) == (primary.in_flight, fallback.in_flight)
        if done:
            break
        moments += 1

    assert (4, True) == (done[0], moments > 40)


async def test_fault_62_no_task_is_left_after_a_call(asking, anyio_backend_name):
    """Neither a good call nor a failed one leaves a task."""
    if anyio_backend_name != "asyncio":
        return
    before = asyncio.all_tasks()
    model = scripted("fine", unavailable, "fine")
    ask = asking(model)

    await ask("x")
    await ask("x")

    assert before == asyncio.all_tasks()


def test_fault_55_loops_of_past_runs_are_let_go():
    """A program that calls `asyncio.run` again and again does not keep every loop it had."""
    model = scripted(default="fine")

    @step(model, Timeout(60))
    def ask(word: str) -> str:
        return prompt(word)

    async def once():
        await ask("x")
        return weakref.ref(asyncio.get_running_loop())

    with Runtime():
        loops = [asyncio.run(once()) for _ in range(10)]
    gc.collect()

    assert sum(loop() is not None for loop in loops) <= 1
