"""Hedge: a second request beside a slow one, the first answer of both, and nothing left over."""

from __future__ import annotations

import asyncio
from itertools import count

import anyio
import pytest

from llmflow import (
    Bulkhead,
    CircuitBreaker,
    CircuitOpen,
    Deadline,
    DefinitionError,
    Hedge,
    ProviderUnavailable,
    Repair,
    Request,
    Retry,
    Runtime,
    Timeout,
    task,
)
from llmflow.backend import monotonic
from llmflow.context import context
from llmflow.messages import Sent
from llmflow.policies._delays import Delays
from llmflow.policies._pace import MARGIN, SAVED, STEP, Pace
from llmflow.policies._race import start_race
from llmflow.policy import Band
from llmflow.testing._scripted import after, hang, scripted
from llmflow.testing._time import VirtualLoop

pytestmark = pytest.mark.anyio


def down(_=None):
    raise ProviderUnavailable("503", status=503)


def state_of(runtime):
    (state,) = [one for one in runtime.stats().states if one.kind == "hedge"]
    return state.values


def summary(result):
    """Return what became of each request, in the order in which they were sent."""
    return [(one.outcome, one.hedge) for one in sorted(result.attempts, key=lambda one: one.number)]


@pytest.fixture
def hedged(asking):
    """Make a step that is hedged after two seconds, with nothing else that repeats."""

    def make(model, *policies, hedge=Hedge(2), **options):
        return asking(model, hedge, Retry.off, *policies, **options)

    return make


# -- who wins ----------------------------------------------------------------------------------------------------------


async def test_a_request_that_is_slow_gets_a_second_one_and_the_quick_answer_is_taken(hedged, now):
    """The first one is cancelled, and both are recorded."""
    model = scripted(hang(), after(1, "second"))
    started = now()

    result = await hedged(model).run("x")

    assert ("second", started + 3) == (result.value, pytest.approx(now()))
    assert [started, started + 2] == pytest.approx(model.asked_at)
    assert ([("cancelled", False), ("ok", True)], 0) == (summary(result), model.in_flight)
    assert [False, True] == [request.hedge for request in model.requests]


async def test_a_request_that_is_quick_stays_alone(hedged, now):
    """No timer is left either: nothing happens later."""
    model = scripted(default=after(1.9, "fine"))
    ask = hedged(model)

    for _ in range(3):
        await ask("x")
        await anyio.sleep(10)

    assert 3 == len(model.requests)


async def test_the_first_may_still_win(hedged, now):
    """Then the second one is cancelled."""
    model = scripted(after(3, "first"), after(5, "second"))
    started = now()

    result = await hedged(model).run("x")

    assert ("first", started + 3, 0) == (result.value, pytest.approx(now()), model.in_flight)
    assert [("ok", False), ("cancelled", True)] == summary(result)


async def test_answers_in_the_same_instant_are_one_answer(hedged):
    """Whichever it is, nothing is raised and nothing is left."""
    model = scripted(after(5, "first"), after(3, "second"))

    result = await hedged(model).run("x")

    assert result.value in ("first", "second")
    assert (2, 0) == (len(result.attempts), model.in_flight)


async def test_a_failure_of_the_second_is_not_an_answer(hedged):
    """The first goes on."""
    result = await hedged(scripted(after(5, "first"), down)).run("x")

    assert ("first", [("ok", False), ("ProviderUnavailable", True)]) == (result.value, summary(result))


async def test_when_the_first_fails_the_second_is_waited_for(hedged, now):
    """Its answer is an answer."""
    started = now()
    result = await hedged(scripted(after(3, down), after(7, "second"))).run("x")

    assert ("second", started + 9) == (result.value, pytest.approx(now()))
    assert [("ProviderUnavailable", False), ("ok", True)] == summary(result)


async def test_when_both_fail_the_failure_of_the_first_leaves(hedged):
    """Whichever failed first; the other is mentioned."""
    for times in ((5, 1), (3, 7)):
        first, second = ProviderUnavailable("first"), KeyError("second")
        model = scripted(after(times[0], lambda _, e=first: _raise(e)), after(times[1], lambda _, e=second: _raise(e)))

        with pytest.raises(ProviderUnavailable) as caught:
            await hedged(model)("x")

        assert first is caught.value
        assert any("KeyError: 'second'" in note for note in caught.value.__notes__)
        assert 2 == len(caught.value.attempts)


