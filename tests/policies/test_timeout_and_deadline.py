"""Timeout and Deadline: one limits an attempt, the other the whole call, and neither is overrun."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import anyio
import pytest

from llmflow import (
    Bulkhead,
    Deadline,
    DeadlineExceeded,
    DefinitionError,
    Fallback,
    FallbackExhausted,
    ProviderTimeout,
    ProviderUnavailable,
    Repair,
    Retry,
    Runtime,
    Timeout,
    flow,
    prompt,
    step,
)
from llmflow.testing._scripted import after, hang, scripted

pytestmark = pytest.mark.anyio

SLACK = 1e-6


async def test_r3_an_attempt_ends_at_its_timeout(asking, now):
    """R3: wall clock per attempt; the error is a TimeoutError too."""
    model = scripted(hang())
    started = now()

    with pytest.raises(ProviderTimeout) as caught:
        await asking(model, Timeout(2), Retry.off)("x")

    assert started + 2 == pytest.approx(now())
    assert isinstance(caught.value, TimeoutError)
    assert (False, "ProviderTimeout", "scripted/model") == (
        caught.value.cut,
        caught.value.attempts[0].outcome,
        caught.value.model,
    )


async def test_r3_each_attempt_has_a_timeout_of_its_own(asking, now):
    """A slow first try takes nothing from the second."""
    model = scripted(hang(), after(1.9, "fine"))

    assert "fine" == await asking(model, Timeout(2), Retry(2, wait_initial=0))("x")


async def test_the_timeout_runs_out_exactly(asking):
    """An answer just before the limit counts."""
    assert "fine" == await asking(scripted(after(59.99, "fine")))("x")


async def test_r3_the_defaults_are_finite(asking, now):
    """R3: 60 s for an attempt, three attempts, and 300 s for whatever a call does."""
    model = scripted(default=hang())
    started = now()

    with pytest.raises(ProviderTimeout):
        await asking(model)("x")

    assert 3 == len(model.requests)
    assert 180 <= now() - started <= 182


@pytest.mark.parametrize(
    "policies",
    [
        (Timeout(60),),
        (Timeout(3), Retry(100)),
        (Timeout.off,),
        (Timeout(60), Fallback(scripted(default=hang()))),
        (Timeout(3), Fallback(scripted(default=hang())), Retry(100)),
    ],
    ids=["one attempt", "many attempts", "no timeout", "fallback", "fallback and attempts"],
)
async def test_r3_the_deadline_limits_the_whole_call(policies, asking, now):
    """R3: retries, waits and fallbacks inside; the deadline is not overrun and says so."""
    started = now()

    with pytest.raises((DeadlineExceeded, ProviderTimeout, FallbackExhausted)):
        await asking(scripted(default=hang()), Deadline(10), *policies)("x")

    assert now() - started <= 10 + SLACK


async def test_r3_reasks_count_against_the_deadline(asking, now):
    """R3: answers that are invalid one after the other end with the deadline too."""
    started = now()

    with pytest.raises(DeadlineExceeded) as caught:
        await asking(scripted(default=after(3, "junk")), Repair(100), Deadline(10), returns=int)("x")

    assert started + 10 == pytest.approx(now())
    assert ["ok", "ok", "ok", "cut"] == [one.outcome for one in caught.value.attempts]


async def test_r3_the_wait_for_a_place_counts_against_the_deadline_and_not_the_timeout(asking, now):
    """R3: a queue is no attempt; what waits in it fails at the deadline, without a request."""
    model = scripted(after(7, "first"), after(7, "second"))
    ask = asking(model, Bulkhead(1), Timeout(8), Deadline(20))
    short = ask.with_(Deadline(5))
    answers = []

    async def call(one):
        answers.append(await one("x"))

    started = now()
    async with anyio.create_task_group() as group:
        group.start_soon(call, ask)
        await anyio.sleep(0.1)
        group.start_soon(call, ask)
        with pytest.raises(DeadlineExceeded) as caught:
            await short("x")
        assert started + 5.1 == pytest.approx(now())

    assert ["first", "second"] == answers
    assert () == caught.value.attempts
    assert 2 == len(model.requests)


@pytest.mark.parametrize("timeout", [Timeout(60), Timeout(10), Timeout.off], ids=str)
async def test_an_attempt_that_the_deadline_ends_is_cut(timeout, asking):
    """What had less time than its timeout is recorded as cut, not as a failure of the provider."""
    with pytest.raises(DeadlineExceeded) as caught:
        await asking(scripted(default=hang()), Deadline(9.5), timeout)("x")

    assert ["cut"] == [one.outcome for one in caught.value.attempts]


async def test_the_earliest_deadline_decides(asking, now):
    """Deadlines add up: that of the runtime, the flow and the step hold together."""
    for runtime_limit, step_limit in ((3, 8), (8, 3)):
        started = now()
        async with Runtime(policies=[Deadline(runtime_limit)]):
            with pytest.raises(DeadlineExceeded):
                await asking(scripted(hang()), Deadline(step_limit))("x")

        assert started + 3 == pytest.approx(now())


async def test_a_flows_deadline_ends_the_attempt_inside_as_cut(now):
    """The flow's alarm and the attempt's ring in the same instant; the record says cut."""
    model = scripted(default=hang())

    @step(model)
    def think(word: str) -> str:
        return prompt(word)

    @flow(Deadline(4))
    async def whole(word: str) -> str:
        return await think(word)

    started = now()
    with pytest.raises(DeadlineExceeded):
        await whole("x")

    assert started + 4 == pytest.approx(now())


async def test_without_deadline_and_timeout_a_call_may_take_for_ever(asking, now):
    """`Timeout.off` and `Deadline.off` take the limits out."""
    started = now()

    assert "late" == await asking(scripted(after(10_000, "late")), Timeout.off, Deadline.off)("x")
    assert started + 10_000 == pytest.approx(now())


# -- shares of the deadline --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timeout", "expected"),
    [
        # One fallback left: the first may use 30 - r with r = min(timeout, 30 / 2).
        ((60,), (15, 30)),
        ((10,), (20, 30)),
        # Two left: 30 - 2 * r with r = min(timeout, 30 / 3), then what is left less one r.
        ((60, 2), (10, 20, 30)),
        ((4, 2), (22, 26, 30)),
    ],
    ids=["half each", "one timeout kept", "a third each", "two timeouts kept"],
)
async def test_each_model_leaves_time_for_those_behind_it(timeout, expected, asking, now):
    """With k fallbacks left a model may use `left - k*r`, `r = min(Timeout, left/(k+1))`."""
    seconds, further = timeout[0], timeout[-1] if len(timeout) > 1 else 1
    models = [scripted(default=hang(), name=f"scripted/{n}") for n in range(further + 1)]
    started = now()

    with pytest.raises((DeadlineExceeded, FallbackExhausted)):
        await asking(models[0], Fallback(*models[1:]), Deadline(30), Timeout(seconds), Retry(100, wait_initial=0))("x")

    ends = [*(one.asked_at[0] - started for one in models[1:]), now() - started]
    assert list(expected) == pytest.approx(ends)


async def test_an_attempt_that_is_cut_for_a_fallback_is_recorded_as_cut(asking):
    """The provider is not blamed for the time it did not get, and the fallback answers."""
    result = await asking(scripted(hang()), Fallback(scripted("fine")), Deadline(30), Timeout(60)).run("x")

    assert ("fine", ["cut", "ok"]) == (result.value, [one.outcome for one in result.attempts])


async def test_a_cut_is_not_counted_by_the_breaker(asking):
    """The flag on the error of a cut attempt is off, that of a real timeout on."""
    with pytest.raises(DeadlineExceeded) as cut:
        await asking(scripted(hang()), Deadline(1))("x")
    with pytest.raises(ProviderTimeout) as full:
        await asking(scripted(hang()), Timeout(1), Retry.off)("x")

    assert (False, True) == (cut.value.attempts[0].error.trips_breaker, full.value.attempts[0].error.trips_breaker)


async def test_a_wait_is_cut_to_the_share_and_not_the_deadline(asking, now):
    """A Retry-After that only fits when no fallback is left time is not waited for."""
    from llmflow import RateLimited

    primary = scripted(RateLimited("429", retry_after=20))
    started = now()

    assert "fine" == await asking(primary, Fallback(scripted("fine")), Deadline(30))("x")
    assert started == now()


async def test_the_last_model_has_all_that_is_left(asking, now):
    """When the first fails at once, the second may use the whole deadline."""
    primary = scripted(ProviderUnavailable("503", retryable=False))

    assert "late" == await asking(primary, Fallback(scripted(after(29, "late"))), Deadline(30), Timeout(60))("x")


# -- scopes around a call ----------------------------------------------------------------------------------------------


async def test_fault_61_an_outer_fail_after_raises_its_own_timeout_error(asking, now):
    """The outer scope's TimeoutError leaves as it is, at its time, with nothing retried."""
    model = scripted(default=hang())
    started = now()

    with pytest.raises(TimeoutError) as caught:
        with anyio.fail_after(2):
            await asking(model, Fallback(scripted("not asked")))("x")

    assert TimeoutError is type(caught.value)
    assert (started + 2, 1) == (pytest.approx(now()), len(model.requests))


