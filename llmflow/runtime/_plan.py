"""What a step or flow will do, before it does it: its graph, and each step's chain with who supplied each layer."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, cast

from llmflow.context import runtimes
from llmflow.errors import DefinitionError
from llmflow.graph import Flow, Graph, Node, Task
from llmflow.models import Model
from llmflow.policy import Band, Declared, Off
from llmflow.step import BoundStep, Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmflow.context import Scope
    from llmflow.runtime._runtime import Runtime

__all__ = ["Layer", "Plan", "PlannedNode", "plan"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a chain.

    Attributes:
        band: Where it stands: `RETRY`, `before RETRY`, or `parse` and `provider` for what is not a policy.
        policy: The policy with the options that differ from its defaults.
        source: Who supplied it: `step:triage`, `flow:support`, `runtime`, `plugin:llmflow-redact 0.1.0`, `default`.
    """

    band: str
    policy: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedNode:
    """One step, task or operation of a plan."""

    key: str
    kind: str
    name: str
    after: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    output: str = ""
    prompt_version: str | None = None
    location: str = ""
    layers: tuple[Layer, ...] = ()
    branches: tuple[PlannedNode, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a target will do. Print it, or walk `nodes`.

    Attributes:
        target: Name of the step, task or flow.
        kind: `step`, `task` or `flow`.
        nodes: In an order in which each comes after what it needs.
        constants: What the flow's body computed while it was traced; it is the same in every run.
        layers: What is kept for the run as a whole, such as a flow's deadline.
        graph: The graph behind the nodes, None for anything but a traced flow.
    """

    target: str
    kind: str
    nodes: tuple[PlannedNode, ...]
    constants: tuple[tuple[str, object], ...] = ()
    layers: tuple[Layer, ...] = ()
    graph: Graph | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.kind} {self.target}: {len(self.nodes)} node{'s' if len(self.nodes) != 1 else ''}"
        for layer in self.layers:
            yield f"  {layer.band}  {layer.policy}  {layer.source}, for the whole run"
        for name, value in self.constants:
            yield f"  constant {name} = {value!r}, read once"
        for node in self.nodes:
            yield ""
            yield from _node_lines(node, "")

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain dicts, fit for JSON."""
        return {
            "target": self.target,
            "kind": self.kind,
            "layers": [{one.name: getattr(layer, one.name) for one in fields(layer)} for layer in self.layers],
            "constants": [[name, repr(value)] for name, value in self.constants],
            "nodes": [_plain(node) for node in self.nodes],
        }


def _plain(node: PlannedNode) -> dict[str, Any]:
    plain = {one.name: getattr(node, one.name) for one in fields(node)}
    plain["layers"] = [{one.name: getattr(layer, one.name) for one in fields(layer)} for layer in node.layers]
    plain["branches"] = [_plain(branch) for branch in node.branches]
    return plain


def _node_lines(node: PlannedNode, indent: str) -> Iterator[str]:
    head = f"{indent}{node.key}  [{node.kind}]"
    if node.output:
        head += f" -> {node.output}"
    if node.after:
        head += f"  after {', '.join(node.after)}"
    yield head
    if node.models:
        yield f"{indent}  model   {' then '.join(node.models)}"
    width = max((len(layer.band) for layer in node.layers), default=0)
    longest = max((len(layer.policy) for layer in node.layers), default=0)
    for layer in node.layers:
        yield f"{indent}  {layer.band:<{width}}  {layer.policy:<{longest}}  {layer.source}".rstrip()
    for branch in node.branches:
        yield from _node_lines(branch, indent + "  | ")


def plan(target: Unit[..., Any], /, *, runtime: Runtime | None = None) -> Plan:
    """Say what `target` will do, without doing it: no request is sent.

    Args:
        target: A step, task or flow.
        runtime: The runtime to plan for; the current one unless given.

    Raises:
        DefinitionError: For anything that is wrong with the target, as at its first call.
    """
    if not isinstance(target, Unit):
        msg = f"plan() takes a step, task or flow, got {type(target).__name__}"
        raise DefinitionError(msg)
    runtime = runtime or runtimes.current()
    assert runtime is not None
    if isinstance(target, Flow) and not target.eager:
        graph = target.graph()
        keys = {node.index: node.key for node in graph.nodes}
        nodes = tuple(_planned(node, runtime, keys) for node in graph.nodes)
        layers = _of_the_run(target, runtime)
        return Plan(target=target.name, kind="flow", nodes=nodes, constants=graph.constants, layers=layers, graph=graph)
    layers = _of_the_run(target, runtime) if isinstance(target, Flow) else ()
    nodes = (_planned_unit(target, runtime, None, target.name),)
    return Plan(target=target.name, kind=target.kind, nodes=nodes, layers=layers)


def _of_the_run(target: Flow[..., Any], runtime: Runtime) -> tuple[Layer, ...]:
    """Return the limits that the flow keeps for its run as a whole."""
    declared = [Declared(one, f"flow:{target.name}") for one in target.policies]
    declared += [Declared(one, "runtime") for one in runtime.policies]
    return tuple(_layer(one) for one in declared if not isinstance(one.policy, Off) and one.band == Band.DEADLINE)


def _planned(node: Node, runtime: Runtime, keys: dict[int, str]) -> PlannedNode:
    after = tuple(keys[index] for index in node.after if index in keys)
    if node.branches:
        branches = tuple(_planned(branch, runtime, keys) for branch in node.branches.values())
        return PlannedNode(
            key=node.key, kind=node.kind, name=node.name, after=after, location=node.location, branches=branches
        )
    unit = node.unit or (node.mapping.unit if node.mapping is not None else None)
    if unit is None:
        return PlannedNode(
            key=node.key,
            kind=node.kind,
            name=node.name,
            after=after,
            output=_type_name(node.output),
            location=node.location,
        )
    kind = "map" if node.kind == "map" else None
    return _planned_unit(unit, runtime, node.scope, node.key, after=after, location=node.location, kind=kind)


def _planned_unit(
    unit: Unit[..., Any],
    runtime: Runtime,
    scope: Scope | None,
    key: str,
    *,
    after: tuple[str, ...] = (),
    location: str = "",
    kind: str | None = None,
) -> PlannedNode:
    bound = unit.bound(runtime, scope)
    common: dict[str, Any] = {
        "key": key,
        "kind": kind or unit.kind,
        "name": unit.name,
        "after": after,
        "location": location or unit.origin,
    }
    if isinstance(bound, BoundStep):
        return PlannedNode(
            **common,
            models=tuple(model.name for model in bound.models),
            output=_type_name(unit.signature.returns),
            prompt_version=bound.version,
            layers=tuple(_with_ends(bound)),
        )
    declared = runtime.layers(unit, scope) if not isinstance(unit, Task) else ()
    own = {id(policy) for policy in unit.policies}
    layers = tuple(_layer(one) for one in declared if id(one.policy) in own)
    if isinstance(unit, Task):
        layers = tuple(_layer(Declared(one, f"task:{unit.name}")) for one in unit.policies if hasattr(one, "band"))
    return PlannedNode(**common, output=_type_name(unit.signature.returns), layers=layers)


def _with_ends(bound: BoundStep) -> Iterator[Layer]:
    """Yield the layers of a step, with the parser between the onions and the provider at the end."""
    calls = [one for one in bound.layers if one.band.wraps_calls]
    requests = [one for one in bound.layers if not one.band.wraps_calls]
    yield from map(_layer, calls)
    yield Layer("parse", f"-> {_type_name(bound.step.signature.returns)}", "")
    yield from (_layer(one) for one in requests if one.band < Band.TIMEOUT)
    yield Layer("record", "every physical request", "")
    yield from (_layer(one) for one in requests if one.band >= Band.TIMEOUT)
    yield Layer("provider", ", ".join(dict.fromkeys(model.provider for model in bound.models)), "")


def _layer(declared: Declared) -> Layer:
    return Layer(declared.band.name, _shown(declared.policy), declared.source)


def _shown(policy: object) -> str:
    """Return a policy with the options that differ from its defaults."""
    kind = type(policy).__name__
    if not is_dataclass(policy):
        return kind
    values = {one.name: (getattr(policy, one.name), one.default) for one in fields(policy)}
    said = [_option(name, value) for name, (value, default) in values.items() if value != default]
    if not said:  # its first option, which says most, as in `Retry(attempts=3)`
        said = [f"{name}={_value(value)}" for name, (value, _) in list(values.items())[:1]]
    return f"{kind}({', '.join(said)})"


def _option(name: str, value: Any) -> str:
    several = cast("tuple[object, ...]", value) if isinstance(value, tuple) else ()
    models = [one for one in several if isinstance(one, Model)]
    if models:  # as in Fallback("a/b", "c/d")
        return ", ".join(map(_value, models))
    return f"{name}={_value(cast(object, value))}"


def _value(value: object) -> str:
    """Return an option as it would be written; a model by its name, as what else it holds is nobody's business."""
    if isinstance(value, Model):
        return repr(value.name)
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _type_name(annotation: object) -> str:
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return annotation.__name__
    return str(annotation).replace("typing.", "")