def _raise(error):
    raise error


async def test_a_first_that_fails_quickly_has_no_second(hedged):
    """That is what Retry is for."""
    model = scripted(down, default="not asked")

    with pytest.raises(ProviderUnavailable):
        await hedged(model)("x")
    await anyio.sleep(10)

    assert 1 == len(model.requests)


async def test_each_try_of_a_retry_may_be_hedged(asking):
    """Retry stands outside and sees one outcome of both."""
    model = scripted(after(3, down), after(3, down), hang(), "fine")

    result = await asking(model, Hedge(2), Retry(2, wait_initial=0)).run("x")

    failed = "ProviderUnavailable"
    assert [(failed, False), (failed, True), ("cancelled", False), ("ok", True)] == summary(result)


async def test_max_says_how_many_more_there_may_be(hedged, now):
    """Each starts the same time after the one before, and there are no more than that."""
    model = scripted(hang(), hang(), hang(), after(10, "last"))
    started = now()

    result = await hedged(model, hedge=Hedge(2, max=3)).run("x")

    assert ("last", [0, 2, 4, 6]) == (result.value, [at - started for at in model.asked_at])
    assert [("cancelled", False), ("cancelled", True), ("cancelled", True), ("ok", True)] == summary(result)


# -- when it counts as slow --------------------------------------------------------------------------------------------


async def test_waiting_for_a_place_is_not_slow(hedged, now):
    """The time counts from when the request was sent; the line in front of a bulkhead is not the provider's."""
    model = scripted(default=after(1.5, "fine"))
    ask = hedged(model, Bulkhead(1))

    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(ask, "x")

    assert 6 == len(model.requests)


async def test_a_percentile_is_known_after_twenty_requests(hedged, now, runtime):
    """Before that nothing is hedged; then what takes longer than 95 in 100 is."""
    model = scripted(*(after(n / 10, "fine") for n in range(1, 21)), hang(), "second")
    ask = hedged(model, hedge=Hedge())
    for _ in range(20):
        await ask("x")
    started = now()

    result = await ask.run("x")

    assert ("second", started + 1.9 * MARGIN) == (result.value, pytest.approx(now()))
    expected = {"after_s": 1.9 * MARGIN, "p50_s": 1.1, "p95_s": 1.919, "requests": 21, "hedges": 1}
    values = dict(state_of(runtime))
    assert "question" == values.pop("step")
    assert expected == pytest.approx(values)


async def test_before_that_a_request_may_be_as_slow_as_it_likes(hedged):
    """Nineteen are not enough."""
    model = scripted(*["fine"] * 19, after(50, "late"), default="not asked")
    ask = hedged(model, hedge=Hedge("p50"))

    for _ in range(20):
        await ask("x")

    assert 20 == len(model.requests)


async def test_p50_is_the_median(hedged, now):
    """Any percentile from 50 to 99."""
    model = scripted(*(after(n / 10, "fine") for n in range(1, 21)), hang(), "second")
    ask = hedged(model, hedge=Hedge("p50"))
    for _ in range(20):
        await ask("x")
    started = now()

    await ask("x")

    assert started + 1.0 * MARGIN == pytest.approx(now())


async def test_each_step_has_a_pace_of_its_own(hedged, now):
    """A step with long answers is not slow, it is long."""
    model = scripted(default=lambda request: after(30 if "long" in request.messages[0].content else 1, "fine"))
    quick, slow = hedged(model, hedge=Hedge(), name="quick"), hedged(model, hedge=Hedge(), name="slow")

    for _ in range(45):
        await quick("short")
        await slow("long")

    assert 90 == len(model.requests)


async def test_a_percentile_of_next_to_nothing_is_ten_milliseconds(hedged):
    """What answers in no time is not worth doubling."""
    model = scripted(*["fine"] * 20, default=after(0.009, "fine"))
    ask = hedged(model, hedge=Hedge())

    for _ in range(30):
        await ask("x")

    assert 30 == len(model.requests)


async def test_those_that_were_overtaken_stay_in_the_percentile(hedged, runtime):
    """Were they left out, the percentile would fall with each of them, and ever more requests would be slow."""
    numbers = count()
    model = scripted(default=lambda request: after(1 if request.hedge else 1 + next(numbers) * 37 % 100 / 100, "fine"))
    ask = hedged(model, hedge=Hedge())

    for _ in range(400):
        await ask("x")

    values = state_of(runtime)
    assert (400, True) == (values["requests"], 8 < values["hedges"] < 32)
    assert pytest.approx(1.95 * MARGIN, abs=0.03) == values["after_s"]


