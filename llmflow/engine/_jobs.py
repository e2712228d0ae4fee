"""Nodes compiled into jobs: what to await, where its inputs are, what to do after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from llmflow.engine._constants import may_change
from llmflow.engine._operands import Getter, Layout, Values
from llmflow.errors import DefinitionError
from llmflow.graph._ir import DEFAULT, Constant, Graph, Node, Ref, Structure, map_call
from llmflow.graph._ops import is_of_the_record
from llmflow.step import inner_run

if TYPE_CHECKING:
    from llmflow.context import Frame
    from llmflow.engine._places import Places
    from llmflow.graph._ir import Operand
    from llmflow.step import Bound, Unit

__all__ = ["Job", "compile_jobs", "count_reads"]

Perform: TypeAlias = "Callable[[Values, Frame], Awaitable[Any]]"


class Job(NamedTuple):
    """One node, ready to run; a tuple, because a run unpacks one for every node.

    Attributes:
        bound: The unit of a plain call, invoked with `arguments`; None for every other kind.
        unit: What it is made of.
        key: The node's key in the graph.
        perform: What to await for the other kinds.
        place: Of the node's scope, see `Places`.
        reads: Nodes whose values are needed no more by this one when it has ended; itself, when nobody reads its own.
        successors: Nodes that wait for this one.
        where: A note for what is raised in it.
    """

    bound: Bound | None
    unit: Unit[..., Any] | None
    key: str
    arguments: tuple[tuple[str, Getter], ...]
    perform: Perform
    place: int
    reads: tuple[int, ...]
    successors: tuple[int, ...]
    where: str


class _Compiler:
    def __init__(self, name: str, layout: Layout, places: Places, runtime: Any) -> None:
        self._name = name
        self._layout = layout
        self._places = places
        self._runtime = runtime

    def job(self, node: Node, successors: tuple[int, ...]) -> Job:
        plain = node.kind == "call"
        return Job(
            bound=self._bound(node) if plain else None,
            unit=node.unit,
            key=node.key,
            arguments=self._layout.getters(node.inputs) if plain else (),
            perform=_unused if plain else self._perform(node),
            place=self._places.of(node.scope),
            reads=node.after if successors else (*node.after, node.index),
            successors=successors,
            where=f"in node {node.key!r} ({node.location})",
        )

    def _bound(self, node: Node) -> Bound:
        unit = node.unit
        assert unit is not None
        if unit.run_id is not None:
            raise inner_run(unit.name, unit.run_id, f"flow {self._name!r} ({node.location})")
        return unit.bound(self._runtime, self._places.scopes[self._places.of(node.scope)])

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
        bound, arguments, path = self._bound(node), self._layout.getters(node.inputs), self._path(node)
        unit = node.unit
        assert unit is not None

        async def call(values: Values, around: Frame) -> Any:
            inputs = {name: get(values) for name, get in arguments}
            if (record := around.run.record) is None:
                return (await bound.invoke(inputs, around)).value
            return (await record.node(path(around), unit, bound, inputs, around)).value

        return call

    def _path(self, node: Node) -> Callable[[Frame], str]:
        """Return what says where a node is in a run: its key, behind the path of the flow when that is not the outermost."""
        name, inside = self._name, node.key[len(self._name) :]
        return lambda around: (around.node or name) + inside

    def _map(self, node: Node) -> Perform:
        items, fixed = self._operand(node.items), self._layout.getters(self._fixed(node))

        path = self._path(node)

        async def fan_out(values: Values, around: Frame) -> Any:  # the map takes the frame from the context
            mapping = map_call(node, items(values), {name: get(values) for name, get in fixed})
            if around.run.record is not None:
                mapping.path = path(around)
            return await mapping

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
        otherwise, path, name = self._otherwise(node), self._path(node), node.name

        async def or_else(values: Values, around: Frame) -> Any:
            record = around.run.record
            if record is not None and record.chose(path(around)):
                return await otherwise(values, around)
            try:
                return await attempt(values, around)
            except errors as exc:  # left behind, so that what the other branch raises does not carry it as its context
                if is_of_the_record(exc, errors):
                    raise
                if record is not None:
                    record.choose(path(around), name, exc)
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
    compiler = _Compiler(graph.name, layout, places, runtime)
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
