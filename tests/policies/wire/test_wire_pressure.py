"""CircuitBreaker and Hedge over real connections: what reaches the provider, and which sockets are closed."""

from __future__ import annotations

import asyncio
import time

import anyio
import pytest

from llmflow import (
    BadRequest,
    CircuitBreaker,
    CircuitOpen,
    Hedge,
    InvalidOutput,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    Repair,
    Retry,
    Timeout,
)
from llmflow.testing import _http_faults as faults
from llmflow.testing._http_responses import answer, status

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("closing")]

GOOD = '{"category": "bug", "score": 0.5}'


async def fail(ask, times, kind):
    for _ in range(times):
        with pytest.raises(kind):
            await ask("x")


async def pass_time(clock, seconds):
    """Let the policies' clock move on without waiting."""
    await clock.sleep(seconds)


@pytest.mark.parametrize(
    ("fault", "kind", "patience"),
    [
        (status(500), ProviderUnavailable, 60),
        (status(503), ProviderUnavailable, 60),
        (status(408), ProviderUnavailable, 60),
        (faults.close_without_reply(), ProviderUnavailable, 60),
        (faults.not_http(), ProviderUnavailable, 60),
        (faults.never_answer(), ProviderTimeout, 0.3),
    ],
    ids=["500", "503", "408", "closed", "not http", "silent"],
)
async def test_c1_none_of_fifty_reaches_a_provider_that_is_down(fault, kind, patience, server, model, asking):
    """C1: each of 50 callers is refused without a request, in less than 5 ms."""
    server.default = fault
    ask = asking(model, CircuitBreaker(min_calls=4), Retry.off, Timeout(patience))
    await fail(ask, 4, kind)
    took = []

    for _ in range(50):
        started = time.perf_counter()
        await fail(ask, 1, CircuitOpen)
        took.append(time.perf_counter() - started)

    # On a machine that stood still the time of one may have been up before it was sent.
    assert len(server.requests) == 4 or (len(server.requests) < 4 and kind is ProviderTimeout)
    assert sorted(took)[25] < 0.005


async def test_c2_one_of_fifty_callers_tries_a_provider_that_was_down(server, model, asking, clock):
    """C2, fault 68: the one that is let through is answered, the others are refused meanwhile."""
    server.default = status(503)
    ask = asking(model, CircuitBreaker(min_calls=4, open_for=30), Retry.off)
    await fail(ask, 4, ProviderUnavailable)
    await pass_time(clock, 31)
    server.default = answer(GOOD, delay=0.3)
    outcomes = []

    async def call():
        try:
            outcomes.append((await ask("x")).category)
        except CircuitOpen:
            outcomes.append("refused")

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(call)

    assert (5, ["refused"] * 49 + ["bug"]) == (len(server.requests), outcomes)
    assert "bug" == (await ask("x")).category


@pytest.mark.parametrize(("code", "kind"), [(400, BadRequest), (429, RateLimited)])
async def test_c4_six_mistakes_of_ours_never_open_it(code, kind, server, model, asking):
    """C4, fault 70: all of them reach the provider, and the good one after them as well."""
    server.default = status(code)
    ask = asking(model, CircuitBreaker(min_calls=1), Retry.off)

    await fail(ask, 6, kind)
    server.default = answer(GOOD)

    assert "bug" == (await ask("x")).category
    assert 7 == len(server.requests)


async def test_c4_answers_that_do_not_fit_never_open_it(server, model, asking):
    """C4: the provider answered."""
    server.default = answer("no json")
    ask = asking(model, CircuitBreaker(min_calls=1), Repair.off)

    await fail(ask, 6, InvalidOutput)

    assert 6 == len(server.requests)


async def test_r8_a_probe_that_is_cancelled_leaves_the_trial_to_the_next(
    server, model, asking, clock, closed_by_client
):
    """R8, fault 69: its socket is closed, and the next caller is let through at once."""
    server.default = status(503)
    ask = asking(model, CircuitBreaker(min_calls=4, open_for=30), Retry.off)
    await fail(ask, 4, ProviderUnavailable)
    await pass_time(clock, 31)
    server.default = faults.never_answer()

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "x")
        await anyio.to_thread.run_sync(server.wait_requests, 5)
        group.cancel_scope.cancel()
    await closed_by_client(server.requests[4])
    server.default = answer(GOOD)

    assert "bug" == (await ask("x")).category


async def test_a_slow_first_and_a_quick_second_and_the_loser_s_socket_is_closed(
    server, model, asking, naps, closed_by_client
):
    """R8: the answer comes when the second one gives it, and nothing is left open for the first."""
    server.default = answer(GOOD)
    await asking(model)("warm up")  # so that the first is on its way long before it is slow
    server.enqueue(faults.never_answer(), answer(GOOD, usage=(10, 5)))
    started = time.monotonic()

    async with naps() as counted:
        result = await asking(model, Hedge(0.1), Retry.off).run("x")

    assert ("bug", 1 + 2) == (result.value.category, len(server.requests))
    assert time.monotonic() - started >= 0.1
    assert counted.seconds < 1.5
    await closed_by_client(server.requests[1])
    first, second = sorted(result.attempts, key=lambda one: one.number)
    assert [("cancelled", False), ("ok", True)] == [(one.outcome, one.hedge) for one in (first, second)]
    # What the one that was cut off cost nobody knows, and unknown is not nothing.
    assert (None, None) == (first.cost_usd, result.cost_usd)
    assert second.cost_usd is not None


async def test_the_second_loses_and_its_socket_is_closed(server, model, asking, closed_by_client):
    """The other way round."""

    async def when_both_are_there(exchange):
        while len(server.requests) < 2:
            await asyncio.sleep(0.005)
        await answer(GOOD).send(exchange)

    server.enqueue(faults.Fault(when_both_are_there, "when_both_are_there"), faults.stall_in_body())

    result = await asking(model, Hedge(0.1), Retry.off).run("x")

    assert "bug" == result.value.category
    await closed_by_client(server.requests[1])


async def test_a_quick_failure_is_retried_and_not_hedged(server, model, asking):
    """Each try is a race of its own, and one that ends before it is slow has one request."""
    server.enqueue(status(500), status(503), answer(GOOD))

    result = await asking(model, Hedge(5), Retry(3)).run("x")

    assert ["ProviderUnavailable", "ProviderUnavailable", "ok"] == [one.outcome for one in result.attempts]
    assert [False] * 3 == [one.hedge for one in result.attempts]


async def test_sync_calls_are_hedged_as_well(server, model, asking):
    """They run on a loop of their own, and leave nothing on it."""
    server.enqueue(faults.never_answer(), answer(GOOD))

    assert "bug" == asking(model, Hedge(0.1), Retry.off).sync("x").category
    assert 2 == len(server.requests)
