"""CircuitBreaker: a provider that is down is left alone, tried by one request, and used again."""

from __future__ import annotations

import threading
import time
from contextvars import copy_context

import anyio
import pytest

from llmflow import (
    BadRequest,
    BudgetExceeded,
    CircuitBreaker,
    CircuitOpen,
    Deadline,
    DeadlineExceeded,
    DefinitionError,
    Fallback,
    InvalidOutput,
    Model,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExceeded,
    RateLimited,
    RateLimitTimeout,
    Repair,
    Reply,
    Retry,
    Runtime,
    Timeout,
    hookimpl,
    task,
)
from llmflow.policies._breaker import Breaker
from llmflow.testing._scripted import after, hang, scripted
from llmflow.testing._time import SkippingClock

pytestmark = pytest.mark.anyio

QUICK = CircuitBreaker(min_calls=4, window=30, open_for=10)


def down(_=None):
    raise ProviderUnavailable("503", status=503)


def state_of(runtime, name="scripted/model"):
    (state,) = [one for one in runtime.stats().states if one.kind == "breaker" and one.name == name]
    return state.values


async def fail(ask, times, kind=ProviderUnavailable):
    for _ in range(times):
        with pytest.raises(kind):
            await ask("x")


@pytest.fixture
def breaking(asking):
    """Make a step behind a breaker that opens at the fourth failure, with nothing else that repeats."""

    def make(model, *policies, breaker=QUICK, **options):
        return asking(model, breaker, Retry.off, *policies, **options)

    return make


# -- opening -----------------------------------------------------------------------------------------------------------


async def test_c1_it_opens_at_the_failure_that_makes_the_ratio(breaking, runtime):
    """C1: with fewer than `min_calls` outcomes it stays closed, whatever they were."""
    model = scripted(default=down)
    ask = breaking(model)

    await fail(ask, 3)
    assert "closed" == state_of(runtime)["state"]
    await fail(ask, 1)

    assert {"state": "open", "calls": 4, "failures": 4, "retry_after_s": 10.0} == state_of(runtime)


async def test_c1_an_open_breaker_sends_nothing(breaking, now):
    """C1: none of 50 callers reaches the provider, each is refused in less than 5 ms and told how long to wait."""
    model = scripted(default=down)
    ask = breaking(model)
    await fail(ask, 4)
    refused, started = [], now()

    async def call():
        began = time.perf_counter()
        with pytest.raises(CircuitOpen) as caught:
            await ask("x")
        refused.append((time.perf_counter() - began, caught.value))

    for _ in range(50):
        await call()

    assert (4, started) == (len(model.requests), now())
    assert sorted(took for took, _ in refused)[25] < 0.005
    assert {(10.0, False, ())} == {(error.retry_after, error.sent, error.attempts) for _, error in refused}
    assert "step 'question': scripted/model has failed too often and is left alone for another 10 s" == str(
        refused[0][1]
    )


async def test_the_ratio_decides_and_not_the_number(breaking, runtime):
    """Two failures in five are not half of them."""
    ask = breaking(scripted("fine", "fine", "fine", down, down, down))

    for _ in range(3):
        await ask("x")
    await fail(ask, 2)
    assert "closed" == state_of(runtime)["state"]
    await fail(ask, 1)

    assert "open" == state_of(runtime)["state"]


async def test_old_outcomes_leave_the_window(breaking, runtime):
    """Failures that came a window apart do not add up."""
    ask = breaking(scripted(default=down))

    for _ in range(5):
        await fail(ask, 3)
        await anyio.sleep(31)

    assert {"state": "closed", "calls": 0, "failures": 0} == state_of(runtime)


async def test_the_default_needs_ten_requests_of_which_half_failed(asking, runtime):
    """The defaults of the signature."""
    assert CircuitBreaker(failure_ratio=0.5, window=30, min_calls=10, open_for=30) == CircuitBreaker()
    ask = asking(scripted(default=down), CircuitBreaker(), Retry.off)

    await fail(ask, 9)
    assert "closed" == state_of(runtime)["state"]
    await fail(ask, 1)

    assert {"state": "open", "calls": 10, "failures": 10, "retry_after_s": 30.0} == state_of(runtime)


async def test_without_a_declaration_there_is_no_breaker(asking, runtime):
    """It is not among the defaults."""
    await fail(asking(scripted(default=down), Retry.off), 30)

    assert [] == [one for one in runtime.stats().states if one.kind == "breaker"]


# -- what counts -------------------------------------------------------------------------------------------------------


