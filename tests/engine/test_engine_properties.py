"""Laws that hold for any graph, with delays and failures anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from llmflow.graph import Constant, Graph, Ref, Structure, task
from llmflow.runtime import Runtime

from .engine_graphs import Builder, run_graph

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Spec:
    """A node: which nodes it needs, how often it waits before it ends, and how it ends."""

    needs: tuple[int, ...]
    pauses: int
    fails: bool


@st.composite
def specs(draw: st.DrawFn, *, failing: bool) -> list[Spec]:
    """Draw a graph as a list of nodes that only need earlier ones."""
    size = draw(st.integers(1, 30))
    return [
        Spec(
            needs=tuple(sorted(draw(st.sets(st.integers(0, index - 1), max_size=4)))) if index else (),
            pauses=draw(st.integers(0, 4)),
            fails=failing and draw(st.integers(0, 5)) == 0,
        )
        for index in range(size)
    ]


class Trial(Exception):
    """A failure that was drawn."""


class World:
    """The tasks of one graph, and what they did."""

    def __init__(self, nodes: list[Spec]) -> None:
        self.nodes = nodes
        self.started: list[int] = []
        self.ended: list[int] = []
        self.failures: list[Trial] = []

    def graph(self) -> Graph:
        @task
        async def work(index: int, values: list[int]) -> int:
            spec = self.nodes[index]
            self.started.append(index)
            assert set(spec.needs) <= set(self.ended)
            for _ in range(spec.pauses):
                await checkpoint()
            if spec.fails:
                self.failures.append(Trial(index))
                raise self.failures[-1]
            self.ended.append(index)
            return combine(index, values)

        flow = Builder()
        for index, spec in enumerate(self.nodes):
            flow.call(work, index=Constant(index), values=Structure(list, tuple(map(Ref, spec.needs))))
        return flow.graph(Structure(list, tuple(Ref(index) for index in range(len(self.nodes)))))


def combine(index: int, values: list[int]) -> int:
    return (index * 31 + sum(one * (place + 7) for place, one in enumerate(values))) % 1_000_003


def interpret(nodes: list[Spec]) -> list[int]:
    """Return the values as one loop over the nodes gives them."""
    values: list[int] = []
    for index, spec in enumerate(nodes):
        values.append(combine(index, [values[one] for one in spec.needs]))
    return values


@given(nodes=specs(failing=False))
@settings(max_examples=150, deadline=None)
async def test_any_graph_gives_what_running_it_in_order_gives(nodes: list[Spec]) -> None:
    """Every node runs once, after those it needs, and the values are those of a sequential interpreter."""
    world = World(nodes)
    found: Any = await run_graph(world.graph(), _runtime)

    assert interpret(nodes) == found
    assert list(range(len(nodes))) == sorted(world.started)


@given(nodes=specs(failing=True))
@settings(max_examples=150, deadline=None)
async def test_exactly_one_failure_leaves(nodes: list[Spec]) -> None:
    """The first failure leaves as the object it is; without one there is a value. `run_graph` counts the tasks."""
    world = World(nodes)
    try:
        found = await run_graph(world.graph(), _runtime)
    except Trial as error:
        assert world.failures[0] is error
    else:
        assert interpret(nodes) == found
        assert not any(one.fails for one in nodes)

    assert len(world.started) == len(set(world.started))


_runtime = Runtime()
