"""Nodes compiled into jobs: what to await, where its inputs are, what to do after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from llmflow.engine._constants import may_change
from llmflow.engine._operands import Getter, Layout, Values
from llmflow.errors import DefinitionError
from llmflow.graph._ir import DEFAULT, Constant, Graph, Node, Ref, Structure, map_call

if TYPE_CHECKING:
    from llmflow.context import Frame
    from llmflow.engine._places import Places
    from llmflow.graph._ir import Operand
    from llmflow.messages import Result

__all__ = ["Job", "compile_jobs", "count_reads"]

Perform: TypeAlias = "Callable[[Values, Frame], Awaitable[Any]]"
Invoke: TypeAlias = "Callable[[dict[str, object], Frame], Awaitable[Result[Any]]]"


class Job(NamedTuple):
    """One node, ready to run; a tuple, because a run unpacks one for every node.

    Attributes:
        invoke: The bound unit of a plain call, awaited with `arguments`; None for every other kind.
        perform: What to await for the other kinds.
        place: Of the node's scope, see `Places`.
        reads: Nodes whose values are needed no more by this one when it has ended; itself, when nobody reads its own.
        successors: Nodes that wait for this one.
        where: A note for what is raised in it.
    """

    invoke: Invoke | None
    arguments: tuple[tuple[str, Getter], ...]
    perform: Perform
    place: int
    reads: tuple[int, ...]
    successors: tuple[int, ...]
    where: str


class _Compiler:
    def __init__(self, layout: Layout, places: Places, runtime: Any) -> None:
        self._layout = layout
        self._places = places
        self._runtime = runtime

    def job(self, node: Node, successors: tuple[int, ...]) -> Job:
        plain = node.kind == "call"
        return Job(
            invoke=self._bound(node) if plain else None,
            arguments=self._layout.getters(node.inputs) if plain else (),
            perform=_unused if plain else self._perform(node),
            place=self._places.of(node.scope),
            reads=node.after if successors else (*node.after, node.index),
            successors=successors,
            where=f"in node {node.key!r} ({node.location})",
        )

    def _bound(self, node: Node) -> Invoke:
        assert node.unit is not None
        return node.unit.bound(self._runtime, self._places.scopes[self._places.of(node.scope)]).invoke

    def _perform(self, node: Node) -> Perform:
        compile_kind: dict[str, Callable[[Node], Perform]] = {
            "call": self._call,
            "map": self._map,
            "when": self._when,
            "switch": self._switch,
            "or_else": self._or_else,
            "build": self._build,
        }
        return compile_kind[node.kind](node)

    def _operand(self, operand: Operand | None) -> Getter:
        assert operand is not None
        return self._layout.getter(operand)

    def _branches(self, node: Node) -> dict[Any, Perform]:
        return {key: self._perform(branch) for key, branch in node.branches.items()}

    def _call(self, node: Node) -> Perform:
        invoke, arguments = self._bound(node), self._layout.getters(node.inputs)

        async def call(values: Values, around: Frame) -> Any:
            return (await invoke({name: get(values) for name, get in arguments}, around)).value

        return call

    def _map(self, node: Node) -> Perform:
        items, fixed = self._operand(node.items), self._layout.getters(self._fixed(node))

        async def fan_out(values: Values, around: Frame) -> Any:  # noqa: ARG001  # the map takes the frame from the context
            return await map_call(node, items(values), {name: get(values) for name, get in fixed})

        return fan_out

    def _fixed(self, node: Node) -> Mapping[str, Operand]:
        """Return the fixed arguments of a map that are not the same object in every run."""
        assert node.mapping is not None
        known = {name: value for name, value in node.mapping.unit.fixed.items() if name not in node.inputs}
        return {**{name: Constant(value) for name, value in known.items() if may_change(value)}, **node.inputs}

    def _when(self, node: Node) -> Perform:
        condition, branches = self._operand(node.condition), self._branches(node)

        async def when(values: Values, around: Frame) -> Any:
            return await branches[bool(condition(values))](values, around)

        return when

    def _switch(self, node: Node) -> Perform:
        condition, branches = self._operand(node.condition), self._branches(node)
        default = branches.pop(DEFAULT, None)

        async def switch(values: Values, around: Frame) -> Any:
            chosen = condition(values)
            perform = branches.get(chosen, default)
            if perform is None:
                msg = f"switch on {chosen!r}, which is none of {', '.join(map(repr, branches))}; give it a default="
                raise DefinitionError(msg)
            return await perform(values, around)

        return switch

    def _or_else(self, node: Node) -> Perform:
        attempt, errors = self._perform(node.branches["call"]), node.errors
        otherwise = self._otherwise(node)

        async def or_else(values: Values, around: Frame) -> Any:
            try:
                return await attempt(values, around)
            except errors:
                pass  # left behind, so that what the other branch raises does not carry it as its context
            return await otherwise(values, around)

        return or_else

    def _otherwise(self, node: Node) -> Perform:
        if (branch := node.branches.get("otherwise")) is not None:
            return self._perform(branch)
        get = self._operand(node.items)

        async def value(values: Values, around: Frame) -> Any:  # noqa: ARG001  # every kind is performed alike
            return get(values)

        return value

    def _build(self, node: Node) -> Perform:
        construct, fields = node.output, self._layout.getters(node.inputs)

        async def build(values: Values, around: Frame) -> Any:  # noqa: ARG001  # every kind is performed alike
            return construct(**{name: get(values) for name, get in fields})

        return build


async def _unused(values: Values, around: Frame) -> Any:  # stands where a plain call has nothing
    raise NotImplementedError


def compile_jobs(graph: Graph, layout: Layout, places: Places, runtime: Any) -> tuple[Job, ...]:
    """Return one job for each node, in the graph's order."""
    successors: list[list[int]] = [[] for _ in graph.nodes]
    for node in graph.nodes:
        for needed in node.after:
            successors[needed].append(node.index)
    compiler = _Compiler(layout, places, runtime)
    return tuple(compiler.job(node, tuple(successors[node.index])) for node in graph.nodes)


def count_reads(jobs: tuple[Job, ...], result: Operand) -> list[int]:
    """Return how often each node's value will be read; the result's are read once more, at the end."""
    counts = [0] * len(jobs)
    for job in jobs:
        for read in job.reads:
            counts[read] += 1
    for node in _nodes_of(result):
        counts[node] += 1
    return counts


def _nodes_of(operand: Operand) -> Iterator[int]:
    if isinstance(operand, Ref):
        yield operand.node
    elif isinstance(operand, Structure):
        for item in operand.items:
            yield from _nodes_of(item)
