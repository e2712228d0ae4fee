"""What a streamed piece costs from the provider's sink to the reader, with default policies on."""

from __future__ import annotations

import asyncio
import time

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


@pytest.mark.parametrize("unit", [text, rows], ids=["text", "model"])
def test_a_stream_of_a_thousand_pieces(benchmark, unit) -> None:
    """One round is a thousand pieces, so divide by 1,000."""
    benchmark.extra_info["pieces per round"] = len(PARTS)

    async def stream() -> int:
        return await read(unit.stream("it crashes"))

    with Runtime(), asyncio.Runner() as runner:
        runner.run(stream())  # binds the step
        count = benchmark(lambda: runner.run(stream()))

    assert 100 < count <= len(PARTS)
