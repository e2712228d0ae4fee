"""Operands compiled into functions of the values known so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from typing import Any, Literal, TypeAlias

from llmflow.engine._constants import Copier, copier_of
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
    _copied: list[tuple[int, object, Copier]] = field(default_factory=list[tuple[int, object, Copier]])

    @classmethod
    def of(cls, graph: Graph) -> Layout:
        """Return the places for a graph's nodes and inputs; constants get theirs while operands are compiled."""
        return cls(len(graph.nodes), tuple(graph.inputs))

    def values(self, inputs: Mapping[str, object]) -> Values:
        """Return the values a run starts with."""
        values: Values = [*[None] * self.nodes, *[inputs[name] for name in self.inputs], *self.constants]
        if self._copied:
            memo: dict[int, Any] = {}
            for place, _, copier in self._copied:
                values[place] = copier(memo)
        return values

    def getter(self, operand: Operand) -> Getter:
        """Return what reads an operand."""
        if isinstance(operand, Ref):
            return _follow(itemgetter(operand.node), operand.path)
        if isinstance(operand, Input):
            return _follow(itemgetter(self.nodes + self.inputs.index(operand.name)), operand.path)
        if isinstance(operand, Constant):
            return self._constant(operand)
        return _structure(operand.kind, [self.getter(item) for item in operand.items], operand.keys)

    def getters(self, operands: Mapping[str, Operand]) -> tuple[tuple[str, Getter], ...]:
        """Return what reads the arguments of a call, by name."""
        return tuple((name, self.getter(operand)) for name, operand in operands.items())

    def _constant(self, constant: Constant) -> Getter:
        value = constant.value
        place = next((place for place, known, _ in self._copied if known is value), None)
        if place is None:
            place = self.nodes + len(self.inputs) + len(self.constants)
            self.constants.append(value)
            if not constant.shared and (copier := copier_of(value)) is not None:
                self._copied.append((place, value, copier))
        return itemgetter(place)


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
