"""The shape of a graph: what a run that is taken up again is compared with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from llmflow.graph._ir import Constant, Input, Structure

if TYPE_CHECKING:
    from llmflow.graph._ir import Graph, Node, Operand
    from llmflow.step import Unit

__all__ = ["Shape"]

_DIGITS = 16


class Shape:
    """What of a graph decides which node is which: kinds, names and predecessors, by key.

    Attributes:
        graph: The graph.
        nodes: All of them as JSON: `{"support/draft": ["step", "draft", ["support/triage"]]}`.
        digest: A hash of that.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph: Graph = graph
        keys = {node.index: node.key for node in graph.nodes}
        self._nodes: dict[str, list[Any]] = {
            node.key: [_kind(node), node.name, sorted(keys[index] for index in node.after)] for node in graph.walk()
        }
        self.nodes: str = json.dumps(self._nodes, sort_keys=True, separators=(",", ":"))
        self.digest: str = hashlib.sha256(self.nodes.encode()).hexdigest()[:_DIGITS]

    @property
    def steps(self) -> Mapping[str, Unit[..., Any]]:
        """The steps by key."""
        nodes = self.graph.walk()
        return {node.key: node.unit for node in nodes if node.unit is not None and node.unit.kind == "step"}

    def known(self, inputs: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
        """Yield key and arguments of each call that waits for no other node, as the flow's inputs decide them."""
        for node in self.graph.walk():
            if node.kind == "call" and not node.after:
                try:
                    arguments = {name: _value(operand, inputs) for name, operand in node.inputs.items()}
                except Exception:  # noqa: BLE001, S112  # of a branch that may never be taken; else the run says it
                    continue
                yield node.key, arguments

    def differences(self, nodes: str) -> Iterator[str]:
        """Yield in words what is different in the shape that was."""
        was = cast("dict[str, list[Any]]", json.loads(nodes))
        for key in was.keys() - self._nodes.keys():
            yield f"{was[key][0]} {key!r} is gone"
        for key, (kind, name, after) in self._nodes.items():
            if key not in was:
                yield f"{kind} {key!r} is new"
                continue
            if [kind, name] != was[key][:2]:
                yield f"{key!r} is {kind} {name!r} and was {was[key][0]} {was[key][1]!r}"
            if after != was[key][2]:
                yield f"{key!r} comes after {_said(after)} and came after {_said(was[key][2])}"


def _value(operand: Operand, inputs: Mapping[str, object]) -> Any:
    """Return what an operand is that refers to no node."""
    if isinstance(operand, Constant):
        return operand.value
    if isinstance(operand, Structure):
        items = [_value(item, inputs) for item in operand.items]
        return dict(zip(operand.keys, items, strict=True)) if operand.kind is dict else operand.kind(items)
    assert isinstance(operand, Input)
    value: Any = inputs[operand.name]
    for how, key in operand.path:
        value = getattr(value, key) if how == "attr" else value[key]
    return value


def _kind(node: Node) -> str:
    if node.unit is None:
        return node.kind
    return f"map of {node.unit.kind}" if node.kind == "map" else node.unit.kind


def _said(keys: list[str]) -> str:
    return ", ".join(map(repr, keys)) or "nothing"
