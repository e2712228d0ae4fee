"""What is known of a run before it starts: values of a graph's operands, prompts, and what a body calls by itself."""

from __future__ import annotations

import dis
from collections.abc import Collection, Coroutine, Iterator, Mapping
from math import ceil
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from llmflow.graph import Constant, Input, Operand, Structure
from llmflow.messages import Ask, CallScope
from llmflow.prompts import Prompt
from llmflow.step import Unit
from llmflow.tokens import token_estimator

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmflow.models import Model
    from llmflow.policy import Site
    from llmflow.step import BoundStep

__all__ = ["ask_for", "awaits", "calls_itself", "items_of", "tokens_of", "value_of", "values_of"]

MARGIN = 4 / 3
"""Estimates are below the truth for dense JSON, by a quarter; a bound must not be."""
UNKNOWN: Final = object()
"""Stands for a value that only the run will have."""

Inputs = Mapping[str, object]


# -- operands ----------------------------------------------------------------------------------------------------------


def value_of(operand: Operand | None, inputs: Inputs | None) -> object:
    """Return the value of an operand, `UNKNOWN` when it depends on a step or on an input nobody gave."""
    match operand:
        case Constant(value):
            return value
        case Input(name, path) if inputs is not None and name in inputs:
            return _inside(inputs[name], path)
        case Structure(kind, items, keys):
            values = [value_of(one, inputs) for one in items]
            if any(one is UNKNOWN for one in values):
                return UNKNOWN
            return dict(zip(keys, values, strict=True)) if kind is dict else kind(values)
        case _:
            return UNKNOWN


def _inside(value: Any, path: tuple[tuple[str, Any], ...]) -> object:
    try:
        for kind, key in path:
            value = getattr(value, key) if kind == "attr" else value[key]
    except (AttributeError, LookupError, TypeError):  # the run will say so, at the right place
        return UNKNOWN
    return value


def values_of(operands: Mapping[str, Operand], inputs: Inputs | None) -> dict[str, object] | None:
    """Return all of them by name, None when one is not known."""
    values = {name: value_of(one, inputs) for name, one in operands.items()}
    return None if any(one is UNKNOWN for one in values.values()) else values


def items_of(operand: Operand | None, inputs: Inputs | None) -> tuple[Collection[Any] | None, int | None]:
    """Return the items of a map, and how many they are; each is None when it is not known."""
    value = value_of(operand, inputs)
    if value is UNKNOWN:
        return None, len(operand.items) if isinstance(operand, Structure) else None
    if not isinstance(value, Collection) or isinstance(value, str | bytes):
        return None, None
    items: Collection[Any] = value  # pyright: ignore[reportUnknownVariableType]  # narrowed to no argument
    return items, len(items)


# -- prompts -----------------------------------------------------------------------------------------------------------


def ask_for(bound: BoundStep, inputs: dict[str, object]) -> Ask | None:
    """Return what a step would ask for these inputs, None when its body does not say so without waiting.

    Whatever the body raises leaves unchanged: it would in the run.
    """
    step = bound.step
    if step.is_async and awaits(step.body):
        return None
    built: object = step.body(**inputs)
    if step.is_async:
        built = _without_waiting(cast("Coroutine[Any, Any, object]", built))
    if type(built) is not Prompt:
        return None
    call = CallScope(step=step.name, run_id="", call_id="")
    return Ask(
        messages=step.messages(built, inputs),
        model=bound.model,
        output=bound.output,
        inputs=inputs,
        deadline=float("inf"),
        call=call,
    )


def _without_waiting(coroutine: Coroutine[Any, Any, object]) -> object:
    """Return what a coroutine returns that waits for nothing."""
    returned: object = None
    try:
        coroutine.send(None)
    except StopIteration as stop:
        returned = cast("object", stop.value)
    coroutine.close()
    return returned


class _Where(NamedTuple):
    """As much of a `Site` as an estimator of tokens is found by."""

    model: Model
    shared: Callable[..., Any]


def tokens_of(ask: Ask, model: Model, runtime: Any) -> int:
    """Return the most tokens a prompt has for a model, by what this runtime has learned of it, and a third more."""
    site = _Where(model, runtime.shared)
    return ceil(token_estimator(cast("Site", site)).estimate(ask) * MARGIN)


# -- bodies ------------------------------------------------------------------------------------------------------------


def awaits(function: Any) -> bool:
    """Whether the body of an `async def` waits for anything."""
    return any(one.opname in ("GET_AWAITABLE", "GET_ANEXT") for one in dis.get_instructions(function))


def calls_itself(function: Any) -> Unit[..., Any] | None:
    """Return a step, task or flow that a body names, so that it may be called as often as the body likes."""
    code: CodeType = function.__code__
    cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
    for name in _names(code):
        value = _content(cells[name]) if name in cells else function.__globals__.get(name)
        inside = [getattr(value, key, None) for key in _names(code)] if isinstance(value, ModuleType) else [value]
        for one in inside:
            if isinstance(one, Unit):
                return cast("Unit[..., Any]", one)
    return None


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # what it will hold is defined further down
        return None


def _names(code: CodeType) -> Iterator[str]:
    yield from (*code.co_names, *code.co_freevars)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