# -- when it is off ----------------------------------------------------------------------------------------------------


async def test_at_most_ten_and_then_one_in_ten_are_doubled(hedged, runtime):
    """When most are slow, a second request for each would double the load."""
    slow_first = lambda request: after(1 if request.hedge else 3, "fine")  # noqa: E731
    model = scripted(default=slow_first)
    ask = hedged(model)

    for _ in range(STEP - 1):
        await ask("x")

    assert (STEP - 1, int(SAVED) + 1) == (
        len(model.requests) - state_of(runtime)["hedges"],
        state_of(runtime)["hedges"],
    )


@pytest.mark.parametrize("hedge", [Hedge(2), Hedge("p95")], ids=str)
async def test_it_is_off_while_everything_is_slow(hedge, hedged, runtime):
    """More than half of the latest twenty were slow: none is doubled, until things are well again."""
    model = scripted(default=after(1, "fine"))
    ask = hedged(model, hedge=hedge)
    for _ in range(40):
        await ask("x")
    assert state_of(runtime)["after_s"] is not None

    model.default = after(10, "late")
    for _ in range(20):
        await ask("x")
    assert state_of(runtime)["after_s"] is None
    before = len(model.requests)
    for _ in range(15):
        await ask("x")
    assert 15 == len(model.requests) - before

    model.default = after(1, "fine")
    for _ in range(25):
        await ask("x")
    assert state_of(runtime)["after_s"] is not None


async def test_a_step_that_is_streamed_is_not_doubled(hedged):
    """Its first words are out already."""
    model = scripted(after(30, "fine"), default="not asked")
    pieces = []

    async with hedged(model).stream("x") as stream:
        async for piece in stream:
            pieces.append(piece)
        assert "fine" == await stream.final()

    assert 1 == len(model.requests)


class Refusing:
    """Refuses second requests, as a limit does that has no room for them."""

    band = Band.RATE

    def wrap(self, proceed, site, /):
        async def refuse(request):
            if request.hedge:
                raise CircuitOpen("no room")
            return await proceed(request)

        return refuse


async def test_a_second_that_is_refused_is_forgotten(hedged, runtime):
    """The first goes on, its failure is told without a word about the other, and nothing was paid for."""
    fine = await hedged(scripted(after(5, "first")), Refusing()).run("x")
    assert ("first", [("ok", False)]) == (fine.value, summary(fine))

    with pytest.raises(ProviderUnavailable) as caught:
        await hedged(scripted(after(5, down)), Refusing(), name="other")("x")

    assert not any("beside it" in note for note in getattr(caught.value, "__notes__", ()))
    assert 0 == state_of(runtime)["hedges"]


async def test_the_breaker_sees_each_of_both_and_admits_no_second_when_it_is_not_closed(hedged, runtime):
    """A failure of the second counts; one beside a probe is refused."""
    model = scripted(*[after(5, down), after(4, down)] * 2, after(5, "probe"))
    ask = hedged(model, CircuitBreaker(min_calls=4, open_for=10))
    for _ in range(2):
        with pytest.raises(ProviderUnavailable):
            await ask("x")
    (breaker,) = [one for one in runtime.stats().states if one.kind == "breaker"]
    assert ("open", 4) == (breaker.values["state"], breaker.values["failures"])
    await anyio.sleep(10)

    assert "probe" == await ask("x")

    assert 5 == len(model.requests)


async def test_no_second_is_sent_after_the_deadline(hedged):
    """What cannot be answered in time is not asked."""
    model = scripted(default=hang())

    with pytest.raises(TimeoutError):
        await hedged(model, Deadline(2))("x")

    assert (1, 0) == (len(model.requests), model.in_flight)


# -- ends --------------------------------------------------------------------------------------------------------------


async def test_both_share_the_deadline(hedged, now):
    """A race ends with it, and both requests do."""
    model = scripted(default=hang())
    started = now()

    with pytest.raises(TimeoutError) as caught:
        await hedged(model, Deadline(5), Timeout(60))("x")

    assert (started + 5, 2, 0) == (pytest.approx(now()), len(model.requests), model.in_flight)
    assert 2 == len(caught.value.attempts)


