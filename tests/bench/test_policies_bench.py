"""What all policies together cost on the happy path, beside the bare call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from pydantic import BaseModel

from llmflow import (
    Budget,
    Bulkhead,
    Cache,
    CircuitBreaker,
    Deadline,
    Fallback,
    Hedge,
    Model,
    Price,
    RateLimit,
    Repair,
    Reply,
    Retry,
    Runtime,
    Timeout,
    Usage,
    prompt,
    step,
)

pytestmark = pytest.mark.benchmark(timer=time.process_time)  # CPU time: the machine is shared

REPLY = Reply(text='{"category":"bug","urgent":true,"score":0.5}', usage=Usage(input_tokens=20, output_tokens=10))
CALLS = 200


class Ticket(BaseModel):
    category: str
    urgent: bool
    score: float


async def fake(request: object) -> Reply:
    return REPLY


MODEL = Model("fake/model", handler=fake, price=Price(input=1, output=2))


@step(MODEL)
def defaults(message: str) -> Ticket:
    return prompt(f"Classify {message}")


bare = defaults.with_(Retry.off, Repair.off, Timeout.off, Deadline.off, Bulkhead.off)
LIMITS = (
    Budget(usd="1000000", per="total"),
    RateLimit(requests=100_000_000, tokens=100_000_000_000),
    CircuitBreaker(),
    Hedge("p95"),
)
ALL = (Retry(3), Repair(2), Timeout(60), Deadline(300), Bulkhead(64), Fallback(MODEL), *LIMITS)
every = defaults.with_(*ALL)
cached = defaults.with_(Cache("1h"))
STEPS = {"bare": bare, "defaults": defaults, "every policy": every, "cache hit": cached}
STEPS |= {f"bare and {type(one).__name__}": bare.with_(one) for one in LIMITS}


@pytest.mark.parametrize("call", STEPS.values(), ids=STEPS.keys())
def test_a_call_under_policies(benchmark, call: Callable[[str], Awaitable[Ticket]]) -> None:
    """One round is 200 calls; the goal is 20 µs for all policies over the bare call, and 20 µs for a hit."""
    benchmark.extra_info["calls per round"] = CALLS

    async def calls() -> Ticket:
        for _ in range(CALLS - 1):
            await call("it crashes")
        return await call("it crashes")

    with Runtime(), asyncio.Runner() as runner:
        runner.run(calls())  # binds the step
        last = benchmark(lambda: runner.run(calls()))

    assert Ticket(category="bug", urgent=True, score=0.5) == last
