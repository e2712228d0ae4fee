"""A graph as boxes and arrows, before anybody decides how they look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from llmflow.graph._ir import DEFAULT, Graph, Input, Node, Operand, Ref
from llmflow.graph._operands import values_in
from llmflow.graph._types import display

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Arrow", "Box", "Drawing", "draw"]

Shape = Literal["input", "node", "choice", "result"]


@dataclass(frozen=True, slots=True)
class Box:
    """Something to draw: a title, a line below it, and what kind of thing it is."""

    id: str
    title: str
    subtitle: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Arrow:
    """From one box to another; dashed when it depends on a choice."""

    source: str
    target: str
    label: str = ""
    dashed: bool = False


@dataclass(slots=True)
class Drawing:
    """Boxes in an order in which every arrow points forward."""

    boxes: list[Box] = field(default_factory=list[Box])
    arrows: list[Arrow] = field(default_factory=list[Arrow])


def draw(graph: Graph) -> Drawing:
    """Return the boxes and arrows of a graph; the same graph always gives the same drawing."""
    return _Artist(graph).draw()


class _Artist:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._drawing = Drawing()
        self._ends: dict[int, list[str]] = {}
        """For each node the boxes that its value comes out of: those of the branches, for a choice."""

    def draw(self) -> Drawing:
        for name, annotation in self._graph.inputs.items():
            self._drawing.boxes.append(Box(f"in_{name}", name, display(annotation), "input"))
        for node in self._graph.nodes:
            self._ends[node.index] = self._node(node, f"n{node.index}")
        self._drawing.boxes.append(Box("result", "result", display(self._graph.output), "result"))
        self._connect([self._graph.result], "result")
        return self._drawing

    def _node(self, node: Node, identity: str) -> list[str]:
        """Draw a node and what may run in its place, and return the boxes its value comes out of."""
        self._drawing.boxes.append(
            Box(identity, _title(self._graph, node), _subtitle(node), "choice" if node.branches else "node")
        )
        value = node.items if node.kind == "map" else None
        self._connect([*node.inputs.values(), *(one for one in (value, node.condition) if one is not None)], identity)
        ends: list[str] = []
        for number, (key, branch) in enumerate(node.branches.items()):
            inside = f"{identity}_{number}"
            ends.extend(self._node(branch, inside))
            self._drawing.arrows.append(Arrow(identity, inside, _choice(node, key), dashed=True))
        if node.kind == "or_else" and node.items is not None:
            self._connect([node.items], identity)
            ends.append(identity)
        return ends or [identity]

    def _connect(self, operands: Iterable[Operand], target: str) -> None:
        """Draw an arrow from each box that something is taken from, with all that is taken from it."""
        labels: dict[str, list[str]] = {}
        for operand in operands:
            for value in values_in(operand):
                for source in self._sources(value):
                    label = _path(value)
                    known = labels.setdefault(source, [])
                    if label and label not in known:
                        known.append(label)
        self._drawing.arrows.extend(Arrow(source, target, ", ".join(known)) for source, known in labels.items())

    def _sources(self, value: Input | Ref) -> Iterator[str]:
        if isinstance(value, Input):
            yield f"in_{value.name}"
        else:
            yield from self._ends[value.node]


def _title(graph: Graph, node: Node) -> str:
    if node.branches:
        return {"when": "when", "switch": "switch", "or_else": "or else"}[node.kind]
    path = node.key.removeprefix(f"{graph.name}/").replace("/", " / ")
    return f"{path} (each)" if node.kind == "map" else path


def _subtitle(node: Node) -> str:
    kind = "build" if node.kind == "build" else node.unit.kind if node.unit is not None else ""
    gives = display(node.output)
    return f"{kind} → {gives}" if kind else f"→ {gives}"


def _choice(node: Node, key: object) -> str:
    match node.kind, key:
        case "when", bool():
            return "yes" if key else "no"
        case "or_else", _:
            return "try" if key == "call" else "on failure"
        case _:
            return "default" if key is DEFAULT else str(getattr(key, "value", key))


def _path(value: Input | Ref) -> str:
    return "".join(f".{key}" if kind == "attr" else f"[{key!r}]" for kind, key in value.path)
