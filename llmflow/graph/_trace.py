"""Recording: every awaited call of a flow's body becomes a node."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from llmflow.context import Scope
from llmflow.errors import DefinitionError
from llmflow.graph._fits import fits
from llmflow.graph._ir import Constant, Graph, Input, Node, Operand, Ref
from llmflow.graph._mistakes import Mistakes
from llmflow.graph._operands import nodes_in, to_operand, type_of, values_in
from llmflow.graph._outer import outer_objects
from llmflow.graph._placeholder import Placeholder, State, is_placeholder, state_of
from llmflow.graph._splice import Splice
from llmflow.graph._types import display, is_open, items_of
from llmflow.messages import Outcome
from llmflow.step import Call, MapCall, Unit

if TYPE_CHECKING:
    from types import CodeType

    from llmflow.graph._build import Blueprint

__all__ = ["Recordable", "Trace", "unused_inputs"]


@runtime_checkable
class Recordable(Protocol):
    """An operation such as `when` that knows how to record itself."""

    def node(self, trace: Trace, /) -> Node:
        """Return the operation as a node that is not in the graph yet."""
        ...

    def record(self, trace: Trace, /) -> Any:
        """Put the operation into the graph and return what awaiting it gives."""


@runtime_checkable
class Traceable(Protocol):
    """A flow, as far as one around it has to know it."""

    @property
    def inlines(self) -> bool:
        """Whether its nodes may stand among those of a flow around."""
        ...

    def graph(self) -> Graph:
        """Return what it does."""
        ...


class Trace(Mistakes):
    """One flow being built: its nodes so far.

    Attributes:
        blueprint: The flow.
        scope: Where its own nodes stand.
        parent: The trace of the flow around, while that one is being built too.
    """

    def __init__(self, blueprint: Blueprint, *, module: str, driver: CodeType, parent: Trace | None) -> None:
        super().__init__(blueprint.name, module, driver)
        self.blueprint = blueprint
        self.outer = outer_objects(blueprint.function)
        self.scope = Scope(blueprint.name, blueprint.policies, None)
        self.parent = parent
        self._nodes: list[Node] = []
        self._occurrences: Counter[str] = Counter()
        self._units: dict[str, Unit[..., Any]] = {}
        self._constants: list[tuple[str, object]] = []

    # -- recording -----------------------------------------------------------------------------------------------------

    def parameter(self, name: str, annotation: Any) -> Placeholder:
        """Return what the body is given for one of its parameters."""
        return Placeholder(State(self, Input(name), annotation, f"parameter {name!r} of flow {self.flow!r}"))

    def record(self, call: Any, /) -> Any:
        """Turn an awaited call into a node, and return the placeholder of its value."""
        try:
            return self._record(call)
        except DefinitionError as error:
            self.error = self.error or error
            raise

    def _record(self, call: Any) -> Any:
        if isinstance(call, Recordable):
            return call.record(self)
        if not isinstance(call, MapCall) and isinstance(call.unit, Traceable) and call.unit.inlines:
            return self._inline(call, call.unit.graph())
        return self.append(self.node(call))

    def append(self, node: Node) -> Placeholder:
        """Put a node into the graph and return the placeholder of its value."""
        node.index = len(self._nodes)
        self._nodes.append(node)
        return Placeholder(State(self, Ref(node.index), node.output, f"{_what(node)} ({node.location})"))

    def await_call(self, call: Any) -> Any:
        """Record a call that something else took over before anybody awaited it."""
        value = self.record(call)
        discard(call)
        return value

    def branch(self, call: Any) -> Node:
        """Return the node of a call that runs only if it is chosen; whatever it is, it stays one node."""
        node = self.node(call)
        discard(call)
        return node

    def node(self, call: Any) -> Node:
        """Return the node of a call that is not in the graph yet."""
        if isinstance(call, Recordable):
            return call.node(self)
        return self._map_node(call) if _is_map(call) else self._call_node(call)

    def key(self, name: str) -> str:
        """Return the identity of the next node of this name: its position among its namesakes."""
        self._occurrences[name] += 1
        count = self._occurrences[name]
        return f"{self.flow}/{name}" if count == 1 else f"{self.flow}/{name}#{count}"

    def _call_node(self, call: Call[Any]) -> Node:
        unit = call.unit
        inputs = self._call_inputs(call)
        key = self.key(unit.name)
        self._note_constants(key, unit, inputs)
        return Node(
            index=-1,
            key=key,
            kind="call",
            name=unit.name,
            output=_known(unit.signature.returns),
            location=self.location,
            scope=self.scope,
            unit=unit,
            inputs=inputs,
            after=nodes_in(*inputs.values()),
        )

    def _call_inputs(self, call: Call[Any]) -> dict[str, Operand]:
        if call.wants_result:
            raise self.fail(
                f".run() of {call.name!r} gives what a call took, which is not known while the flow is built; await {call.name!r} itself, "
                f"read the calls of `{self.flow}.run(...)`, or use @flow(eager=True)"
            )
        self._check_name(call.unit)
        return {name: self._argument(call.unit, name, value) for name, value in call.inputs.items()}

    def _argument(self, unit: Unit[..., Any], name: str, value: object) -> Operand:
        wanted = unit.signature.hints.get(name, Any)
        what = f"argument {name!r} of {unit.kind} {unit.name!r}"
        self.check_type(value, wanted, f"{unit.kind} {unit.name!r} takes {name}: {display(wanted)}")
        return to_operand(value, self, what)

    def check_type(self, value: object, wanted: Any, taker: str) -> None:
        """Raise when what is known of a value's type does not fit, naming both ends."""
        given = type_of(value)
        if fits(given, wanted):
            return
        source = state_of(value).label if is_placeholder(value) else "what it is given"
        raise self.fail(f"{taker}, but {source} is {display(given)}")

    def _check_name(self, unit: Unit[..., Any]) -> None:
        known = self._units.setdefault(unit.name, unit)
        if known.function is not unit.function:
            raise self.fail(
                f"two different functions are called {unit.name!r}, {known.kind} at {known.origin} and {unit.kind} at {unit.origin}; "
                f"give one of them another name with name=..."
            )

    def _note_constants(self, key: str, unit: Unit[..., Any], inputs: Mapping[str, Operand]) -> None:
        defaults = unit.signature.defaults
        for name, operand in inputs.items():
            if isinstance(operand, Constant) and not (name in defaults and operand.value is defaults[name]):
                self._constants.append((f"{key}.{name}", operand.value))

    # -- maps ----------------------------------------------------------------------------------------------------------

    def _map_node(self, call: MapCall[Any, Any, Any]) -> Node:
        unit = call.unit
        self._check_name(unit)
        items = to_operand(call.items, self, f"what {unit.name!r} is mapped over")
        self._check_items(call)
        fixed = {name: self._argument(unit, name, value) for name, value in unit.fixed.items()}
        key = self.key(unit.name)
        if isinstance(items, Constant):
            self._constants.append((f"{key}.items", items.value))
        self._note_constants(key, unit, fixed)
        each = _known(unit.signature.returns)
        return Node(
            index=-1,
            key=key,
            kind="map",
            name=unit.name,
            output=list[Outcome[each]] if call.collect else list[each],  # type: ignore[valid-type]  # a type made at run time
            location=self.location,
            scope=self.scope,
            unit=unit,
            mapping=_without_placeholders(call, fixed),
            items=items,
            inputs={name: operand for name, operand in fixed.items() if not isinstance(operand, Constant)},
            after=nodes_in(items, *fixed.values()),
        )

    def _check_items(self, call: MapCall[Any, Any, Any]) -> None:
        """Compare what the items are with the one parameter that they are given to."""
        unit, given = call.unit, type_of(call.items)
        item = items_of(given)
        if item is None:
            raise self.fail(f"{unit.kind} {unit.name!r} is mapped over {display(given)}, which is no list")
        names = unit.signature.required or unit.signature.names
        if not call.spread and not fits(item, wanted := unit.signature.hints.get(names[0], Any)):
            raise self.fail(
                f"{unit.kind} {unit.name!r} takes {names[0]}: {display(wanted)}, but it is mapped over {display(given)}"
            )

    # -- flows inside --------------------------------------------------------------------------------------------------

    def _inline(self, call: Call[Any], graph: Graph) -> Placeholder:
        """Take over the nodes of a flow in place of one node, so that its steps run as soon as what they need is there."""
        inputs = self._call_inputs(call)
        key = self.key(call.unit.name)
        splice = Splice(graph, inputs, key=key, around=self.scope, start=len(self._nodes), fail=self.fail)
        self._nodes.extend(splice.nodes())
        for unit in graph.units():
            self._check_name(unit)
        self._constants.extend((key + name[len(graph.name) :], value) for name, value in graph.constants)
        return Placeholder(State(self, splice.result(), graph.output, f"flow {call.name!r} ({self.location})"))

    # -- the end -------------------------------------------------------------------------------------------------------

    def graph(self, value: object, inputs: Mapping[str, Any], output: Any) -> Graph:
        """Return the finished graph."""
        self.check_type(value, output, f"the flow returns {display(output)}")
        result = to_operand(value, self, "the value of the flow")
        return Graph(self.flow, tuple(self._nodes), result, dict(inputs), output, tuple(self._constants))


