"""Bulkhead: so many at a time, the others in line, and every place comes back."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from functools import partial

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmflow import (
    Bulkhead,
    Deadline,
    DefinitionError,
    Fallback,
    ProviderTimeout,
    ProviderUnavailable,
    QueueFull,
    Retry,
    Runtime,
)
from llmflow.policies._bulkhead import Places
from llmflow.policy import Band
from llmflow.testing._scripted import after, hang, scripted
from llmflow.testing._time import VirtualLoop

pytestmark = pytest.mark.anyio


async def all_of(ask, count):
    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(ask, "x")


def only_places(runtime):
    (places,) = [one for one in runtime._shared.values() if isinstance(one, Places)]
    return places


@pytest.mark.parametrize("limit", [1, 3, 10])
async def test_at_most_limit_requests_are_under_way(limit, asking, now):
    """The rest wait, and all are served."""
    model = scripted(default=after(1, "fine"))
    started = now()

    await all_of(asking(model, Bulkhead(limit)), 30)

    assert (limit, 30) == (model.peak, len(model.requests))
    assert started + 30 / limit == pytest.approx(now())


async def test_the_default_is_256(asking):
    """Nobody has to think of it."""
    model = scripted(default=after(1, "fine"))

    await all_of(asking(model), 300)

    assert 256 == model.peak


async def test_first_come_first_served(asking, now):
    """Who waits longest is next."""
    order = []
    model = scripted(default=lambda request: after(1, order.append(request.messages[0].content) or "fine"))
    ask = asking(model, Bulkhead(2))

    async with anyio.create_task_group() as group:
        for n in range(20):
            group.start_soon(ask, f"{n:02}")
            await anyio.sleep(0.001)

    assert sorted(order) == order


async def test_a_full_queue_refuses(asking):
    """With `queue=` one more waiter is QueueFull at once, without a request."""
    model = scripted(default=after(1, "fine"))
    ask = asking(model, Bulkhead(2, queue=3))
    refused = []

    async def call():
        try:
            await ask("x")
        except QueueFull as error:
            refused.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(call)

    assert (5, 3) == (len(model.requests), len(refused))
    assert [()] * 3 == [error.attempts for error in refused]


async def test_a_queue_of_nothing_never_waits(asking):
    """`queue=0`: a place or a refusal."""
    model = scripted(default=after(1, "fine"))
    ask = asking(model, Bulkhead(1, queue=0))

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "x")
        await anyio.sleep(0.1)
        with pytest.raises(QueueFull):
            await ask("x")


async def test_a_failure_gives_its_place_back(asking, runtime):
    """Whatever becomes of a request, its place is free afterwards."""
    model = scripted(ProviderUnavailable("503"), KeyError("oops"), "fine")
    ask = asking(model, Bulkhead(1, queue=0), Retry.off)

    for kind in (ProviderUnavailable, KeyError):
        with pytest.raises(kind):
            await ask("x")

    assert "fine" == await ask("x")
    assert {"in_use": 0, "waiting": 0} == only_places(runtime).statistics


async def test_no_place_is_held_while_a_retry_waits(asking):
    """Backoff is not work: others use the place meanwhile."""
    model = scripted(ProviderUnavailable("503", retryable=True), "other", "retried")
    ask = asking(model, Bulkhead(1, queue=0), Retry(2, wait_initial=10))
    answers = []

    async def call():
        answers.append(await ask("x"))

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await anyio.sleep(0.0001)
        answers.append(await ask("x"))

    assert ["other", "retried"] == answers


async def test_places_are_counted_per_connection(asking):
    """Two providers do not wait for each other; one model in two steps does."""
    one, other = scripted(default=after(1, "fine")), scripted(default=after(1, "fine"))
    shared = Bulkhead(1, name="shared")
    first, second, third = (asking(model, shared, name=f"s{n}") for n, model in enumerate((one, one, other)))

    async with anyio.create_task_group() as group:
        for ask in (first, second, third):
            group.start_soon(ask, "x")
        await anyio.sleep(0.5)
        assert (1, 1) == (one.in_flight, other.in_flight)


async def test_without_a_name_each_place_of_declaration_has_its_own(asking):
    """`step:a` and `step:b` do not wait for each other."""
    model = scripted(default=after(1, "fine"))
    asks = [asking(model, Bulkhead(1), name=name) for name in ("a", "b")]

    async with anyio.create_task_group() as group:
        for ask in asks:
            group.start_soon(ask, "x")

    assert 2 == model.peak


async def test_bulkheads_of_the_runtime_and_the_step_hold_together(asking):
    """The tightest one decides."""
    for runtime_limit, step_limit in ((2, 5), (5, 2)):
        model = scripted(default=after(1, "fine"))
        async with Runtime(policies=[Bulkhead(runtime_limit)]):
            await all_of(asking(model, Bulkhead(step_limit)), 10)

        assert 2 == model.peak


async def test_one_name_on_two_levels_is_one_bulkhead(asking):
    """A request that meets the same bulkhead twice takes one place and does not wait for itself."""
    shared = Bulkhead(1, name="gpu")
    model = scripted(default=after(1, "fine"))

    async with Runtime(policies=[shared]):
        ask = asking(model, shared)
        with anyio.fail_after(10):
            await all_of(ask, 3)

    assert (1, 3) == (model.peak, len(model.requests))


async def test_two_that_are_called_the_same_and_differ_are_refused(asking):
    """The first call says so, naming the bulkhead."""
    model = scripted(default="fine")
    await asking(model, Bulkhead(1, name="gpu"), name="a")("x")

    with pytest.raises(DefinitionError, match="'gpu'"):
        await asking(model, Bulkhead(2, name="gpu"), name="b")("x")


async def test_with_other_limits_is_another_bulkhead(asking):
    """`with_(Bulkhead(...))` on one step does not collide with what the step was used with before."""
    model = scripted(default=after(1, "fine"))
    ask = asking(model, Bulkhead(1))

    await ask("x")
    await all_of(ask.with_(Bulkhead(3)), 9)

    assert 3 == model.peak


async def test_a_waiter_that_is_cancelled_leaves_the_line(asking, runtime):
    """Nobody hands a place to somebody who has gone."""
    model = scripted(default=after(1, "fine"))
    ask = asking(model, Bulkhead(1))

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "x")
        await anyio.sleep(0.1)
        with anyio.move_on_after(0.2):
            await ask("x")
        assert {"in_use": 1, "waiting": 0} == only_places(runtime).statistics

    assert "fine" == await ask("x")
    assert {"in_use": 0, "waiting": 0} == only_places(runtime).statistics


async def test_a_waiter_that_is_cancelled_as_it_is_handed_a_place_passes_it_on(asking, runtime):
    """The instant in which a place could be lost."""
    model = scripted(default=after(1, "fine"))
    ask = asking(model, Bulkhead(1))
    answers = []

    async def call(limit):
        with anyio.move_on_after(limit):
            answers.append(await ask("x"))

    async with anyio.create_task_group() as group:
        for limit in (100, 1, 100, 2, 100):  # the second and the fourth end in the instant a place is handed over
            group.start_soon(call, limit)

    assert len(answers) >= 3
    assert {"in_use": 0, "waiting": 0} == only_places(runtime).statistics


async def test_the_wait_in_line_ends_with_the_share_of_the_deadline(asking, now):
    """In front of a fallback the line may be left early; it is recorded by no attempt and blamed on nobody."""
    busy, free = scripted(default=hang()), scripted(default="fine")
    ask = asking(busy, Bulkhead(1), Fallback(free), Deadline(20))

    async with anyio.create_task_group() as group:
        group.start_soon(ask.with_(Deadline.off), "x")
        await anyio.sleep(0.1)
        started = now()
        assert "fine" == await ask("x")
        assert started + 10 == pytest.approx(now())
        group.cancel_scope.cancel()


async def test_what_waited_is_told(asking):
    """`CallScope.waited_s` has the seconds in line, also of who gave up."""
    model = scripted(default=after(10, "fine"))
    ask = asking(model, Bulkhead(1))

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "x")
        await anyio.sleep(4)
        group.start_soon(ask, "y")

    assert [0, 6] == pytest.approx([one.call.waited_s for one in model.requests])


async def test_a_hedge_takes_a_free_place_or_none(asking):
    """A second request beside a slow one does not stand in the line of first ones."""

    class Hedging:
        band = Band.HEDGE

        def wrap(self, proceed, site):
            return lambda request: proceed(dataclasses.replace(request, hedge=True))

    model = scripted(default=after(10, "fine"))
    ask = asking(model, Bulkhead(1))

    async with anyio.create_task_group() as group:
        group.start_soon(ask.with_(Bulkhead(1), Hedging()), "x")
        await anyio.sleep(1)
        with pytest.raises(QueueFull, match="second request"):
            await ask.with_(Bulkhead(1), Hedging())("y")


async def test_its_state_is_in_the_statistics_while_it_is_used(asking, runtime):
    """Who asks why calls are slow sees how many wait for what."""
    model = scripted(default=after(10, "fine"))
    ask = asking(model, Bulkhead(1, name="gpu"))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(ask, "x")
        await anyio.sleep(1)
        states = {one.name: one.values for one in runtime.stats().states if one.kind == "bulkhead"}

    assert {"in_use": 1, "waiting": 2, "limit": 1} == states["gpu"]
    assert not [one for one in runtime.stats().states if one.kind == "bulkhead"]


class _Caller:
    """One task of the property below."""

    def __init__(self, begins: int, holds: int, gives_up: int | None) -> None:
        self.begins, self.holds, self.gives_up = begins, holds, gives_up


_callers = st.lists(
    st.builds(_Caller, begins=st.integers(0, 6), holds=st.integers(0, 4), gives_up=st.none() | st.integers(0, 6)),
    max_size=14,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(limit=st.integers(1, 3), queue=st.none() | st.integers(0, 3), callers=_callers)
def test_law_never_more_than_limit_in_order_and_nothing_lost(limit, queue, callers):
    """Whoever comes when, holds for how long and gives up when: the limit, the line's bound, its order, and its end."""
    for run in (_on_asyncio, _on_trio):
        run(partial(_play, limit, queue, callers))


