"""The primitives under the policies, at the edges that a whole call seldom meets."""

from __future__ import annotations

import asyncio
import time

import anyio
import pytest

from llmflow import Deadline, DeadlineExceeded, Fallback, QuotaExceeded, Retry, Runtime, Timeout, hookimpl
from llmflow.backend import Alarms, Wakeup, alarm, loop_token, monotonic, on_asyncio, on_trio
from llmflow.policies._bulkhead import Places
from llmflow.testing._scripted import hang, scripted
from llmflow.testing._time import SkippingClock, VirtualLoop

pytestmark = pytest.mark.anyio


async def test_a_wakeup_that_was_set_before_is_not_waited_for():
    """Whoever comes late goes on at once; setting it twice is nothing."""
    wakeup = Wakeup()
    assert wakeup.set()
    assert wakeup.set()

    with anyio.fail_after(1):
        await wakeup.wait()


async def test_a_wakeup_may_be_set_twice_while_somebody_waits():
    """The second time changes nothing."""
    wakeup = Wakeup()

    async with anyio.create_task_group() as group:
        group.start_soon(wakeup.wait)
        await anyio.sleep(1)
        assert wakeup.set()
        assert wakeup.set()


def test_a_wakeup_for_a_loop_that_ended_says_so():
    """On asyncio and trio: False, not an exception in whoever sets it."""
    import trio

    async def arm(wakeup):
        with anyio.move_on_after(0.001):
            await wakeup.wait()

    for run in (lambda wakeup: asyncio.run(arm(wakeup)), lambda wakeup: trio.run(arm, wakeup)):
        wakeup = Wakeup()
        run(wakeup)
        assert not wakeup.set()


async def test_a_place_that_came_free_in_between_is_taken_without_waiting():
    """Between `take_nowait` and `take` another thread may have given one back."""
    places = Places(1, 0)

    await places.take(0, "m")

    assert 1 == places.statistics["in_use"]


@pytest.mark.parametrize("make", [lambda: alarm(1), lambda: Alarms(1).start()], ids=["alarm", "shared alarm"])
def test_an_alarm_outside_of_a_task_is_refused(make):
    """A callback of the loop cannot be cancelled."""
    loop = VirtualLoop()
    caught = []

    def callback():
        try:
            with make():
                pass
        except RuntimeError as error:
            caught.append(str(error))
        loop.stop()

    loop.call_soon(callback)
    loop.run_forever()
    loop.close()

    assert "a timeout needs a task" in caught[0]


def test_all_loops_share_one_time_line():
    """What a loop on trio keeps until a point in time means the same to a loop on asyncio, and to a thread without one."""

    async def now():
        return monotonic()

    times = [anyio.run(now, backend="asyncio"), anyio.run(now, backend="trio"), monotonic()]

    assert sorted(times) == times
    assert times[-1] - times[0] < 10


async def test_alarms_nest(now):
    """The inner one ends the inner block, the outer one the outer."""
    started = now()

    with alarm(5) as outer:
        with alarm(2) as inner:
            await anyio.sleep(100)
        assert (started + 2, True, False) == (pytest.approx(now()), inner.fired, outer.fired)
        await anyio.sleep(100)

    assert (started + 5, True) == (pytest.approx(now()), outer.fired)


async def test_an_alarm_of_infinite_seconds_never_rings():
    """And costs nothing."""
    with alarm(float("inf")) as never:
        await anyio.sleep(10_000)

    assert not never.fired


def test_alarms_that_are_over_do_not_pile_up_behind_a_long_one():
    """One slow request among 50,000 quick ones keeps a handful of records, and still rings in time."""
    alarms = Alarms(60)

    async def main():
        loop = asyncio.get_running_loop()
        before, most = loop.time(), 0
        with alarms.start() as slow:
            for _ in range(50):
                await asyncio.gather(*(quick() for _ in range(1000)))
                most = max(most, len(alarms._last.alarms))
            await asyncio.sleep(100)
        return loop.time() - before, slow.fired, most

    async def quick():
        with alarms.start():
            await asyncio.sleep(0.001)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        took, fired, most = runner.run(main())

    assert (60, True) == (pytest.approx(took), fired)
    assert most < 1000


async def test_what_the_body_raises_goes_before_the_alarm():
    """An error at the last moment is the body's."""
    with pytest.raises(KeyError):
        with alarm(1):
            try:
                await anyio.sleep(2)
            except BaseException:
                raise KeyError("while ending") from None


async def test_which_backend_runs(anyio_backend_name):
    """Exactly one of them, with a token of its own."""
    assert (anyio_backend_name == "asyncio", anyio_backend_name == "trio") == (on_asyncio(), on_trio())
    assert loop_token() is not None


def test_outside_of_any_loop_there_is_no_backend():
    """And time is the machine's."""
    assert (False, False, None) == (on_asyncio(), on_trio(), loop_token())
    assert monotonic() == pytest.approx(time.monotonic(), abs=1)


def test_virtual_time_passes_only_where_nobody_works():
    """An hour takes no time; a test that is stuck would be told so."""
    started = time.monotonic()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        before = runner.get_loop().time()
        runner.run(anyio.sleep(3600))
        after = runner.get_loop().time()

    assert before + 3600 == pytest.approx(after)
    assert time.monotonic() - started < 5


async def test_a_request_is_not_begun_when_its_time_is_over(asking):
    """An answer that took all the time leaves none for a re-ask: no request, and the deadline's own error."""
    clock = SkippingClock()

    async def slow(_):
        await clock.sleep(50)
        return "junk"

    model = scripted(default=slow)
    async with Runtime(clock=clock):
        with pytest.raises(DeadlineExceeded) as caught:
            await asking(model, Deadline(20), returns=int)("x")

    assert (1, ["ok"]) == (len(model.requests), [one.outcome for one in caught.value.attempts])


async def test_a_fallback_is_not_taken_when_the_time_is_over(asking):
    """The deadline's own error with the first model's as its cause, and nobody is told of a change of model."""
    clock, told = SkippingClock(), []

    async def slow(_):
        await clock.sleep(50)
        raise QuotaExceeded("quota")

    class Listener:
        @hookimpl
        def llmflow_fallback_taken(self, event):
            told.append(event)

    fallback = scripted("not asked")
    async with Runtime(clock=clock, plugins=[Listener()]):
        with pytest.raises(DeadlineExceeded, match="before scripted/model could be asked") as caught:
            await asking(scripted(default=slow), Fallback(fallback), Deadline(20))("x")

    assert QuotaExceeded is type(caught.value.__cause__)
    assert ([], []) == (fallback.requests, told)


async def test_nothing_is_told_where_nobody_listens(asking):
    """A runtime without statistics and log still retries and falls back."""
    primary = scripted(hang(), QuotaExceeded("quota"))

    async with Runtime() as runtime:
        runtime._signals._listeners.clear()
        value = await asking(primary, Fallback(scripted("fine")), Timeout(1), Retry(2))("x")

    assert "fine" == value