NEUTRAL = {
    "400": BadRequest("400", status=400),
    "429": RateLimited("429", status=429, retry_after=100),
    "quota": QuotaExceeded("quota", status=429),
    "budget": BudgetExceeded("spent"),
    "limiter": RateLimitTimeout("full"),
    "cut": ProviderTimeout("cut", cut=True),
    "invalid": InvalidOutput("not a number"),
    "own code": KeyError("oops"),
}


@pytest.mark.parametrize("failure", NEUTRAL.values(), ids=NEUTRAL)
async def test_c4_what_is_not_the_provider_s_fault_does_not_count(failure, breaking, runtime):
    """C4, fault 70: six of them, and six more, never open it."""
    ask = breaking(scripted(default=lambda _: _raise(failure)))

    await fail(ask, 12, (type(failure), DeadlineExceeded))

    assert {"state": "closed", "calls": 0, "failures": 0} == state_of(runtime)


def _raise(error):
    raise error


COUNTED = {
    "5xx": ProviderUnavailable("500", status=500),
    "408": ProviderUnavailable("408", status=408),
    "no connection": ProviderUnavailable("refused"),
    "time-out": ProviderTimeout("slow"),
    "a function's own": ConnectionResetError("gone"),
    "a function's time-out": TimeoutError("slow"),
}


@pytest.mark.parametrize("failure", COUNTED.values(), ids=COUNTED)
async def test_what_is_the_provider_s_fault_counts(failure, breaking, runtime):
    """Connections, time-outs, 408 and 5xx; what a model that is a function raises is read the same way."""
    ask = breaking(scripted(default=lambda _: _raise(failure)))

    await fail(ask, 4, type(failure))

    assert "open" == state_of(runtime)["state"]


async def test_c4_an_answer_that_does_not_fit_is_a_success(breaking, runtime):
    """The provider did its part."""
    ask = breaking(scripted(default="no number"), Repair.off, returns=int)

    await fail(ask, 6, InvalidOutput)

    assert {"state": "closed", "calls": 6, "failures": 0} == state_of(runtime)


async def test_c4_cancellation_does_not_count(breaking, runtime):
    """Callers who lose patience say nothing about the provider."""
    ask = breaking(scripted(default=hang()))

    for _ in range(6):
        with anyio.move_on_after(1):
            await ask("x")

    assert {"state": "closed", "calls": 0, "failures": 0} == state_of(runtime)


async def test_its_own_timeout_counts_and_the_deadline_s_cut_does_not(breaking, runtime):
    """A model that had its whole time failed; one that was given less did not."""
    for policies, failures in (((Timeout(5),), 4), ((Timeout(5), Deadline(2)), 0)):
        name = f"scripted/{failures}"
        ask = breaking(scripted(default=hang(), name=name), *policies, name=name)

        for _ in range(4):
            with pytest.raises(TimeoutError):
                await ask("x")

        assert failures == state_of(runtime, name)["failures"]


async def test_each_try_of_a_retry_is_seen(asking, runtime):
    """Retry stands outside: an outage is noticed after `min_calls` requests, not calls."""
    model = scripted(default=down)

    with pytest.raises(CircuitOpen) as caught:
        await asking(model, QUICK, Retry(10, wait_initial=0))("x")

    assert (4, 4, "open") == (len(model.requests), len(caught.value.attempts), state_of(runtime)["state"])


async def test_on_names_further_failures(asking, runtime):
    """For a model that is a function and fails in its own way."""
    breaker = CircuitBreaker(min_calls=2, on=(KeyError, RateLimited))
    ask = asking(scripted(KeyError("gone"), RateLimited("429"), default="fine"), breaker, Retry.off)

    await fail(ask, 1, KeyError)
    await fail(ask, 1, RateLimited)

    await fail(ask, 1, CircuitOpen)


async def test_r9_an_open_breaker_falls_back_at_once(breaking, now):
    """R9: the next model answers without a wait, and the first one is not asked."""
    primary, spare = scripted(default=down), scripted(default="spare")
    ask = breaking(primary, Fallback(spare))
    for _ in range(4):
        await ask("x")
    started = now()

    assert "spare" == await ask("x")

    assert (4, 5, started) == (len(primary.requests), len(spare.requests), now())


# -- half open ---------------------------------------------------------------------------------------------------------