async def _play(limit, queue, callers):
    places = Places(limit, queue)
    inside, entered = [], []

    async def call(caller):
        await anyio.sleep(caller.begins)
        with anyio.move_on_after(float("inf") if caller.gives_up is None else caller.gives_up):
            arrived = anyio.current_time()
            if not places.take_nowait():
                waiting = places.statistics["waiting"]
                if waiting == queue:
                    with pytest.raises(QueueFull):
                        await places.take(float("inf"), "m")
                    return
                places_before_it[caller] = waiting
                await places.take(float("inf"), "m")
            inside.append(caller)
            entered.append((arrived, anyio.current_time()))
            try:
                assert len(inside) <= limit
                await anyio.sleep(caller.holds)
            finally:
                inside.remove(caller)
                places.give_back()

    places_before_it = {}
    async with anyio.create_task_group() as group:
        for caller in callers:
            group.start_soon(call, caller)

    assert {"in_use": 0, "waiting": 0} == places.statistics
    assert queue is None or all(waiting < queue for waiting in places_before_it.values())
    for arrived, began in entered:  # who came later in time did not begin earlier
        assert not any(other > arrived and start < began for other, start in entered)
    assert queue is not None or sum(caller.gives_up is None for caller in callers) <= len(entered)


def _on_asyncio(main):
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


