"""Putting the graph of one flow into that of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from llmflow.context import Scope
from llmflow.errors import DefinitionError
from llmflow.graph._access import Unfit
from llmflow.graph._ir import Constant, Graph, Input, Node, Operand, Ref, Structure
from llmflow.graph._operands import nodes_in
from llmflow.graph._paths import PathStep, descend

__all__ = ["Splice", "needs", "rescoped"]


class Splice:
    """A copy of a graph with its inputs replaced, its nodes numbered on, and its scopes inside another scope."""

    def __init__(
        self,
        graph: Graph,
        inputs: Mapping[str, Operand],
        *,
        key: str,
        around: Scope,
        start: int,
        fail: Callable[[str], DefinitionError],
    ) -> None:
        self._graph = graph
        self._key = key
        self._inputs = inputs
        self._around = around
        self._start = start
        self._fail = fail
        self._scopes: dict[Scope, Scope] = {}

    def nodes(self) -> Iterator[Node]:
        """Yield the nodes as they are in the graph around."""
        for node in self._graph.nodes:
            yield self._node(node)

    def result(self) -> Operand:
        """Return where the value of the flow comes from."""
        return self._operand(self._graph.result)

    def _node(self, node: Node) -> Node:
        made = replace(
            node,
            index=node.index if node.index < 0 else node.index + self._start,
            key=self._key + node.key[len(self._graph.name) :],
            scope=self._scope(node.scope),
            inputs={name: self._operand(one) for name, one in node.inputs.items()},
            items=None if node.items is None else self._operand(node.items),
            condition=None if node.condition is None else self._operand(node.condition),
            branches={key: self._node(branch) for key, branch in node.branches.items()},
        )
        made.after = needs(made)
        return made

    def _scope(self, scope: Scope) -> Scope:
        if scope not in self._scopes:
            parent = self._around if scope.parent is None else self._scope(scope.parent)
            self._scopes[scope] = Scope(scope.flow, scope.policies, parent)
        return self._scopes[scope]

    def _operand(self, operand: Operand) -> Operand:
        match operand:
            case Constant():
                return operand
            case Ref(node, path):
                return Ref(node + self._start, path)
            case Input(name, path):
                return self._given(name, path)
            case Structure(kind, items, keys):
                return Structure(kind, tuple(map(self._operand, items)), keys)

    def _given(self, name: str, path: tuple[PathStep, ...]) -> Operand:
        try:
            return descend(self._inputs[name], *path)
        except Unfit as why:
            raise self._fail(f"argument {name!r} of flow {self._graph.name!r}: {why}") from None


def needs(node: Node) -> tuple[int, ...]:
    """Return the nodes that a node's operands, and those of its branches, take values from."""
    branches = [Ref(index) for branch in node.branches.values() for index in branch.after]
    return nodes_in(*node.inputs.values(), node.items, node.condition, *branches)


def rescoped(graph: Graph, policies: tuple[Any, ...]) -> Graph:
    """Return the same graph for a copy of the flow that has other policies."""
    top = Scope(graph.name, policies, None)
    scopes: dict[Scope, Scope] = {}

    def moved(scope: Scope) -> Scope:
        if scope.parent is None:
            return top
        if scope not in scopes:
            scopes[scope] = Scope(scope.flow, scope.policies, moved(scope.parent))
        return scopes[scope]

    def copied(node: Node) -> Node:
        return replace(node, scope=moved(node.scope), branches={key: copied(one) for key, one in node.branches.items()})

    return replace(graph, nodes=tuple(map(copied, graph.nodes)))
