"""What listeners are told, what is counted, and what a listener that fails cannot do."""

from __future__ import annotations

import logging
from collections import Counter

import anyio
import pytest

from llmflow import (
    BadRequest,
    Budget,
    BudgetExceeded,
    Cache,
    CircuitBreaker,
    Fallback,
    Price,
    ProviderUnavailable,
    QuotaExceeded,
    Repair,
    Retry,
    Runtime,
    Usage,
    events,
    hookimpl,
    prompt,
    step,
)
from llmflow.signals import HOOK_OF
from llmflow.testing._scripted import after, hang, scripted
from llmflow.testing._time import virtual_backend

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    """Both backends, on virtual time."""
    return virtual_backend(request.param)


def listening(*hooks):
    """Make a plugin that keeps every event of these hooks, and its list."""
    heard = []

    class Listener:
        pass

    for hook in hooks or HOOK_OF.values():

        def hear(self, event):
            heard.append(event)

        hear.__name__ = hook
        setattr(Listener, hook, hookimpl(hear))
    return Listener(), heard


def asking(model, *policies, name="ask", returns=int):
    def ask(word):
        return prompt(word)

    ask.__annotations__ = {"word": str, "return": returns}
    return step(model, *policies, name=name)(ask)


def kinds(heard):
    return [type(event).__name__ for event in heard]


async def test_every_event_of_a_good_call_once_and_in_order():
    """Run, call, attempt, and back."""
    listener, heard = listening()

    async with Runtime(plugins=[listener]):
        result = await asking(scripted(after(2, "4"), usage=Usage(input_tokens=10, output_tokens=5))).run("x")

    assert ["RunStarted", "CallStarted", "AttemptStarted", "AttemptFinished", "CallFinished", "RunFinished"] == kinds(
        heard
    )
    assert {result.run_id} == {event.run_id for event in heard}
    started, finished = heard[2], heard[3]
    assert ("scripted/model", 1, "ok", 2.0, 10) == (
        started.model,
        finished.number,
        finished.outcome,
        pytest.approx(finished.latency_s),
        finished.usage.input_tokens,
    )
    call = heard[4]
    assert (1, 0, "scripted/model", None, False) == (call.attempts, call.reasks, call.model, call.error, call.repaired)
    assert ("ask", None, 2.0) == (heard[5].target, heard[5].error, pytest.approx(heard[5].latency_s))
    assert 1 == len({event.call_id for event in heard[1:5]})


async def test_every_event_of_a_hard_call():
    """A retry, two re-asks and a fallback, each told once with what it was about."""
    listener, heard = listening()
    unavailable = ProviderUnavailable("503", status=503)
    primary = scripted(unavailable, "junk", "junk", "junk", name="scripted/a")
    fallback = scripted("4", name="scripted/b")

    async with Runtime(plugins=[listener]):
        await asking(primary, Fallback(fallback), Retry(2), Repair(2))("x")

    assert Counter(
        RunStarted=1,
        CallStarted=1,
        AttemptStarted=5,
        AttemptFinished=5,
        RetryScheduled=1,
        FallbackTaken=1,
        CallFinished=1,
        RunFinished=1,
    ) == Counter(kinds(heard))
    (retry,) = [event for event in heard if isinstance(event, events.RetryScheduled)]
    assert ("scripted/a", 1, unavailable) == (retry.model, retry.attempt, retry.error)
    assert 0 <= retry.wait_s <= 0.5
    (taken,) = [event for event in heard if isinstance(event, events.FallbackTaken)]
    assert ("scripted/a", "scripted/b", "InvalidOutput") == (
        taken.from_model,
        taken.to_model,
        type(taken.error).__name__,
    )
    attempts = [event for event in heard if isinstance(event, events.AttemptFinished)]
    assert [(1, "ProviderUnavailable", 503), (2, "ok", None), (3, "ok", None), (4, "ok", None), (5, "ok", None)] == [
        (event.number, event.outcome, event.status) for event in attempts
    ]
    (call,) = [event for event in heard if isinstance(event, events.CallFinished)]
    assert (5, 2, "scripted/b", None) == (call.attempts, call.reasks, call.model, call.error)


async def test_a_failed_call_is_told_with_its_error():
    """By the name of its class, on the call and on the run."""
    listener, heard = listening()

    async with Runtime(plugins=[listener]):
        with pytest.raises(BadRequest):
            await asking(scripted(BadRequest("400")))("x")

    assert ["BadRequest", "BadRequest"] == [one.error for one in heard if hasattr(one, "error")]


