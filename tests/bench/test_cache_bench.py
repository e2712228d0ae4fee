"""What a hit costs: a key of all that matters, a look-up, and a fresh validated object."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable

import pytest
from pydantic import BaseModel

from llmflow import Bulkhead, Cache, Deadline, Model, Repair, Retry, Runtime, Timeout, prompt, step

pytestmark = pytest.mark.benchmark(timer=time.process_time)  # CPU time: the machine is shared

ANSWER = '{"category":"bug","urgent":true,"score":0.5}'
CALLS = 200


class Ticket(BaseModel):
    category: str
    urgent: bool
    score: float


async def fake(request: object) -> str:
    return ANSWER


kept: dict[str, str] = {}


async def by_hand(message: str) -> Ticket:
    """What one would write: a hash of the prompt, a dict, pydantic."""
    key = hashlib.sha256(json.dumps(["model", "v1", "schema", f"Classify {message}"]).encode()).hexdigest()
    text = kept.get(key)
    if text is None:
        text = kept[key] = await fake(message)
    return Ticket.model_validate_json(text)


bare = (Retry.off, Repair.off, Timeout.off, Deadline.off, Bulkhead.off)


@step(Model("fake/model", handler=fake), Cache("1h"))
def with_cache(message: str) -> Ticket:
    return prompt(f"Classify {message}")


@pytest.mark.parametrize(
    "call",
    [by_hand, with_cache.with_(Cache.off, *bare), with_cache.with_(*bare), with_cache],
    ids=["floor-by-hand", "floor-a-call-without-policies", "hit", "hit-default-policies"],
)
def test_a_cache_hit_in_memory(benchmark, call: Callable[[str], Awaitable[Ticket]]) -> None:
    """One round is 200 hits, so divide by 200; the goal is 20 µs a hit over nothing but the call itself."""
    measure(benchmark, call, "memory://")


def test_a_cache_hit_in_a_file(benchmark, tmp_path) -> None:
    """The same from SQLite; the floor is `hit` above."""
    measure(benchmark, with_cache, f"sqlite:///{tmp_path}/cache.db")


def measure(benchmark, call, store):
    benchmark.extra_info["calls per round"] = CALLS

    async def calls() -> Ticket:
        for _ in range(CALLS - 1):
            await call("it crashes")
        return await call("it crashes")

    with Runtime(cache=store) as runtime, asyncio.Runner() as runner:
        runner.run(calls())  # binds the step, and fills the cache
        runtime._stores.close()
        last = benchmark(lambda: runner.run(calls()))

    assert Ticket(category="bug", urgent=True, score=0.5) == last
