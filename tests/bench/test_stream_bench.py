"""What a streamed piece costs from the provider's sink to the reader, with default policies on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from pydantic import BaseModel

from llmflow import Chunk, Model, Request, Runtime, Stream, prompt, step

pytestmark = pytest.mark.benchmark(timer=time.process_time)  # CPU time: the machine is shared

PIECES = 1000
TEXT = '{"rows": [' + ", ".join(f'"row {n:04}"' for n in range(PIECES)) + "]}"
PARTS = [TEXT[at : at + 12] for at in range(0, len(TEXT), 12)]


class Rows(BaseModel):
    rows: list[str]


async def fake(request: Request) -> str:
    assert request.sink is not None
    for part in PARTS:
        await request.sink(Chunk(part, 1))
        await asyncio.sleep(0)  # as from a network: one piece a turn of the loop
    return TEXT


@step(Model("fake/model", handler=fake))
def text(message: str) -> str:
    return prompt(f"Tell {message}")


@step(Model("fake/model", handler=fake))
def rows(message: str) -> Rows:
    return prompt(f"Tell {message}")


async def read(stream: Stream[str] | Stream[Rows]) -> int:
    async with stream:
        return len([snapshot async for snapshot in stream])


async def by_hand() -> int:
    """A task that asks, a bounded queue, and a reader that puts the text together."""
    queue: asyncio.Queue[str | None] = asyncio.Queue(16)

    async def ask() -> None:
        for part in PARTS:
            await queue.put(part)
            await asyncio.sleep(0)
        await queue.put(None)

    asking = asyncio.create_task(ask())
    so_far, seen = "", 0
    while (part := await queue.get()) is not None:
        so_far, seen = so_far + part, seen + 1
    await asking
    assert so_far == TEXT
    return seen


@pytest.mark.parametrize(
    "stream",
    [by_hand, lambda: read(text.stream("it crashes")), lambda: read(rows.stream("it crashes"))],
    ids=["floor-by-hand", "text", "model"],
)
def test_a_stream_of_a_thousand_pieces(benchmark, stream: Callable[[], Coroutine[Any, Any, int]]) -> None:
    """One round is a thousand pieces, so divide by 1,000."""
    benchmark.extra_info["pieces per round"] = len(PARTS)

    with Runtime(), asyncio.Runner() as runner:
        runner.run(stream())  # binds the step
        count = benchmark(lambda: runner.run(stream()))

    assert 100 < count <= len(PARTS)
