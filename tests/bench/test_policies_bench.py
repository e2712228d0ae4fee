"""What all policies together cost on the happy path, beside the bare call."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
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


class ByHand:
    """The same care for one model, as one would write it for asyncio alone: nothing is recorded, and nobody waits."""

    def __init__(self) -> None:
        self.lock, self.places = threading.Lock(), asyncio.Semaphore(64)
        self.reserved = self.spent = self.failures = self.ended = 0
        self.sent: deque[float] = deque()
        self.latencies: deque[float] = deque(maxlen=256)

    async def __call__(self, message: str) -> Ticket:
        prompt_text = f"Classify {message}"
        loop = asyncio.get_running_loop()
        worst = (len(prompt_text) // 3 + 4096) * 2000
        for attempt in range(3):
            assert self.failures < 10
            with self.lock:
                assert self.spent + self.reserved + worst <= 10**15
                self.reserved += worst
            now = loop.time()
            while self.sent and self.sent[0] <= now - 60:
                self.sent.popleft()
            assert len(self.sent) < 100_000_000
            self.sent.append(now)
            try:
                async with self.places, asyncio.timeout(60):
                    reply = await fake(prompt_text)
            except ConnectionError:
                self.failures += 1
                if attempt == 2:
                    raise
                continue
            finally:
                with self.lock:
                    self.reserved -= worst
            assert reply.usage is not None
            self.spent += (reply.usage.input_tokens or 0) * 1000 + (reply.usage.output_tokens or 0) * 2000
            self.ended += 1
            self.latencies.append(loop.time() - now)
            return Ticket.model_validate_json(reply.text or "")
        raise AssertionError


STEPS: dict[str, Callable[[str], Awaitable[Ticket]]] = {"floor-by-hand": ByHand()}
STEPS |= {"bare": bare, "defaults": defaults, "every policy": every, "cache hit": cached}
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