def _on_trio(main):
    import trio
    import trio.testing

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_places_are_shared_by_threads_and_their_loops():
    """Eight loops in eight threads, three places: never more, and all are served."""
    places, lock = Places(3, None), threading.Lock()
    inside = peak = served = 0

    async def work():
        nonlocal inside, peak, served
        for _ in range(25):
            if not places.take_nowait():
                await places.take(30, "m")
            with lock:
                inside += 1
                peak = max(peak, inside)
            await anyio.sleep(0)
            with lock:
                inside -= 1
                served += 1
            places.give_back()

    threads = [
        threading.Thread(target=anyio.run, args=(work,), kwargs={"backend": name}) for name in ("asyncio", "trio") * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert (200, {"in_use": 0, "waiting": 0}) == (served, places.statistics)
    assert peak <= 3


def test_a_waiter_whose_loop_has_died_does_not_take_a_place_with_it():
    """A loop that was stopped in mid-wait must not hurt the request that gives its place back."""
    places = Places(1, None)
    assert places.take_nowait()
    loop = asyncio.new_event_loop()
    waiter = loop.create_task(places.take(float("inf"), "m"))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    places.give_back()

    assert places.take_nowait()
    waiter.get_coro().close()
    waiter._log_destroy_pending = False


async def test_sync_in_a_running_loop_does_not_wait_for_what_that_loop_holds(asking, anyio_backend_name):
    """`.sync()` from the loop's own thread would wait for ever; it fails at once and names `await`."""
    model = scripted(default=after(1, "fine"))
    ask = asking(model, Bulkhead(1))

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "x")
        await anyio.sleep(0.1)
        with pytest.raises(QueueFull) as caught:
            ask.sync("x")

    assert any("await" in note for note in caught.value.__notes__)


@pytest.mark.parametrize(
    "options", [{"limit": 0}, {"limit": True}, {"limit": 1.5}, {"queue": -1}, {"queue": False}], ids=str
)
def test_absurd_options_are_refused(options):
    """Fault 87: whole numbers."""
    with pytest.raises(DefinitionError, match=next(iter(options))):
        Bulkhead(**options)


async def test_the_message_of_a_wait_that_was_too_long_says_how_many_wait(asking):
    """Who reads it learns that the line is the matter and not the provider."""
    places = Places(1, None)
    assert places.take_nowait()

    with pytest.raises(ProviderTimeout, match="1 requests waited for one of 1 places at m"):
        await places.take(1, "m")
