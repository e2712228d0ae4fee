"""Values of the traced body turned into operands of the graph."""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import AsyncIterator, ItemsView, Iterator, KeysView, Mapping, ValuesView
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, cast

from llmflow.graph._ir import Constant, Input, Operand, Ref, Structure
from llmflow.graph._placeholder import is_placeholder, state_of
from llmflow.graph._types import Literals, union_of
from llmflow.step import MapCall
from llmflow.step._call import Deferred

if TYPE_CHECKING:
    from llmflow.graph._trace import Trace

__all__ = ["nodes_in", "to_operand", "type_of", "values_in"]

_CONTAINERS = (list, tuple, dict)
_MOST_PARTS = 10_000
_ATOMS = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType)


def to_operand(value: object, trace: Trace, what: str) -> Operand:
    """Return where a value comes from; `what` says in errors what it is used as.

    Lists, tuples and dicts may have placeholders in them. In any other object a placeholder would be taken for a
    value when the flow runs, so that is refused.
    """
    if is_placeholder(value):
        state = state_of(value)
        trace.check_own(state)
        return state.operand
    if type(value) in _CONTAINERS and _holds_placeholder(value):
        return _structure(cast("Any", value), trace, what)
    _check_constant(value, trace, what)
    return Constant(value, shared=id(value) in trace.outer)


def _structure(value: list[object] | tuple[object, ...] | dict[object, object], trace: Trace, what: str) -> Structure:
    if isinstance(value, dict):
        return Structure(dict, tuple(to_operand(one, trace, what) for one in value.values()), tuple(value))
    return Structure(type(value), tuple(to_operand(one, trace, what) for one in value))


def _holds_placeholder(value: object) -> bool:
    if is_placeholder(value):
        return True
    if type(value) is dict:
        return any(map(_holds_placeholder, cast("dict[object, object]", value).values()))
    return type(value) in (list, tuple) and any(map(_holds_placeholder, cast("list[object]", value)))


def type_of(value: object) -> Any:
    """Return the type of a value of the traced body as far as it is known; constants are not judged."""
    if is_placeholder(value):
        return state_of(value).annotation
    if not (type(value) in _CONTAINERS and _holds_placeholder(value)):
        return Any
    if isinstance(value, dict):
        kinds = cast("dict[object, object]", value)
        if all(isinstance(key, str) for key in kinds):
            constants = {str(key): _constant(one) for key, one in kinds.items() if not _is_unknown(one)}
            return Literals({str(key): type_of(one) for key, one in kinds.items()}, constants)
        return dict[Any, union_of([type_of(one) for one in value.values()])]  # type: ignore[misc]
    inside = [type_of(one) for one in cast("list[object]", value)]
    return tuple[tuple(inside)] if isinstance(value, tuple) else list[union_of(inside)]  # type: ignore[misc]


def _is_unknown(value: object) -> bool:
    return is_placeholder(value) or type(value) in _CONTAINERS


def _constant(value: object) -> Any:
    if value is None or type(value) in (str, int, bool):
        return Literal[value]
    return float if type(value) is float else Any


def values_in(operand: Operand) -> Iterator[Input | Ref]:
    """Yield the inputs and nodes an operand takes from."""
    if isinstance(operand, Structure):
        for item in operand.items:
            yield from values_in(item)
    elif not isinstance(operand, Constant):
        yield operand


def nodes_in(*operands: Operand | None) -> tuple[int, ...]:
    """Return the indices of the nodes that operands need, each once."""
    found: dict[int, None] = {}
    for operand in operands:
        if operand is not None:
            found.update((one.node, None) for one in values_in(operand) if isinstance(one, Ref))
    return tuple(found)


# -- what may not be a constant ----------------------------------------------------------------------------------------


def _check_constant(value: object, trace: Trace, what: str) -> None:
    """Raise for what would go wrong unnoticed: forgotten awaits, hidden placeholders, what can be read only once."""
    forgotten = [name for one in _nested(value) if (name := _forgotten(one)) is not None]
    if forgotten:
        has = "is" if not isinstance(value, _CONTAINERS) else "has in it"
        raise trace.fail(f"{what} {has} a call of {forgotten[0]!r} that was not awaited; write `await` before it")
    if _is_iterator(value):
        raise trace.fail(
            f"{what} is {_kind(value)}, which can be read only once, but the flow may run many times; "
            f"give a list, or use @flow(eager=True)"
        )
    if _hides_placeholder(value):
        raise trace.fail(
            f"{what} is {_kind(value)} with a value in it that is only known when the flow runs; "
            f"construct it with build({_kind(value)}, ...) or in a @task, or use @flow(eager=True)"
        )


def _nested(value: object) -> Iterator[object]:
    """Yield a value, or everything in it when it is a list, tuple or dict."""
    if type(value) is dict:
        for one in cast("dict[object, object]", value).values():
            yield from _nested(one)
    elif type(value) in (list, tuple):
        for one in cast("list[object]", value):
            yield from _nested(one)
    else:
        yield value


def _is_iterator(value: object) -> bool:
    return isinstance(value, Iterator | AsyncIterator)


def _kind(value: object) -> str:
    return type(value).__name__


def _forgotten(value: Any) -> str | None:
    """Return the name of a call that nobody awaited, and give it up."""
    if isinstance(value, types.CoroutineType):
        value.close()
        return str(value.__name__)
    if isinstance(value, Deferred | MapCall):
        value.discard()
        return str(value.unit.name if isinstance(value, MapCall) else value.name)
    return None


def _hides_placeholder(value: object) -> bool:
    """Look for a placeholder in whatever an object consists of, but not through half of the program."""
    seen: set[int] = set()
    kept: list[object] = []
    waiting: list[object] = [value]
    while waiting and len(seen) < _MOST_PARTS:
        one = waiting.pop()
        if is_placeholder(one):
            return True
        if isinstance(one, _ATOMS) or id(one) in seen:
            continue
        seen.add(id(one))
        kept.append(one)  # so that nothing made on the way gets the id of another
        waiting.extend(_parts(one))
    return False


def _parts(value: Any) -> Iterator[object]:
    """Yield what an object holds: its items, then its attributes."""
    yield from _items(value)
    if isinstance(value, types.FunctionType):
        return
    yield from getattr(value, "__dict__", {}).values()
    for owner in type(value).__mro__:
        names: Any = owner.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            yield getattr(value, name, None)


def _items(value: object) -> Iterator[object]:  # noqa: C901  # one for each kind of object
    if isinstance(value, dict):
        yield from cast("dict[object, object]", value).values()
    elif isinstance(value, list | tuple | set | frozenset | deque | KeysView | ValuesView):
        yield from cast("list[object]", value)
    elif isinstance(value, ItemsView):  # the standard comparison of pairs is of no interest
        for pair in cast("ItemsView[object, object]", value):
            yield from pair
    elif isinstance(value, types.MappingProxyType):
        yield from cast("Mapping[object, object]", value).values()
    elif isinstance(value, BaseException):
        yield from value.args
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, types.FunctionType):
        yield from _closed_over(value)
    elif isinstance(value, types.MethodType):
        yield value.__self__
        yield value.__func__
    elif isinstance(value, types.BuiltinMethodType):
        yield value.__self__


def _closed_over(function: types.FunctionType) -> Iterator[object]:
    """Yield what a function has from where it was defined."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # not assigned yet
            yield cell.cell_contents
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
