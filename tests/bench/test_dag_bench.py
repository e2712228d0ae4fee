"""What a flow's graph costs at run time, beside its floors: plain awaits, and a task for each node in a TaskGroup.

Every node is an async function that adds numbers: once without ever waiting, once giving way to the loop, as real work
does. `extra_info` holds the number of nodes to divide by; the goals are 3 µs a node on a chain, and 8 µs a node on a
fan-out and on a layered graph.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import pytest

from llmflow import Runtime, flow, task

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

pytest.importorskip("pytest_benchmark")

Program: TypeAlias = Callable[[int], Awaitable[int]]
Node: TypeAlias = Callable[[list[int]], Awaitable[int]]
Graph: TypeAlias = Sequence[tuple[int, ...]]
"""For each node the nodes it needs; the last one is the result, and nodes without any get the flow's input."""

LARGEST = 1_000_003


async def at_once(values: list[int]) -> int:
    return (sum(values) + 1) % LARGEST


async def after_a_wait(values: list[int]) -> int:
    await asyncio.sleep(0)
    return (sum(values) + 1) % LARGEST


def chain(length: int) -> Graph:
    return [()] + [(index,) for index in range(length - 1)]


def fan(width: int) -> Graph:
    return [*[()] * width, tuple(range(width))]


def layered(width: int, depth: int) -> Graph:
    """Return layers in which each node needs three of the layer before, and a last one that needs the last layer."""
    graph: list[tuple[int, ...]] = [()] * width
    for layer in range(1, depth):
        before = (layer - 1) * width
        graph += [tuple(before + (place + shift) % width for shift in range(3)) for place in range(width)]
    return [*graph, tuple(range(len(graph) - width, len(graph)))]


# -- the same graph, four times ----------------------------------------------------------------------------------------


def plain_awaits(graph: Graph, node: Node) -> Program:
    """One node after the other, by hand."""

    async def run(start: int) -> int:
        values: list[int] = []
        for needs in graph:
            values.append(await node([values[one] for one in needs] or [start]))
        return values[-1]

    return run


def task_group(graph: Graph, node: Node) -> Program:
    """A task for each node, which awaits the tasks it needs."""

    async def run(start: int) -> int:
        tasks: list[asyncio.Task[int]] = []

        async def work(needs: tuple[int, ...]) -> int:
            return await node([await tasks[one] for one in needs] or [start])

        async with asyncio.TaskGroup() as group:
            for needs in graph:
                tasks.append(group.create_task(work(needs)))
        return tasks[-1].result()

    return run


def llmflow(graph: Graph, node: Node) -> Program:
    """A flow of tasks."""
    work = task(name=node.__name__)(node)

    @flow
    async def run(start: int) -> int:
        values: list[int] = []
        for needs in graph:
            values.append(await work([values[one] for one in needs] or [start]))
        return values[-1]

    return run


@pytest.mark.parametrize("node", [at_once, after_a_wait], ids=lambda node: node.__name__)
@pytest.mark.parametrize(
    "program", [plain_awaits, task_group, llmflow], ids=["floor-plain-awaits", "floor-task-group", "llmflow"]
)
@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(chain(3), id="chain-3"),
        pytest.param(chain(1000), id="chain-1000"),
        pytest.param(fan(100), id="fan-100"),
        pytest.param(layered(50, 20), id="layered-1000"),
    ],
)
def test_graph(
    benchmark: BenchmarkFixture,
    request: pytest.FixtureRequest,
    graph: Graph,
    program: Callable[[Graph, Node], Program],
    node: Node,
) -> None:
    """Each way of running a graph gives the same value; the table says what each costs."""
    name = request.node.callspec.id
    benchmark.group = f"{name.rsplit('-', 1)[-1]} {len(graph)}"
    benchmark.extra_info["nodes"] = len(graph)
    run = program(graph, node)

    async def call() -> int:
        return await run(1)

    with Runtime(), asyncio.Runner() as runner:
        runner.run(call())  # traces and binds the flow
        value = benchmark(lambda: runner.run(call()))
        expected = runner.run(plain_awaits(graph, at_once)(1))

    assert expected == value
