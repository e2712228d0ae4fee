"""Ten thousand items take the memory of their values, and a bounded number of tasks."""

from __future__ import annotations

import tracemalloc

import pytest
from anyio.lowlevel import checkpoint

from llmflow.graph import flow, task
from llmflow.runtime import Runtime

from .engine_graphs import task_count

pytestmark = pytest.mark.anyio

ITEMS = 10_000
MEGABYTE = 2**20


@pytest.mark.slow
async def test_map_over_ten_thousand_items(runtime: Runtime) -> None:
    """At no moment it takes 100 MB more than before, and never more tasks than its concurrency."""
    most_tasks = 0

    @task
    async def grow(number: int) -> str:
        nonlocal most_tasks
        for _ in range(2):
            await checkpoint()
        if number % 100 == 0:
            most_tasks = max(most_tasks, task_count())
        return f"{number:0100}"

    @task
    async def size(texts: list[str]) -> int:
        return sum(map(len, texts))

    @flow
    async def both(numbers: list[int]) -> int:
        return await size(await grow.map(numbers, concurrency=16))

    before = task_count()
    await both([1])
    tracemalloc.start()
    try:
        total = await both(list(range(ITEMS)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert 100 * ITEMS == total
    assert peak < 100 * MEGABYTE
    assert most_tasks <= before + 17


@pytest.mark.slow
async def test_wide_flow_releases_what_it_has_used(runtime: Runtime) -> None:
    """A thousand values of a megabyte each pass through a chain, and only a few are ever there together."""

    @task
    async def replace(block: bytes) -> bytes:
        await checkpoint()
        return bytes(len(block))

    @flow
    async def pass_on(block: bytes) -> bytes:
        for _ in range(1000):
            block = await replace(block)
        return block

    await pass_on(b"")
    tracemalloc.start()
    try:
        await pass_on(bytes(MEGABYTE))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 6 * MEGABYTE