async def test_each_has_a_timeout_of_its_own(hedged, now):
    """The second is not cut short because the first was sent earlier."""
    model = scripted(hang(), after(3, "second"))
    started = now()

    result = await hedged(model, Timeout(4)).run("x")

    assert ("second", started + 5) == (result.value, pytest.approx(now()))
    assert [("ProviderTimeout", False), ("ok", True)] == summary(result)


@pytest.mark.parametrize("moment", [1, 3, 6], ids=["alone", "both", "the second alone"])
async def test_r8_a_cancellation_from_outside_ends_both(moment, hedged, now):
    """R8: whoever runs is cancelled and waited for, and the cancellation goes on."""
    model = scripted(after(5, down), hang())
    started = now()

    with anyio.move_on_after(moment) as scope:
        await hedged(model)("x")

    assert (True, started + moment, 0) == (scope.cancelled_caught, pytest.approx(now()), model.in_flight)
    await anyio.sleep(100)
    assert min(moment, 2) == len(model.requests)


async def test_r8_a_cancellation_in_the_instant_of_the_answer_is_not_lost(hedged, now):
    """The answer of the second and the cancellation meet: one of them wins, and the task is not left cancelled."""
    model = scripted(hang(), after(1, "second"))
    outcome = []

    with anyio.move_on_after(3) as scope:
        outcome.append(await hedged(model)("x"))

    assert (["second"], False) == (outcome, scope.cancelled_caught) or ([], True) == (outcome, scope.cancelled_caught)
    await anyio.sleep(1)
    assert 0 == model.in_flight


async def test_a_loser_that_takes_its_time_to_end_is_waited_for(hedged, now):
    """No call leaves a request behind."""
    ended = []

    async def slow_to_end(_):
        try:
            await anyio.sleep(50)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(7)
            ended.append(now())

    started = now()
    assert "second" == await hedged(scripted(slow_to_end, after(1, "second")))("x")

    assert [started + 10] * 2 == pytest.approx([*ended, now()])


async def test_a_loser_that_raises_as_it_is_cancelled_is_not_heard(hedged):
    """Not the first, and not the second."""

    async def raises(_):
        try:
            await anyio.sleep(50)
        finally:
            raise KeyError("while ending")

    assert "second" == await hedged(scripted(raises, "second"))("x")
    assert "first" == await hedged(scripted(after(3, "first"), raises), name="other")("x")


async def test_who_is_cancelled_while_waiting_for_a_loser_ends_when_it_has_ended(hedged, now):
    """R8: the cancellation is not lost, and the loser is not left alone."""

    async def slow_to_end(_):
        try:
            await anyio.sleep(50)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(7)

    model = scripted(after(3, "first"), slow_to_end)
    started = now()

    with anyio.move_on_after(5) as scope:
        await hedged(model)("x")

    assert (True, started + 10, 0) == (scope.cancelled_caught, pytest.approx(now()), model.in_flight)


async def test_a_first_that_answers_although_it_was_interrupted_has_answered(hedged):
    """What it made of the interruption is its own affair; nothing is lost, and nothing stays cancelled."""

    async def stubborn(_):
        try:
            await anyio.sleep(50)
        except anyio.get_cancelled_exc_class():
            return "first"

    model = scripted(stubborn, after(1, "second"), "fine")
    ask = hedged(model)

    assert await ask("x") in ("first", "second")
    await anyio.sleep(1)

    assert "fine" == await ask("x")


async def test_the_second_runs_in_the_caller_s_context(hedged):
    """Whose call it is, is known there too."""
    from llmflow.context import caller

    tenants = []

    async def seen(_):
        tenants.append(caller.get().tenant)
        await anyio.sleep(3)
        return "fine"

    with context(tenant="acme"):
        await hedged(scripted(seen, seen))("x")

    assert ["acme", "acme"] == tenants


async def test_a_task_is_hedged_where_its_author_says_so(runtime):
    """Named on the task: its author says that it may run twice."""
    started = []

    @task(Hedge(2))
    async def fetch(name: str) -> str:
        started.append(name)
        await anyio.sleep(100 if len(started) == 1 else 1)
        return f"{name} {len(started)}"

    result = await fetch.run("page")

    assert ("page 2", [("cancelled", False), ("ok", True)]) == (result.value, summary(result))