async def test_fault_61_an_outer_asyncio_timeout_raises_its_own_timeout_error(asking, now, anyio_backend_name):
    """The same for asyncio's own."""
    if anyio_backend_name != "asyncio":
        return
    model = scripted(default=hang())
    started = now()

    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(2):
            await asking(model)("x")

    assert TimeoutError is type(caught.value)
    assert (started + 2, 1) == (pytest.approx(now()), len(model.requests))
    assert 0 == asyncio.current_task().cancelling()


@pytest.mark.parametrize(
    "policies",
    [(Timeout(2), Retry.off), (Deadline(2),), (Deadline(2), Timeout(2))],
    ids=["timeout", "deadline", "both"],
)
async def test_an_outer_scope_that_ends_in_the_same_instant_wins(policies, asking):
    """Two clocks that strike together: the outer one decides, and none is lost."""
    with pytest.raises(TimeoutError) as caught:
        with anyio.fail_after(2):
            await asking(scripted(default=hang()), *policies)("x")
            pytest.fail("the call returned")

    assert caught.value is not None
    await anyio.sleep(1)  # a cancellation that was left over would arrive here


async def test_time_up_and_cancelled_in_the_same_instant_is_cancelled(asking, now):
    """A cancellation from outside is never swallowed by a timer that rings with it."""
    outcome = []

    async def call():
        try:
            await asking(scripted(default=hang()), Timeout(3))("x")
        except BaseException as exc:
            outcome.append(type(exc))
            raise

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await anyio.sleep(3)
        group.cancel_scope.cancel()

    assert [anyio.get_cancelled_exc_class()] == outcome


