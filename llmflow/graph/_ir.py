"""The graph of a flow as data: nodes, and operands that say where a node's inputs come from."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from llmflow.step import MapCall

if TYPE_CHECKING:
    from llmflow.context import Scope
    from llmflow.step import Unit

__all__ = ["DEFAULT", "Constant", "Graph", "Input", "Node", "Operand", "Ref", "Structure", "map_call"]


class _Default(Enum):
    DEFAULT = "default"

    def __repr__(self) -> str:
        return "default"


DEFAULT = _Default.DEFAULT
"""The key of the branch that a `switch` takes when no other key equals the value."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A value known while the flow was traced.

    Attributes:
        shared: Whether it was there before the body ran, such as a client at module level: every run uses that very
            object. What the body itself made is made anew for each run.
    """

    value: object
    shared: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Input:
    """A parameter of the flow, or something inside it; `path` holds `("attr", name)` and `("item", key)` steps."""

    name: str
    path: tuple[tuple[Literal["attr", "item"], Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Ref:
    """The value of a node, or something inside it."""

    node: int
    path: tuple[tuple[Literal["attr", "item"], Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Structure:
    """A list, tuple or dict that is made anew in every run, so that no run sees what another did to it."""

    kind: type[Any]
    """`list`, `tuple` or `dict`."""
    items: tuple[Operand, ...]
    keys: tuple[object, ...] = ()


Operand: TypeAlias = Constant | Input | Ref | Structure


@dataclass(slots=True, eq=False)
class Node:
    """One thing to do.

    Attributes:
        index: Position in the graph; every operand refers to smaller indices.
        key: Deterministic identity: the path of flows, the unit's name and its occurrence (`support/draft#2`).
        kind: `call` runs `unit` with `inputs`; `map` fans `mapping` out over the operand `items`, with `inputs` as further
            fixed arguments (see `map_call`); `when` runs the branch True or False, by the truth of the operand
            `condition`; `switch` runs the branch whose key equals it, else the branch `DEFAULT`; `or_else` runs the branch
            `"call"` and, when it fails with one of `errors`, the branch `"otherwise"` if there is one, else its value is
            the operand `items`; `build` calls `output` with `inputs` by name.
        after: Indices of the nodes whose values are needed, branches included, without repetition.
        branches: For conditional nodes what may run. These nodes are not in the graph's own list and have the index -1;
            nothing refers to them, and their operands refer to nodes of the graph.
        location: `file:line` of the call, for errors and plans.
    """

    index: int
    key: str
    kind: Literal["call", "map", "when", "switch", "or_else", "build"]
    name: str
    output: Any
    location: str
    scope: Scope
    unit: Unit[..., Any] | None = None
    inputs: Mapping[str, Operand] = field(default_factory=dict[str, Operand])
    mapping: MapCall[Any, Any, Any] | None = None
    items: Operand | None = None
    condition: Operand | None = None
    branches: Mapping[Any, Node] = field(default_factory=dict[Any, Any])
    errors: tuple[type[BaseException], ...] = ()
    after: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class Graph:
    """What a flow does, as found by tracing it once.

    Attributes:
        name: The flow's name.
        nodes: In an order in which every node comes after those it needs.
        result: Where the flow's value comes from.
        inputs: The flow's parameters and their types.
        constants: What the body computed while it was traced, such as `date.today()`: it is the same in every run.
    """

    name: str
    nodes: tuple[Node, ...]
    result: Operand
    inputs: Mapping[str, Any]
    output: Any
    constants: tuple[tuple[str, object], ...] = ()

    def walk(self) -> Iterator[Node]:
        """Yield every node, those of branches included, each behind the node it is a branch of."""
        for node in self.nodes:
            yield from _with_branches(node)

    def units(self) -> Iterator[Unit[..., Any]]:
        """Yield the steps, tasks and flows that the nodes run."""
        return (node.unit for node in self.walk() if node.unit is not None)


def _with_branches(node: Node) -> Iterator[Node]:
    yield node
    for branch in node.branches.values():
        yield from _with_branches(branch)


def map_call(node: Node, items: object, fixed: Mapping[str, object]) -> MapCall[Any, Any, Any]:
    """Return the map of a node, ready to be awaited, over real items and with the fixed arguments that are now known."""
    assert node.mapping is not None
    given, unit = node.mapping, node.mapping.unit
    if fixed:
        unit = copy.copy(unit)
        unit.fixed = {**unit.fixed, **fixed}
    return MapCall(
        unit,
        items,
        spread=given.spread,
        concurrency=given.concurrency,
        on_error="collect" if given.collect else "raise",
        key=given.key,
    )