async def test_c2_half_open_lets_exactly_one_of_fifty_through(breaking, runtime):
    """C2, fault 68: until the probe is decided the others are refused, without a time to come back."""
    model = scripted(default=down)
    ask = breaking(model)
    await fail(ask, 4)
    await anyio.sleep(10.5)
    model.default = after(3, "fine")
    answers, refused = [], []

    async def call():
        try:
            answers.append(await ask("x"))
        except CircuitOpen as error:
            refused.append(error.retry_after)

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(call)
        await anyio.sleep(1)
        assert "half_open" == state_of(runtime)["state"]

    assert (5, ["fine"], [None] * 49) == (len(model.requests), answers, refused)
    assert {"state": "closed", "calls": 0, "failures": 0} == state_of(runtime)


async def test_a_probe_that_fails_opens_it_again_for_as_long(breaking, now, runtime):
    """An outage costs one request in each `open_for`."""
    model = scripted(default=down)
    ask = breaking(model)
    await fail(ask, 4)
    opened = now()

    while now() < opened + 100:
        with pytest.raises((CircuitOpen, ProviderUnavailable)):
            await ask("x")
        await anyio.sleep(0.25)

    assert pytest.approx(9, abs=1) == len(model.requests) - 4
    assert all(after - before >= 10 for before, after in zip(model.asked_at[4:], model.asked_at[5:], strict=False))


async def end_by_cancellation(ask):
    with anyio.move_on_after(1):
        await ask("x")


async def end_by_closing(ask):
    coroutine = ask("x").__await__()
    coroutine.send(None)
    coroutine.close()


def end_by(error):
    async def end(ask):
        await fail(ask, 1, (type(error), DeadlineExceeded))

    return end, lambda _: _raise(error)


ENDS = {
    "cancelled": (end_by_cancellation, hang()),
    "closed": (end_by_closing, hang()),
    "400": end_by(NEUTRAL["400"]),
    "limiter": end_by(NEUTRAL["limiter"]),
    "budget": end_by(NEUTRAL["budget"]),
    "cut": end_by(NEUTRAL["cut"]),
    "own code": end_by(NEUTRAL["own code"]),
}


@pytest.mark.parametrize(("end", "reply"), ENDS.values(), ids=ENDS)
async def test_c3_a_probe_that_says_nothing_leaves_the_trial_to_the_next_caller(end, reply, breaking, runtime):
    """C3, R8, fault 69: whatever ends it, the next caller is the probe at once."""
    model = scripted(default=down)
    ask = breaking(model)
    await fail(ask, 4)
    await anyio.sleep(11)

    model.default = reply
    await end(ask)
    assert "half_open" == state_of(runtime)["state"]
    model.default = "fine"

    assert "fine" == await ask("x")
    assert "closed" == state_of(runtime)["state"]


async def test_c3_a_probe_of_which_nobody_tells_the_end_is_given_up(runtime, breaking):
    """Its thread or loop has died: past its deadline the next caller tries, and what it says later is not heard."""
    model = scripted(default=down)
    ask = breaking(model, Deadline(20))
    await fail(ask, 4)
    await anyio.sleep(11)
    (breaker,) = [one for one in runtime._shared.values() if isinstance(one, Breaker)]
    lost = breaker.admit(runtime.clock.monotonic(), runtime.clock.monotonic() + 20, hedge=False)
    model.default = "fine"

    await anyio.sleep(20)
    await fail(ask, 1, CircuitOpen)
    await anyio.sleep(2)
    assert "fine" == await ask("x")
    breaker.failed(lost)

    assert {"state": "closed", "calls": 0, "failures": 0} == state_of(runtime)


async def test_what_was_sent_before_it_opened_decides_nothing(breaking, runtime):
    """A late answer does not close it, and a late failure does not open it again."""
    late = [after(20, "late"), after(30, lambda _: down())]
    model = scripted(*late, default=down)
    ask = breaking(model)
    ended = []

    async def call():
        try:
            ended.append(await ask("x"))
        except ProviderUnavailable:
            ended.append("failed")
            assert {"state": "closed", "calls": 1, "failures": 0} == state_of(runtime)

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        group.start_soon(call)
        await anyio.sleep(11)
        await fail(ask, 4)
        await anyio.sleep(9.5)  # the breaker is still open when the first of them is answered
        assert (["late"], "open") == (ended, state_of(runtime)["state"])
        await anyio.sleep(1)
        model.default = "fine"
        await ask("x")
        await ask("x")

    assert ["late", "failed"] == ended
    assert {"state": "closed", "calls": 1, "failures": 0} == state_of(runtime)


# -- whose it is -------------------------------------------------------------------------------------------------------


async def test_c5_steps_that_ask_one_model_share_its_breaker(breaking):
    """C5: what one step learned the other need not pay for."""
    model = scripted(default=down)
    one, other = breaking(model, name="one"), breaking(model, name="other")

    await fail(one, 4)

    await fail(other, 1, CircuitOpen)