async def test_many_calls_share_the_alarms_of_a_timeout(asking, now):
    """Calls that start at different times each end at their own."""
    model = scripted(default=hang())
    ask = asking(model, Timeout(10), Retry.off)
    took = []

    async def call(delay):
        await anyio.sleep(delay)
        started = now()
        with pytest.raises(ProviderTimeout):
            await ask("x")
        took.append(now() - started)

    async with anyio.create_task_group() as group:
        for n in range(50):
            group.start_soon(call, n * 0.37)

    assert [10.0] * 50 == pytest.approx(took)


async def test_alarms_of_calls_that_ended_do_not_ring(asking, now):
    """An alarm that was left behind would cancel the next thing its task does."""
    model = scripted(default=after(1, "fine"))
    ask = asking(model, Timeout(5))

    for _ in range(10):
        await ask("x")
    started = now()
    await anyio.sleep(100)

    assert started + 100 == pytest.approx(now())


@pytest.mark.parametrize("kind", [Timeout, Deadline])
@pytest.mark.parametrize(
    "seconds", [0, -1, True, float("nan"), float("inf"), "soon", "", None, "5 minutes", timedelta(0)], ids=str
)
def test_absurd_durations_are_refused(kind, seconds):
    """Fault 87: what no clock can wait for is refused where it is written, by name."""
    with pytest.raises(DefinitionError, match=f"{kind.__name__}: seconds"):
        kind(seconds)


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [(2, 2), (0.25, 0.25), ("250ms", 0.25), ("1h30m", 5400), ("2d", 172_800), (timedelta(minutes=2), 120)],
)
def test_durations_are_seconds_timedeltas_or_text(duration, seconds):
    """Every duration takes all three forms."""
    assert (seconds, seconds) == (Timeout(duration).seconds, Deadline(duration).seconds)
