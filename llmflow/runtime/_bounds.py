"""What steps, tasks, flows and the nodes of a graph take at worst."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from llmflow.engine._places import Places
from llmflow.graph import BoundFlow, Flow, Graph, Node, Task
from llmflow.graph._ir import map_call
from llmflow.policy import Bounds, Declared, Off
from llmflow.runtime._chains import Pot, Prompts, pots_of, refusal, worst_of_step, worst_of_task
from llmflow.runtime._known import ask_for, awaits, calls_itself, items_of, tokens_of, values_of
from llmflow.runtime._words import spending_in_words
from llmflow.step import BoundStep, BoundVariants, Step, Unit

if TYPE_CHECKING:
    from llmflow.context import Scope
    from llmflow.messages import Ask
    from llmflow.models import Model
    from llmflow.step import MapCall

__all__ = ["Cost", "Costs", "explained", "flow_limit", "mapped", "one_of"]

ASSUMES = "assumes"
"""How a note begins that says what a bound rests on, rather than why there is none."""
Inputs = Mapping[str, object]


class Cost(NamedTuple):
    """What one node takes.

    Attributes:
        each: Its bounds; those of one item for a map.
        total: Its bounds over all items, the same as `each` for anything but a map.
        pots: Budgets of the run that every request of it is charged to; None for what sends nothing.
        items: How many items a map has, None when that is not known.
    """

    each: Bounds
    total: Bounds
    pots: frozenset[Pot] | None
    items: int | None = None

    @classmethod
    def of(cls, bounds: Bounds, pots: frozenset[Pot] | None) -> Cost:
        return cls(bounds, bounds, None if bounds.calls == 0 else pots)


class Costs:
    """Finds worst cases for one runtime, under one assumption about prompts that nobody knows yet.

    Args:
        runtime: What units are bound to.
        prompt_tokens: What a prompt is taken to have at most, when its inputs are not known.
    """

    def __init__(self, runtime: Any, prompt_tokens: int) -> None:
        self._runtime = runtime
        self._prompt_tokens = prompt_tokens
        self.refused: dict[str, str] = {}
        """Which steps no request of theirs can be paid for, and why."""

    @property
    def assumption(self) -> str:
        """The note on prompts that are not known."""
        return f"{ASSUMES} prompts of up to {self._prompt_tokens:,} tokens; change with prompt_tokens="

    # -- units ---------------------------------------------------------------------------------------------------------

    def of_unit(self, unit: Unit[..., Any], scope: Scope | None, inputs: Inputs | None) -> Cost:
        """Return what one call of a step, task or flow takes."""
        if isinstance(unit, Step):
            return self._of_step(unit, scope, inputs)
        if isinstance(unit, Task):
            return _of_task(unit)
        assert isinstance(unit, Flow)
        return self._of_flow(unit, scope, inputs)

    def _of_step(self, step: Step[..., Any], scope: Scope | None, inputs: Inputs | None) -> Cost:
        bound = step.bound(self._runtime, scope)
        if isinstance(bound, BoundVariants):  # one of them is asked, nobody knows which before the run has its key
            return one_of([self._of_bound(arm.bound, step, inputs) for arm in bound.arms if arm.share])
        assert isinstance(bound, BoundStep)
        return self._of_bound(bound, step, inputs)

    def _of_bound(self, bound: BoundStep, step: Step[..., Any], inputs: Inputs | None) -> Cost:
        ask = None if inputs is None else ask_for(bound, dict(inputs))
        if (why := refusal(bound, self._prompts(ask, unknown=0))) is not None:
            self.refused.setdefault(step.name, why if bound.label is None else f"{why} (variant {bound.label!r})")
        bounds = worst_of_step(bound, self._prompts(ask, unknown=self._prompt_tokens))
        if ask is None and bounds.usd:
            bounds = bounds.because(self.assumption)
        if step.is_async and awaits(step.body):
            bounds = bounds.lasting(None).because(
                f"the body of step {step.name!r} waits for something before it asks, which no policy limits"
            )
        return Cost.of(*_with_calls_inside(step, bounds, pots_of(bound)))

    def _prompts(self, ask: Ask | None, *, unknown: int) -> Prompts:
        def tokens(model: Model) -> int:
            return unknown if ask is None else tokens_of(ask, model, self._runtime)

        return tokens

    def _of_flow(self, flow: Flow[..., Any], scope: Scope | None, inputs: Inputs | None) -> Cost:
        limit = flow_limit(flow, self._runtime, scope)
        if flow.eager:
            bounds = Bounds(seconds=limit, notes=(f"flow {flow.name!r} is eager: what it does is decided as it runs",))
            return Cost.of(bounds, frozenset())
        return self.of_graph(flow.graph(), scope, inputs, limit)

    # -- graphs --------------------------------------------------------------------------------------------------------

    def of_graph(self, graph: Graph, scope: Scope | None, inputs: Inputs | None, limit: float | None) -> Cost:
        """Return what all nodes of a graph take together; those that need nothing of each other run side by side."""
        places = Places(scope)
        costs = [self.of_node(node, places, inputs) for node in graph.nodes]
        total, pots = _together(costs)
        ends: list[float | None] = []
        for node, cost in zip(graph.nodes, costs, strict=True):
            ends.append(_later(_last([ends[index] for index in node.after]), cost.total.seconds))
        total = total.lasting(_last(ends)).at_most(seconds=limit)
        return Cost.of(explained(total, [cost.total for cost in costs]), pots)

    def of_node(self, node: Node, places: Places, inputs: Inputs | None) -> Cost:
        """Return what a node of a graph takes; of its branches only one runs, but those of `or_else` may both."""
        if node.kind == "or_else":
            return _one_after_the_other([self.of_node(one, places, inputs) for one in node.branches.values()])
        if node.branches:
            return one_of([self.of_node(one, places, inputs) for one in node.branches.values()])
        if node.unit is None:
            return Cost.of(Bounds.nothing(), None)
        scope = places.scopes[places.of(node.scope)]
        if node.kind == "map":
            return self._of_map(node, scope, inputs)
        return self.of_unit(node.unit, scope, values_of(node.inputs, inputs))

    def _of_map(self, node: Node, scope: Scope, inputs: Inputs | None) -> Cost:
        assert node.unit is not None
        assert node.mapping is not None
        concurrency = node.mapping.concurrency
        (items, count), fixed = items_of(node.items, inputs), values_of(node.inputs, inputs)
        if items is None or fixed is None:
            return mapped(self.of_unit(node.unit, scope, None), count, concurrency, node.key)
        mapping = map_call(node, items, fixed)
        mapping.discard()  # it is not going to run
        return mapped(self.of_items(mapping, scope, items), count, concurrency, node.key)

    def of_items(self, mapping: MapCall[Any, Any, Any], scope: Scope | None, items: Collection[Any]) -> Cost:
        """Return what the dearest item of a map takes; only the prompts of a step can be told apart."""
        unit = mapping.unit
        if not isinstance(unit, Step):
            return self.of_unit(unit, scope, None)
        costs: list[Cost] = []
        for item in items:
            arguments = None
            with suppress(TypeError):  # an item that does not fit is the run's failure, and sends nothing
                arguments = mapping.arguments(item)
            costs.append(self.of_unit(unit, scope, arguments))
        return one_of(costs)


def flow_limit(flow: Flow[..., Any], runtime: Any, scope: Scope | None = None) -> float | None:
    """Return the seconds after which a run of the flow is ended, None when nothing ends it."""
    bound = flow.bound(runtime, scope)
    assert isinstance(bound, BoundFlow)
    return None if math.isinf(bound.limit) else bound.limit


# -- putting costs together --------------------------------------------------------------------------------------------


def one_of(costs: Iterable[Cost]) -> Cost:
    worst, pots = Bounds.nothing(), None
    for cost in costs:
        worst, pots = worst.either(cost.total), _common(pots, cost.pots)
    return Cost.of(worst, pots)


def _one_after_the_other(costs: Iterable[Cost]) -> Cost:
    worst, pots = Bounds.nothing(), None
    for cost in costs:
        worst, pots = worst.then(cost.total), _common(pots, cost.pots)
    return Cost.of(_emptied(worst, pots or ()), pots)


def _together(costs: Iterable[Cost]) -> tuple[Bounds, frozenset[Pot] | None]:
    """Return the sum of what several nodes take, with no more for those that share a budget than it admits."""
    left = list(costs)
    everybody = None
    for cost in left:
        everybody = _common(everybody, cost.pots)
    worst = Bounds.nothing()
    while pot := _widest(left):
        sharing = [cost for cost in left if pot in (cost.pots or ())]
        left = [cost for cost in left if pot not in (cost.pots or ())]
        worst = worst.then(_emptied(_sum(sharing), (pot,)))
    return _emptied(worst.then(_sum(left)), everybody or ()), everybody


def _widest(costs: list[Cost]) -> Pot | None:
    """Return the budget that most of the nodes share, None when no two share one."""
    shared = [pot for cost in costs for pot in cost.pots or ()]
    widest = max(dict.fromkeys(shared), key=shared.count, default=None)
    return widest if widest is not None and shared.count(widest) > 1 else None


def _sum(costs: Iterable[Cost]) -> Bounds:
    worst = Bounds.nothing()
    for cost in costs:
        worst = worst.then(cost.total)
    return worst


def _emptied(bounds: Bounds, pots: Iterable[Pot]) -> Bounds:
    for pot in pots:
        bounds = bounds.at_most(calls=pot.calls, usd=pot.usd)
    return bounds


def _common(one: frozenset[Pot] | None, other: frozenset[Pot] | None) -> frozenset[Pot] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def mapped(cost: Cost, items: int | None, concurrency: int, key: str) -> Cost:
    """Return what a map takes: its workers take items one after the other."""
    each = cost.total
    if items is not None:
        rounds = -(-items // concurrency)
        total = each.times(items).lasting(None if each.seconds is None else each.seconds * rounds)
    else:
        nothing = Bounds.nothing()
        note = (
            f"{key!r} takes {spending_in_words(each)} for each item, and how many there are is known only when it runs"
        )
        total = Bounds(
            calls=nothing.calls if each.calls == 0 else None,
            usd=nothing.usd if each.usd == 0 else None,
            notes=(*each.notes, note),
        )
    return Cost(each, _emptied(total, cost.pots or ()), cost.pots, items)


def _last(ends: Iterable[float | None]) -> float | None:
    known = [one for one in ends if one is not None]
    return None if len(known) < len(list(ends)) else max(known, default=0.0)


def _later(start: float | None, seconds: float | None) -> float | None:
    return None if start is None or seconds is None else start + seconds


def explained(total: Bounds, parts: Iterable[Bounds]) -> Bounds:
    """Return a sum with the notes of those parts alone that say why something of it is not known."""
    notes: list[str] = []
    for part in parts:
        lost = any(getattr(total, name) is None and getattr(part, name) is None for name in ("calls", "usd", "seconds"))
        notes += part.notes if lost else [one for one in part.notes if one.startswith(ASSUMES)]
    return Bounds(calls=total.calls, usd=total.usd, seconds=total.seconds).because(*notes)


# -- tasks, and what bodies call by themselves -------------------------------------------------------------------------


def _of_task(task: Task[..., Any]) -> Cost:
    layers = [Declared(one, f"task:{task.name}") for one in task.policies if not isinstance(one, Off)]
    bounds = worst_of_task(sorted(layers, key=lambda one: one.band))
    if bounds.seconds is None:
        bounds = bounds.because(f"task {task.name!r} has neither a Timeout nor a Deadline")
    bounds, pots = _with_calls_inside(task, bounds, None)
    return Cost.of(bounds, pots)


def _with_calls_inside(
    unit: Unit[..., Any], bounds: Bounds, pots: frozenset[Pot] | None
) -> tuple[Bounds, frozenset[Pot] | None]:
    """Return the bounds of a unit whose body may call others, as often as it likes."""
    inner = calls_itself(unit.function)
    if inner is None:
        return bounds, pots
    note = (
        f"the body of {unit.kind} {unit.name!r} names {inner.kind} {inner.name!r}, and may call it any number of times"
    )
    return Bounds(seconds=bounds.seconds, notes=bounds.notes).because(note), frozenset()