async def test_a_hedge_of_the_runtime_is_not_for_tasks():
    """A task that stores something is not run twice because answers are wanted quickly."""
    started = []

    @task
    async def store(name: str) -> None:
        started.append(name)
        await anyio.sleep(100)

    async with Runtime(policies=[Hedge(2)]):
        await store("x")

    assert ["x"] == started


async def test_an_invalid_answer_is_an_answer(hedged):
    """Whether it fits is seen further out, and asked again there."""
    model = scripted(hang(), "no number", "4")

    result = await hedged(model, Repair(1), returns=int).run("x")

    assert (4, [("cancelled", False), ("ok", True), ("ok", False)]) == (result.value, summary(result))


# -- seams -------------------------------------------------------------------------------------------------------------


async def test_a_policy_outside_that_asks_whether_it_was_sent_is_told(asking):
    """Hedge listens too, and takes nothing away from who listened before."""
    asked = []

    class Outside:
        band = Band.before(Band.HEDGE)

        def wrap(self, proceed, site, /):
            async def outside(request):
                sent = Sent()
                asked.append(sent)
                return await proceed(request.marked(sent))

            return outside

    started = monotonic()
    await asking(scripted(hang(), "fine"), Outside(), Hedge(2))("x")

    assert [started] == [sent.at for sent in asked]


async def test_a_marked_request_is_the_same_in_everything_else(asking):
    """Each field of it, also those that are added some day."""
    model = scripted("fine")
    await asking(model)("x")
    (request,) = model.requests
    sent = Sent()

    marked = request.marked(sent, hedge=True)

    assert Request is type(marked)
    for name in Request.__slots__:
        expected = {"sent": sent, "hedge": True}.get(name, getattr(request, name))
        assert expected is getattr(marked, name)


@pytest.mark.parametrize(
    "options",
    [{"after": one} for one in ("p49", "p100", "p5", "percent", "soon", 0, -1, float("inf"), True)]
    + [{"max": one} for one in (0, -1, 1.5, True)],
    ids=str,
)
def test_absurd_options_are_refused(options):
    """Fault 87: where they are written."""
    with pytest.raises(DefinitionError, match=next(iter(options))):
        Hedge(**options)


def test_durations_may_be_text():
    """As everywhere."""
    assert Hedge(1.5) == Hedge("1500ms")


def test_a_pace_that_knows_nothing_says_nothing():
    """A model that was never asked is not in the statistics."""
    assert Pace("a/b", "triage", percent=95).state() is None


class Waiting:
    """Something that waits, and takes note of when it was started."""

    def __init__(self, started):
        self.due, self.over, self.started = 0.0, False, started

    def start(self):
        self.started.append(asyncio.get_running_loop().time())


def test_timers_ring_in_time_also_when_the_percentile_falls():
    """A later one that is due earlier goes before those in line; what is over is dropped, and no timer stays for it."""
    delays, started = Delays(), []

    async def main():
        loop = asyncio.get_running_loop()
        begin = loop.time()
        gone = Waiting([])
        for waiting, seconds in ((gone, 1), (Waiting(started), 9), (Waiting(started), 4), (Waiting(started), 9.5)):
            delays.add(loop, waiting, seconds)
        gone.over = True
        await asyncio.sleep(20)
        delays.add(loop, last := Waiting(started), 50)
        last.over = True
        delays.add(loop, Waiting(started), 2)
        await asyncio.sleep(100)
        assert [] == gone.started
        return [at - begin for at in started]

    for _ in range(2):  # the second time on a loop of its own
        started.clear()
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            assert [4, 9, 9.5, 22] == runner.run(main())
    assert len(delays._queues) <= 2


def test_outside_of_a_task_there_is_no_race():
    """A callback of the loop, or code without any loop, has nobody who could be interrupted."""
    races = [start_race(None, 1.0, None)]

    def callback():
        races.append(start_race(None, 1.0, None))
        loop.stop()

    loop = VirtualLoop()
    loop.call_soon(callback)
    loop.run_forever()
    loop.close()

    assert [None, None] == races


def test_a_call_that_is_thrown_away_takes_its_second_with_it(hedged):
    """Nothing can be waited for then; the second request is told to end, and does so on its loop."""
    model = scripted(default=hang())
    ask = hedged(model, Timeout.off)

    async def main():
        steps = ask("x").__await__()
        steps.send(None)
        await asyncio.sleep(3)
        assert 2 == model.in_flight
        steps.close()
        await asyncio.sleep(1)
        assert 0 == model.in_flight

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
