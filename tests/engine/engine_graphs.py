"""Graphs written by hand, node by node, and run by the engine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

from llmflow.backend import on_asyncio
from llmflow.context import Frame, Run, Scope
from llmflow.engine import LocalEngine
from llmflow.graph import Constant, Graph, Input, Node, Operand, Ref, Structure
from llmflow.step import MapCall, Unit

NEVER = float("inf")


def refs(*operands: Operand | None) -> list[int]:
    """Return the nodes operands take from, in order, each once."""
    found: dict[int, None] = {}
    for operand in operands:
        if isinstance(operand, Ref):
            found[operand.node] = None
        elif isinstance(operand, Structure):
            found.update(dict.fromkeys(refs(*operand.items)))
    return list(found)


class Builder:
    """Collects nodes; every method returns the `Ref` of the one it adds."""

    def __init__(self, *inputs: str, policies: tuple[Any, ...] = ()) -> None:
        self.inputs = inputs
        self.scope = Scope("flow", policies, None)
        self.nodes: list[Node] = []

    def node(self, kind: Any, name: str, *, inputs: Mapping[str, Any] | None = None, **options: Any) -> Node:
        """Return a node that is not in the graph yet, as branches are."""
        operands = {
            key: one if isinstance(one, Constant | Input | Ref | Structure) else Constant(one)
            for key, one in (inputs or {}).items()
        }
        inside = [Ref(index) for branch in options.get("branches", {}).values() for index in branch.after]
        return Node(
            index=-1,
            key=f"flow/{name}",
            kind=kind,
            name=name,
            output=options.pop("output", Any),
            location="app.py:1",
            scope=options.pop("scope", self.scope),
            inputs=operands,
            after=tuple(refs(*operands.values(), options.get("items"), options.get("condition"), *inside)),
            **options,
        )

    def add(self, node: Node) -> Ref:
        node.index = len(self.nodes)
        self.nodes.append(node)
        return Ref(node.index)

    def branch(self, unit: Unit[..., Any], **inputs: Any) -> Node:
        return self.node("call", unit.name, unit=unit, inputs=inputs)

    def call(self, unit: Unit[..., Any], /, *, scope: Scope | None = None, **inputs: Any) -> Ref:
        return self.add(self.node("call", unit.name, unit=unit, inputs=inputs, scope=scope or self.scope))

    def map(self, call: MapCall[Any, Any, Any], items: Operand, **fixed: Any) -> Ref:
        call.discard()
        return self.add(self.node("map", call.unit.name, mapping=call, unit=call.unit, items=items, inputs=fixed))

    def build(self, kind: Any, **fields: Any) -> Ref:
        return self.add(self.node("build", kind.__name__, output=kind, inputs=fields))

    def graph(self, result: Operand) -> Graph:
        return Graph("flow", tuple(self.nodes), result, dict.fromkeys(self.inputs, Any), Any)


def around(deadline: float = NEVER, scope: Scope | None = None) -> Frame:
    return Frame(Run("flow"), scope, deadline)


async def run_graph(graph: Graph, runtime: Any, /, **inputs: object) -> Any:
    """Prepare a graph and run it once; fails when a task is left."""
    before = task_count()
    try:
        return await LocalEngine().prepare(graph, runtime, None)(inputs, around())
    finally:
        assert before == task_count()


def task_count() -> int:
    """Return how many tasks the running loop has."""
    if on_asyncio():
        return len(asyncio.all_tasks())
    return int(sys.modules["trio"].lowlevel.current_statistics().tasks_living)
