"""What a typed call costs beside a hand-written one: build the prompt, ask a function, validate the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from pydantic import BaseModel

from llmflow import Bulkhead, Deadline, Fallback, Model, Repair, Retry, Runtime, Timeout, prompt, step

pytestmark = pytest.mark.benchmark(timer=time.process_time)  # CPU time: the machine is shared

ANSWER = '{"category":"bug","urgent":true,"score":0.5}'
CALLS = 200


class Ticket(BaseModel):
    category: str
    urgent: bool
    score: float


async def fake(request: object) -> str:
    return ANSWER


async def by_hand(message: str) -> Ticket:
    return Ticket.model_validate_json(await fake(f"Classify {message}"))


@step(Model("fake/model", handler=fake))
def with_defaults(message: str) -> Ticket:
    return prompt(f"Classify {message}")


with_every_policy = with_defaults.with_(
    Retry(4), Repair(1), Timeout(30), Deadline(100), Bulkhead(64), Fallback(Model("fake/other", handler=fake))
)
with_none = with_defaults.with_(Retry.off, Repair.off, Timeout.off, Deadline.off, Bulkhead.off)


@pytest.mark.parametrize(
    "call",
    [by_hand, with_none, with_defaults, with_every_policy],
    ids=["floor-by-hand", "no-policies", "default-policies", "every-policy"],
)
def test_a_typed_call_to_a_model_in_the_process(benchmark, call: Callable[[str], Awaitable[Ticket]]) -> None:
    """One round is 200 calls, so divide by 200; the goal is 40 µs a call with default policies on."""
    benchmark.extra_info["calls per round"] = CALLS

    async def calls() -> Ticket:
        for _ in range(CALLS - 1):
            await call("it crashes")
        return await call("it crashes")

    with Runtime(), asyncio.Runner() as runner:
        runner.run(calls())  # binds the step
        last = benchmark(lambda: runner.run(calls()))

    assert Ticket(category="bug", urgent=True, score=0.5) == last


def test_mapping_a_thousand_calls(benchmark) -> None:
    """One round is 1,000 mapped calls, 16 at a time; the floor is `floor-by-hand` above, five times over."""
    items = [str(number) for number in range(1_000)]

    async def calls() -> list[Ticket]:
        return await with_defaults.map(items)

    with Runtime(), asyncio.Runner() as runner:
        values = benchmark(lambda: runner.run(calls()))

    assert 1_000 == len(values)
