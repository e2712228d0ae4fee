"""The graph of a flow as data: nodes, and operands that say where a node's inputs come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from llmflow.context import Scope
    from llmflow.step import MapCall, Unit

__all__ = ["Constant", "Graph", "Input", "Node", "Operand", "Ref", "Structure"]


@dataclass(frozen=True, slots=True)
class Constant:
    """A value known while the flow was traced."""

    value: object


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
    """A list, tuple or dict literal with placeholders in it."""

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
        kind: `call` runs `unit` with `inputs`; `map` fans `mapping` out over the operand `items`; `when` and `switch`
            run one of `branches`, chosen by the operand `condition`; `or_else` runs the branch `call` and, when it fails with
            one of `errors`, the branch `otherwise` or the operand `items`; `build` constructs `output` from `inputs`.
        after: Indices of the nodes whose values are needed, branches included, without repetition.
        branches: For conditional nodes the calls that may run; they are not in the graph's own list.
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
    inputs: Mapping[str, Operand] = field(default_factory=dict)
    mapping: MapCall[Any, Any, Any] | None = None
    items: Operand | None = None
    condition: Operand | None = None
    branches: Mapping[Any, Node] = field(default_factory=dict)
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
