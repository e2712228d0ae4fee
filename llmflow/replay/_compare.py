"""Two answers compared as JSON, field by field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias, cast

__all__ = ["WHOLE", "FieldState", "compare", "flatten"]

FieldState: TypeAlias = Literal["equal", "different", "missing", "added"]
"""`missing` for what only the recorded answer has, `added` for what only the new one has."""

WHOLE = "(answer)"
"""The path of an answer that has no fields."""

_Place: TypeAlias = tuple[str | int, ...]
_GRAVITY: tuple[FieldState, ...] = ("equal", "added", "missing", "different")


def flatten(value: object) -> dict[_Place, object]:
    """Return the leaves of a JSON value by their place; an empty object or list is a leaf."""
    return dict(_leaves(value, ()))


def compare(recorded: object, new: object) -> dict[str, FieldState]:
    """Return what became of each field, by its path: `category`, `items[].price`.

    Numbers are compared exactly, texts letter by letter. The items of a list are compared one by one; the path stands
    for all of them, and they are equal when each is.
    """
    was, now = flatten(recorded), flatten(new)
    fields: dict[str, FieldState] = {}
    for place in {**was, **now}:
        path, state = _path(place), _state(place, was, now)
        known = fields.get(path, state)
        fields[path] = state if _GRAVITY.index(state) > _GRAVITY.index(known) else known
    return fields


def _leaves(value: object, place: _Place) -> Iterator[tuple[_Place, object]]:
    if isinstance(value, dict) and value:
        for name, one in cast("dict[str, object]", value).items():
            yield from _leaves(one, (*place, name))
    elif isinstance(value, list) and value:
        for index, one in enumerate(cast("list[object]", value)):
            yield from _leaves(one, (*place, index))
    else:
        yield place, value


def _state(place: _Place, was: Mapping[_Place, object], now: Mapping[_Place, object]) -> FieldState:
    if place not in now:
        return "missing"
    if place not in was:
        return "added"
    return "equal" if _same(was[place], now[place]) else "different"


def _same(one: Any, other: Any) -> bool:
    """Whether two leaves are equal; true is not 1 here, but 1.0 is."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _path(place: _Place) -> str:
    """Return a place as people write it; a name that would be misread stands in quotes."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += "[]"
        elif part.isidentifier():
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part, ensure_ascii=False)}]"
    return text or WHOLE
