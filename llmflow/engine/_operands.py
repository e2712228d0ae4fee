"""Operands compiled into functions of the values known so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from typing import Any, Literal, TypeAlias

from llmflow.graph._ir import Constant, Graph, Input, Operand, Ref

__all__ = ["Getter", "Layout", "Values"]

Values: TypeAlias = list[Any]
"""Everything a run knows: the values of the nodes, the flow's inputs, then the constants."""
Getter: TypeAlias = Callable[[Values], Any]
Path: TypeAlias = tuple[tuple[Literal["attr", "item"], Any], ...]


@dataclass(slots=True)
class Layout:
    """Which place in `Values` holds what.

    Inputs and constants have places of their own beside the nodes, so that reading any of them is one index.
    """

    nodes: int
    inputs: tuple[str, ...]
    constants: list[object] = field(default_factory=list[object])

    @classmethod
    def of(cls, graph: Graph) -> Layout:
        """Return the places for a graph's nodes and inputs; constants get theirs while operands are compiled."""
        return cls(len(graph.nodes), tuple(graph.inputs))

    def values(self, inputs: Mapping[str, object]) -> Values:
        """Return the values a run starts with."""
        return [*[None] * self.nodes, *[inputs[name] for name in self.inputs], *self.constants]

    def getter(self, operand: Operand) -> Getter:
        """Return what reads an operand."""
        if isinstance(operand, Ref):
            return _follow(itemgetter(operand.node), operand.path)
        if isinstance(operand, Input):
            return _follow(itemgetter(self.nodes + self.inputs.index(operand.name)), operand.path)
        if isinstance(operand, Constant):
            return self._constant(operand.value)
        return _structure(operand.kind, [self.getter(item) for item in operand.items], operand.keys)

    def getters(self, operands: Mapping[str, Operand]) -> tuple[tuple[str, Getter], ...]:
        """Return what reads the arguments of a call, by name."""
        return tuple((name, self.getter(operand)) for name, operand in operands.items())

    def _constant(self, value: object) -> Getter:
        if _is_mutable(value):
            return lambda _: _fresh(value)
        self.constants.append(value)
        return itemgetter(self.nodes + len(self.inputs) + len(self.constants) - 1)


def _follow(get: Getter, path: Path) -> Getter:
    """Return `get` with the steps of `path` after it."""
    for kind, key in path:
        get = _then(get, attrgetter(key) if kind == "attr" else itemgetter(key))
    return get


def _then(get: Getter, step: Callable[[Any], Any]) -> Getter:
    return lambda values: step(get(values))


def _structure(kind: type[Any], items: Sequence[Getter], keys: tuple[object, ...]) -> Getter:
    if kind is dict:
        pairs = tuple(zip(keys, items, strict=True))
        return lambda values: {key: get(values) for key, get in pairs}
    if kind is list:
        return lambda values: [get(values) for get in items]
    return lambda values: tuple([get(values) for get in items])


# A list that the body wrote down is one object in the graph, but the author sees a new one in every run.


def _is_mutable(value: Any) -> bool:
    if value.__class__ is tuple:
        return any(map(_is_mutable, value))
    return value.__class__ in _COPIES


def _fresh(value: Any) -> Any:
    """Return a copy of what is built of plain containers; everything else in it stays the same object."""
    copy = _COPIES.get(value.__class__)
    return value if copy is None else copy(value)


_COPIES: dict[type, Callable[[Any], Any]] = {
    list: lambda value: [_fresh(one) for one in value],
    tuple: lambda value: tuple([_fresh(one) for one in value]),
    dict: lambda value: {key: _fresh(one) for key, one in value.items()},
    set: set,
}
