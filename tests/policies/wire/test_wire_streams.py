"""Streams over real connections, through every layer: what the provider sees, what is left, what it costs."""

from __future__ import annotations

import asyncio
import sys
from decimal import Decimal

import anyio
import pytest

from llmflow import (
    Budget,
    Bulkhead,
    CircuitBreaker,
    Fallback,
    Final,
    Model,
    Price,
    ProviderTimeout,
    RateLimit,
    Restarted,
    Retry,
    Runtime,
    Timeout,
)
from llmflow.testing import answer, streamed
from llmflow.testing._http_responses import status

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("closing")]

TICKET = '{"category": "bug", "score": 0.5}'
POLICIES = (Retry(3, wait_initial=0.01), CircuitBreaker(), RateLimit(1000), Bulkhead(1))


@pytest.fixture
def runtime(monkeypatch):
    """A runtime on the real clock: what is measured here is real time."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Runtime(seed=1) as made:
        yield made


def running() -> int:
    """How many tasks the event loop has, apart from those of the loop itself."""
    if "trio" in sys.modules and sys.modules["trio"].lowlevel.in_trio_run():
        return sys.modules["trio"].lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())


async def test_a_stream_through_every_layer(server, model, asking, runtime):
    """The server sees one request for a stream; the cost is that of the same answer in one piece."""
    server.default = answer(TICKET, usage=(1000, 100))
    triage = asking(model, *POLICIES, Budget(usd="0.10"))
    whole = await triage.run("x")

    async with triage.stream("x") as stream:
        seen = [snapshot.model_dump() async for snapshot in stream]

    assert {"category": "bug", "score": 0.5} == seen[-1]
    assert whole.value == stream.result.value
    assert Decimal("0.0012") == whole.cost_usd == stream.result.cost_usd
    assert [None, True] == [one.json.get("stream") for one in server.requests]


@pytest.mark.parametrize("name", ["openai/gpt-x", "anthropic/claude-x", "google/gemini-x"])
async def test_r8_leaving_a_stream_closes_its_socket_and_settles_its_cost(name, server, asking, runtime, until):
    """R8: within a second the socket is closed, no task is left, the place is free, and the budget has kept the worst."""
    model = Model(name, base_url=server.base_url, api_key="sk-test-0123456789", price=Price(input=1, output=1000))
    server.default = streamed("word " * 2000, size=5, interval=0.005)
    story = asking(model, *POLICIES, Budget(usd="10", per="total", name="purse"), returns=str)
    async with story.stream("warm up") as stream:
        await anext(aiter(stream))
    before = running()

    async with story.stream("x") as stream:
        async for _ in stream:
            break

    call = stream._feed.call
    assert ["cancelled"] == [one.outcome for one in call.attempts]
    assert call.attempts[0].cost_usd is None
    await until(lambda: all(one.closed_by_client_at is not None for one in server.requests))
    await until(lambda: running() <= before)
    (purse,) = (one for one in runtime.stats().states if one.name == "purse")
    assert "8.19" in repr(purse)  # twice 4,096 tokens at a thousand dollars a million
    server.default = answer("ok")
    assert "ok" == await story.with_(Budget.off)("y")


async def test_43_every_fault_in_the_middle_restarts(server, model, asking):
    """Fault 43: whatever breaks, the next request's answer is taken whole, and the restart is said."""
    for fault in ("reset", "end", "error", "junk", "stall"):
        # Only a stall is ended by the timeout; the whole answer behind it must not be.
        story = asking(model, Retry(2, wait_initial=0.01), Timeout(2 if fault == "stall" else 60), returns=str)
        server.enqueue(streamed("broken " * 10, fault=fault, after=4), streamed("whole " * 3))

        async with story.stream(fault) as stream:
            events = [event async for event in stream.events()]

        assert 1 == sum(isinstance(one, Restarted) for one in events)
        assert Final("whole " * 3) == events[-1]
        assert [None, "ok"] == [one.outcome if one.outcome == "ok" else None for one in stream.result.attempts]


async def test_a_fallback_takes_over_in_the_middle(server, model, asking):
    """The other provider's answer begins anew."""
    other = Model("anthropic/claude-x", base_url=server.base_url, api_key="sk-test-0123456789")
    server.enqueue(streamed("broken " * 10, fault="reset", after=4), streamed("whole"))

    async with asking(model, Retry.off, Fallback(other), returns=str).stream("x") as stream:
        assert "whole" == await stream.final()

    assert "anthropic/claude-x" == stream.result.model
    assert [False, True] == [one.path.endswith("/messages") for one in server.requests]


async def test_r3_a_drip_is_ended_on_time(server, model, asking, naps):
    """R3: events for ever, each of them in time: the attempt ends within a quarter of a second of its timeout."""
    server.default = streamed("x" * 100_000, size=1, interval=0.05)

    async with naps() as counted, asking(model, Timeout(0.6), Retry.off, returns=str).stream("x") as stream:
        with pytest.raises(ProviderTimeout):
            await stream.final()

    assert counted.seconds < 0.6 + 0.25 + 0.5  # and the time to connect on a busy machine


async def test_r3_a_slow_reader_does_not_run_into_the_timeout(server, model, asking):
    """R3: the clock stands still while the reader is slow."""
    server.default = streamed("word " * 40, size=5)

    async with asking(model, Timeout(1), Retry.off, returns=str).stream("x") as stream:
        async for _ in stream:
            await anyio.sleep(0.05)

    assert "word " * 40 == stream.result.value


async def test_an_answer_that_does_not_fit_is_asked_for_again(server, model, asking):
    """The second request has instructor's turns in it, built from what was streamed."""
    server.enqueue(answer('{"category": "spam", "score": 1}'), answer(TICKET))

    async with asking(model).stream("x") as stream:
        value = await stream.final()

    assert "bug" == value.category
    assert len(server.requests[1].json["messages"]) > len(server.requests[0].json["messages"])


async def test_an_error_status_is_retried_before_anything_is_shown(server, model, asking):
    """A 503 before the first event is an ordinary failure: no restart is said."""
    server.enqueue(status(503), streamed("fine"))

    async with asking(model, Retry(2, wait_initial=0.01), returns=str).stream("x") as stream:
        events = [event async for event in stream.events()]

    assert [] == [one for one in events if isinstance(one, Restarted)]
    assert Final("fine") == events[-1]