async def test_c5_models_and_connections_have_breakers_of_their_own(breaking, runtime):
    """C5: one that is down does not take others with it."""
    ill, well = scripted(default=down, name="scripted/ill"), scripted(default="fine", name="scripted/well")
    same_name = scripted(default="fine", name="scripted/ill")

    await fail(breaking(ill, name="ill"), 4)

    assert "fine" == await breaking(well, name="well")("x")
    assert "fine" == await breaking(same_name, name="elsewhere")("x")
    assert ["closed", "closed", "open"] == sorted(str(one.values["state"]) for one in runtime.stats().states)


async def test_other_options_are_another_breaker(breaking, runtime):
    """Two steps that differ in what they bear count apart, so neither decides for the other."""
    model = scripted(default=down)
    await fail(breaking(model, name="quick"), 4)

    await fail(breaking(model, breaker=CircuitBreaker(), name="patient"), 5)

    assert ["closed", "open"] == sorted(str(one.values["state"]) for one in runtime.stats().states)


async def test_c5_it_can_be_reset(breaking, runtime):
    """C5: by name, by model, all of them; what is under way from before counts for nothing."""
    model = scripted(default=down)
    ask = breaking(model)

    for chosen in ("scripted/model", model, None):
        await fail(ask, 4)
        assert (0, 0) == (
            runtime.reset_breaker("scripted/other"),
            runtime.reset_breaker(Model("scripted/model", base_url="http://elsewhere")),
        )
        assert "open" == state_of(runtime)["state"]

        assert 1 == runtime.reset_breaker(chosen)
        assert {"state": "closed", "calls": 0, "failures": 0} == state_of(runtime)


async def test_the_nearest_declaration_wins(asking, runtime):
    """A setting: one on the step replaces that of the runtime, and `off` takes it out."""
    async with Runtime(policies=[CircuitBreaker(min_calls=1)]):
        await fail(asking(scripted(default=down), QUICK, Retry.off, name="own"), 3)
        await fail(asking(scripted(default=down), CircuitBreaker.off, Retry.off, name="none"), 10)
        inherits = asking(scripted(default=down), Retry.off, name="inherits")
        await fail(inherits, 1)
        await fail(inherits, 1, CircuitOpen)


async def test_a_task_is_behind_a_breaker_that_is_named_on_it(runtime):
    """Its connection errors and time-outs count, and what `on=` names."""

    @task(CircuitBreaker(min_calls=2, on=ArithmeticError))
    async def fetch(kind: str) -> str:
        raise {"connection": ConnectionError, "sum": ZeroDivisionError, "own": ValueError}[kind](kind)

    for kind, error in (("own", ValueError), ("connection", ConnectionError), ("sum", ZeroDivisionError)):
        with pytest.raises(error):
            await fetch(kind)

    with pytest.raises(CircuitOpen, match="task/fetch"):
        await fetch("own")


async def test_every_change_is_told(breaking, runtime):
    """One event each, in order, and a listener may ask for statistics."""
    told = []

    class Listener:
        @hookimpl
        def llmflow_breaker_changed(self, event):
            told.append((event.name, event.old, event.new, state_of(current)["state"]))

    async with Runtime(plugins=[Listener()]) as current:
        model = scripted(default=down)
        ask = breaking(model)
        await fail(ask, 4)
        await anyio.sleep(10)
        await fail(ask, 1)
        await anyio.sleep(10)
        model.default = "fine"
        await ask("x")
        model.default = down
        await fail(ask, 4)
        current.reset_breaker()
        current.reset_breaker()

    changes = [("closed", "open"), ("open", "half_open"), ("half_open", "open"), ("open", "half_open")]
    changes += [("half_open", "closed"), ("closed", "open"), ("open", "closed")]
    assert [("scripted/model", old, new, new) for old, new in changes] == told


# -- clocks, threads, loops --------------------------------------------------------------------------------------------


async def test_c3_a_jump_of_the_wall_clock_changes_nothing(breaking, runtime, monkeypatch):
    """C3, fault 53: only the monotonic clock is asked."""
    model = scripted(default=down)
    ask = breaking(model)
    await fail(ask, 4)

    monkeypatch.setattr(time, "time", lambda: 4e9)
    await fail(ask, 1, CircuitOpen)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    await anyio.sleep(10)
    model.default = "fine"

    assert "fine" == await ask("x")


