"""Finding out what a target will do, without doing it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from llmflow.context import runtimes
from llmflow.engine._places import Places
from llmflow.errors import DefinitionError
from llmflow.graph import Flow, Node, Task
from llmflow.models import Model
from llmflow.policy import Band, Declared, Off, check_count
from llmflow.runtime._bounds import Cost, Costs, explained, flow_limit, mapped, one_of
from llmflow.runtime._plan import Layer, Plan, PlannedNode, PlannedVariant
from llmflow.step import BoundStep, BoundVariants, Unit

if TYPE_CHECKING:
    from llmflow.context import Scope
    from llmflow.runtime._runtime import Runtime

__all__ = ["PROMPT_TOKENS", "plan", "plan_map"]

PROMPT_TOKENS = 8_192
"""What a prompt is taken to have at most when nobody knows what will be in it."""


def plan(
    target: Unit[..., Any],
    /,
    *,
    runtime: Runtime | None = None,
    inputs: Mapping[str, object] | None = None,
    prompt_tokens: int = PROMPT_TOKENS,
) -> Plan:
    """Say what `target` will do and what it takes at worst, without doing it: no request is sent.

    Args:
        target: A step, task or flow.
        runtime: The runtime to plan for; the current one unless given.
        inputs: The arguments of one call, by name. Prompts that follow from them are rendered and counted.
        prompt_tokens: What every other prompt is taken to have at most.

    Raises:
        DefinitionError: For anything that is wrong with the target, as at its first call.
        TypeError: For inputs that are not the target's parameters.
    """
    _check(target, prompt_tokens)
    if inputs is not None and not isinstance(inputs, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        msg = f"plan: inputs is {type(inputs).__name__}, expected the arguments by name, such as {{'message': ...}}"
        raise DefinitionError(msg)
    known = None if inputs is None else target.inputs((), dict(inputs))
    return _Planner(runtime or runtimes.current(), prompt_tokens, known).plan(target)


def plan_map(
    target: Unit[..., Any],
    items: Iterable[Mapping[str, object]],
    /,
    *,
    concurrency: int,
    runtime: Runtime | None = None,
    prompt_tokens: int = PROMPT_TOKENS,
) -> Plan:
    """Say what `target` takes at worst when it is called for each of these inputs, without doing it.

    Args:
        target: A step, task or flow.
        items: The arguments of each call, by name.
        concurrency: How many items are in work at a time.
        runtime: The runtime to plan for; the current one unless given.
        prompt_tokens: What a prompt is taken to have at most that does not follow from the inputs.
    """
    _check(target, prompt_tokens)
    planner = _Planner(runtime or runtimes.current(), prompt_tokens, None)
    return planner.plan_map(target, items, concurrency)


def _check(target: object, prompt_tokens: int) -> None:
    if not isinstance(target, Unit):
        msg = f"plan() takes a step, task or flow, got {type(target).__name__}"
        raise DefinitionError(msg)
    check_count(prompt_tokens, name="plan: prompt_tokens", minimum=0)


class _Planner:
    def __init__(self, runtime: Runtime, prompt_tokens: int, inputs: Mapping[str, object] | None) -> None:
        self._runtime = runtime
        self._costs = Costs(runtime, prompt_tokens)
        self._inputs = inputs
        self._limit: float | None = None

    def plan(self, target: Unit[..., Any]) -> Plan:
        bounds = self._costs.of_unit(target, None, self._inputs).total
        if isinstance(target, Flow) and not target.eager:
            self._limit = flow_limit(target, self._runtime)
            graph = target.graph()
            keys, places = {node.index: node.key for node in graph.nodes}, Places(None)
            return Plan(
                target=target.name,
                kind="flow",
                nodes=tuple(self._node(node, keys, places) for node in graph.nodes),
                constants=graph.constants,
                layers=_of_the_run(target, self._runtime),
                graph=graph,
                bounds=bounds,
                refused=tuple(self._costs.refused.values()),
            )
        layers = _of_the_run(target, self._runtime) if isinstance(target, Flow) else ()
        cost = Cost.of(bounds, None)
        nodes = (_planned_unit(target, self._runtime, None, target.name, cost),)
        return Plan(
            target=target.name,
            kind=target.kind,
            nodes=nodes,
            layers=layers,
            bounds=bounds,
            refused=tuple(self._costs.refused.values()),
        )

    def plan_map(self, target: Unit[..., Any], items: Iterable[Mapping[str, object]], concurrency: int) -> Plan:
        costs = [self._costs.of_unit(target, None, target.inputs((), dict(one))) for one in items]
        dearest = one_of(costs) if costs else self._costs.of_unit(target, None, None)
        total = mapped(dearest, len(costs), concurrency, target.name).total
        made = self.plan(target)
        nodes = made.nodes
        if made.graph is None:  # what the inputs say about its prompts is known for each of the items
            nodes = (replace(nodes[0], kind="map", bounds=dearest.each, items=len(costs)),)
        return replace(made, nodes=nodes, bounds=total, items=len(costs))

    def _limited(self, cost: Cost) -> Cost:
        """Return the cost of a node of the flow, which ends when the flow does."""
        if self._limit is None:
            return cost
        limited = cost.each.at_most(seconds=self._limit)
        return cost._replace(each=explained(limited, [limited]) if cost.each.seconds is None else limited)

    def _node(self, node: Node, keys: dict[int, str], places: Places) -> PlannedNode:
        after = tuple(keys[index] for index in node.after if index in keys)
        cost = self._limited(self._costs.of_node(node, places, self._inputs))
        if node.unit is None:
            return PlannedNode(
                key=node.key,
                kind=node.kind,
                name=node.name,
                after=after,
                output="" if node.branches else _type_name(node.output),
                location=node.location,
                branches=tuple(self._node(branch, keys, places) for branch in node.branches.values()),
                bounds=cost.each,
            )
        scope = places.scopes[places.of(node.scope)]
        kind = "map" if node.kind == "map" else None
        return _planned_unit(
            node.unit, self._runtime, scope, node.key, cost, after=after, location=node.location, kind=kind
        )


def _of_the_run(target: Flow[..., Any], runtime: Runtime) -> tuple[Layer, ...]:
    """Return the limits that the flow keeps for its run as a whole."""
    declared = [Declared(one, f"flow:{target.name}") for one in target.policies]
    declared += [Declared(one, "runtime") for one in runtime.policies]
    return tuple(_layer(one) for one in declared if not isinstance(one.policy, Off) and one.band == Band.DEADLINE)


def _planned_unit(
    unit: Unit[..., Any],
    runtime: Runtime,
    scope: Scope | None,
    key: str,
    cost: Cost,
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
        "bounds": cost.each,
        "items": cost.items,
    }
    if isinstance(bound, BoundVariants):
        variants = tuple(_planned_variant(arm.label, arm.share, arm.bound) for arm in bound.arms)
        return _planned_step(bound.arms[0].bound, unit, common, variants)
    if isinstance(bound, BoundStep):
        return _planned_step(bound, unit, common, ())
    declared = runtime.layers(unit, scope) if not isinstance(unit, Task) else ()
    own = {id(policy) for policy in unit.policies}
    layers = tuple(_layer(one) for one in declared if id(one.policy) in own)
    if isinstance(unit, Task):
        layers = tuple(_layer(Declared(one, f"task:{unit.name}")) for one in unit.policies if hasattr(one, "band"))
    return PlannedNode(**common, output=_type_name(unit.signature.returns), layers=layers)


def _planned_step(
    bound: BoundStep, unit: Unit[..., Any], common: dict[str, Any], variants: tuple[PlannedVariant, ...]
) -> PlannedNode:
    return PlannedNode(
        **common,
        models=tuple(model.name for model in bound.models),
        output=_type_name(unit.signature.returns),
        prompt_version=bound.version,
        wording=_wording(bound) if not variants else "",
        variants=variants,
        layers=tuple(_with_ends(bound)),
    )


def _planned_variant(label: str, share: float, bound: BoundStep) -> PlannedVariant:
    return PlannedVariant(
        label=label,
        share=share,
        prompt_version=bound.version,
        wording=_wording(bound),
        params=dict(bound.params(bound.model)),
    )


def _wording(bound: BoundStep) -> str:
    wording = bound.step.wording
    return "" if wording is None else wording.origin


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
    if isinstance(value, Decimal):  # dollars
        return repr(f"{value:f}")
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _type_name(annotation: object) -> str:
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return annotation.__name__
    return str(annotation).replace("typing.", "")