async def test_a_cancelled_call_is_told_as_cancelled():
    """Also the attempt and the run."""
    listener, heard = listening()

    async with Runtime(plugins=[listener]):
        with anyio.move_on_after(1):
            await asking(scripted(hang()))("x")

    finished = [event for event in heard if type(event).__name__.endswith("Finished")]
    assert ["cancelled"] * 3 == [getattr(event, "outcome", None) or event.error for event in finished]


async def test_events_hold_neither_prompt_nor_answer():
    """They may be sent anywhere."""
    listener, heard = listening()

    async with Runtime(plugins=[listener]):
        await asking(scripted("the answer"), returns=str)("the question")

    assert "the question" not in repr(heard)
    assert "the answer" not in repr(heard)


async def test_a_hook_may_leave_its_argument_out():
    """pluggy's rule holds."""
    calls = []

    class Listener:
        @hookimpl
        def llmflow_call_finished(self):
            calls.append(1)

    async with Runtime(plugins=[Listener()]):
        await asking(scripted("4"))("x")

    assert [1] == calls


@pytest.mark.parametrize("hook", sorted(HOOK_OF.values()))
async def test_d5_a_failing_listener_is_logged_once_and_breaks_nothing(hook, caplog):
    """D5, fault 84: whichever hook fails, the call goes on; one line names the plugin and the hook."""

    class Clumsy:
        pass

    def fail(self, event):
        raise RuntimeError("cannot listen")

    fail.__name__ = hook
    setattr(Clumsy, hook, hookimpl(fail))
    primary = scripted(ProviderUnavailable("503"), QuotaExceeded("quota"), default=QuotaExceeded("quota"))

    with caplog.at_level(logging.ERROR, logger="llmflow"):
        async with Runtime(plugins=[Clumsy()]) as runtime:
            ask = asking(primary, Fallback(scripted(default="4")), Cache("1h"), CircuitBreaker(min_calls=1))
            for _ in range(3):
                assert 4 == await ask("x")
            poor = asking(scripted("4"), Budget(calls=1, per="total"), name="poor")
            await poor("x")
            with pytest.raises(BudgetExceeded):
                await poor("y")

    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert 1 == len(lines)
    assert "Clumsy" in lines[0]
    assert hook in lines[0]
    assert 3 == runtime.stats().steps["ask"].calls


async def test_a_failing_listener_hides_nothing_from_the_others():
    """Everybody else is told."""
    listener, heard = listening("llmflow_call_finished")

    class Clumsy:
        @hookimpl
        def llmflow_call_finished(self, event):
            raise RuntimeError("cannot listen")

    async with Runtime(plugins=[Clumsy(), listener, Clumsy()]):
        await asking(scripted("4"))("x")

    assert 1 == len(heard)


async def test_stats_count_operations_and_attempts_apart():
    """Calls by step, requests by model, errors by kind, tokens, dollars and percentiles."""
    price, usage = Price(input=1, output=2), Usage(input_tokens=10, output_tokens=5)
    primary = scripted(
        ProviderUnavailable("503"), after(2, "4"), "junk", after(1, "4"), name="scripted/a", price=price, usage=usage
    )
    ask = asking(primary, Retry(2, wait_initial=0))

    async with Runtime() as runtime:
        await ask("x")
        await ask("x")
        primary.enqueue(BadRequest("400"))
        with pytest.raises(BadRequest):
            await ask("x")
        stats = runtime.stats()

    one = stats.steps["ask"]
    assert (3, 5, 1, 1, 1, 0) == (one.calls, one.attempts, one.reasks, one.repaired, one.retries, one.fallbacks)
    assert {"BadRequest": 1} == one.errors
    assert (1.0, 2.0, 2.0) == pytest.approx((one.latency_s.p50, one.latency_s.p95, one.latency_s.p99))
    model = stats.models["scripted/a"]
    assert (5, {"ProviderUnavailable": 1, "BadRequest": 1}) == (model.attempts, model.errors)
    assert (30, 15, 2) == (model.input_tokens, model.output_tokens, model.unpriced)
    assert "0.00006" == str(model.cost_usd.normalize())
    assert 2 == one.unpriced


async def test_stats_fit_json(runtime):
    """With decimals as text."""
    import json

    await asking(scripted("4"))("x")

    assert "ask" in json.loads(json.dumps(runtime.stats().to_dict()))["steps"]


async def test_a_map_is_a_run_that_is_told():
    """Once started and once finished, whatever the number of items."""
    listener, heard = listening("llmflow_run_started", "llmflow_run_finished")

    async with Runtime(plugins=[listener]):
        await asking(scripted(default="4")).map(["a", "b", "c"])

    assert ["RunStarted", "RunFinished"] == kinds(heard)