def test_loops_and_threads_share_one_breaker(asking):
    """What a loop in one thread learned, loops in others know, on asyncio and trio, and each may be the probe."""
    model = scripted(default=down)
    ask = asking(model, CircuitBreaker(min_calls=4, open_for=3600), Retry.off)
    clock = SkippingClock()
    outcomes, lock = [], threading.Lock()

    async def call():
        try:
            outcome = await ask("x")
        except (CircuitOpen, ProviderUnavailable) as error:
            outcome = type(error).__name__
        with lock:
            outcomes.append(outcome)

    def calls(backend):
        # The context holds the runtime, which is not that of the fixture.
        thread = threading.Thread(target=copy_context().run, args=(anyio.run, call), kwargs={"backend": backend})
        thread.start()
        thread.join(120)

    with Runtime(clock=clock) as runtime:
        for backend in ("asyncio", "trio") * 3:
            calls(backend)
        assert ["ProviderUnavailable"] * 4 + ["CircuitOpen"] * 2 == outcomes
        assert 0 < state_of(runtime)["retry_after_s"] <= 3600
        model.default = "fine"
        clock.slept.append(3600)
        calls("trio")

        assert ("fine", "closed") == (outcomes[-1], state_of(runtime)["state"])


def test_a_clock_that_begins_anew_does_not_keep_it_open_for_ever():
    """A loop on virtual time may be behind the one in which it opened: then it waits once more, no longer."""
    seconds = [5_000.0]
    events = []
    breaker = Breaker(
        Model("a/b"), failure_ratio=0.5, window=30, min_calls=1, open_for=10, now=lambda: seconds[0], emit=events.append
    )
    breaker.failed(breaker.epoch)
    seconds[0] = 1_000.0

    with pytest.raises(CircuitOpen) as caught:
        breaker.admit(1_000.0, float("inf"), hedge=False)
    assert 10 == caught.value.retry_after
    breaker.succeeded(breaker.admit(1_010.0, float("inf"), hedge=False))
    breaker.succeeded(breaker.epoch)
    seconds[0] = 500.0
    breaker.succeeded(breaker.epoch)

    assert {"state": "closed", "calls": 1, "failures": 0} == breaker.state().values


def test_who_meets_a_breaker_that_has_closed_since_is_let_through():
    """Between a caller's look and its question another thread may have closed it; and clocks read out of turn are met."""
    seconds = [100.0]
    breaker = Breaker(
        Model("a/b"), failure_ratio=1, window=30, min_calls=9, open_for=10, now=lambda: seconds[0], emit=lambda _: None
    )

    closed_since = breaker.admit(100.0, float("inf"), hedge=True)
    breaker.failed(closed_since)
    seconds[0] = 99.0
    breaker.failed(closed_since)
    seconds[0] = 100.0

    assert {"state": "closed", "calls": 2, "failures": 2} == breaker.state().values


# -- hedges ------------------------------------------------------------------------------------------------------------


def test_a_hedge_is_never_the_probe():
    """It is refused unless the breaker is closed, and leaves the trial to a request of its own."""
    seconds = [0.0]
    breaker = Breaker(
        Model("a/b"),
        failure_ratio=0.5,
        window=30,
        min_calls=1,
        open_for=10,
        now=lambda: seconds[0],
        emit=lambda _: None,
    )
    breaker.failed(breaker.epoch)
    seconds[0] = 20.0

    with pytest.raises(CircuitOpen):
        breaker.admit(20.0, 30.0, hedge=True)

    assert breaker.epoch + 1 == breaker.admit(20.0, 30.0, hedge=False)


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"failure_ratio": 0},
        {"failure_ratio": 1.5},
        {"failure_ratio": True},
        {"failure_ratio": "half"},
        {"failure_ratio": float("nan")},
        {"window": 0},
        {"window": "soon"},
        {"window": float("inf")},
        {"min_calls": 0},
        {"min_calls": 2.5},
        {"open_for": -1},
        {"open_for": 0},
        {"on": "KeyError"},
    ],
    ids=str,
)
def test_absurd_options_are_refused(options):
    """Fault 87: where they are written."""
    with pytest.raises(DefinitionError, match=next(iter(options))):
        CircuitBreaker(**options)


def test_durations_may_be_text():
    """As everywhere."""
    assert CircuitBreaker(window=60, open_for=90) == CircuitBreaker(window="1m", open_for="1m30s")


async def test_a_reply_is_passed_on_as_it_is(breaking):
    """The breaker looks at how a request ended and at nothing else."""
    result = await breaking(scripted(Reply(text="fine", model="m-1"))).run("x")

    assert ("fine", 1) == (result.value, len(result.attempts))