def unused_inputs(graph: Graph) -> list[str]:
    """Return the parameters that reach no node and not the result."""
    operands = [graph.result]
    for node in graph.walk():
        operands.extend(one for one in (*node.inputs.values(), node.items, node.condition) if one is not None)
    used = {one.name for operand in operands for one in values_in(operand) if isinstance(one, Input)}
    return [name for name in graph.inputs if name not in used]


def _is_map(call: Any) -> bool:
    return isinstance(call, MapCall)


def discard(call: Any) -> None:
    """Mark a call as taken, if it is not."""
    with suppress(RuntimeError):
        call.discard()


def _without_placeholders(call: MapCall[Any, Any, Any], fixed: Mapping[str, Operand]) -> MapCall[Any, Any, Any]:
    """Return a map whose items and unknown fixed arguments are left out; they are given when it runs."""
    made = copy.copy(call)
    made.items = ()
    if any(not isinstance(one, Constant) or one.value is not call.unit.fixed[name] for name, one in fixed.items()):
        made.unit = copy.copy(call.unit)
        made.unit.fixed = {name: one.value for name, one in fixed.items() if isinstance(one, Constant)}
    return made


def _known(annotation: Any) -> Any:
    return Any if is_open(annotation) else annotation


def _what(node: Node) -> str:
    if node.unit is not None:
        return f"{'map of ' if node.kind == 'map' else ''}{node.unit.kind} {node.name!r}"
    return node.kind if node.kind != "build" else f"build({node.name})"
