"""Annotations taken apart: what is behind them, of what they consist, which values they have."""

from __future__ import annotations

import enum
import inspect
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import (
    Any,
    ClassVar,
    Final,
    Literal,
    NotRequired,
    Required,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

from pydantic import BaseModel
from typing_extensions import is_typeddict

from llmflow.schema._annotations import display, unwrap

__all__ = [
    "NONE",
    "Literals",
    "cases",
    "display",
    "is_a",
    "is_open",
    "items_of",
    "members",
    "owner_of",
    "strip",
    "union_of",
]


@dataclass(frozen=True)
class Literals:
    """The type of a dict that is written out: what each of its keys has."""

    items: Mapping[str, Any]
    constants: Mapping[str, Any]

    @property
    def plain(self) -> Any:
        """The type it is when no TypedDict is wanted."""
        return dict[str, union_of(list(self.items.values()))] if self.items else dict[str, Any]  # type: ignore[misc]

    def __hash__(self) -> int:
        return hash(tuple(self.items))

    def __str__(self) -> str:
        return display(self.plain)


NONE = type(None)
_MARKERS = (ClassVar, Final, Required, NotRequired)


def strip(annotation: Any) -> Any:
    """Return what is inside `Annotated`, aliases, `NewType`, `NotRequired` and their like; None for `NONE`."""
    annotation = unwrap(annotation)
    while get_origin(annotation) in _MARKERS:
        annotation = unwrap(get_args(annotation)[0])
    return NONE if annotation is None else annotation


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union, or the type itself."""
    kind = strip(annotation)
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(one for argument in get_args(kind) for one in members(argument))
    return (kind,)


def union_of(annotations: Sequence[Any]) -> Any:
    """Return the union of several types, without repetition."""
    found: list[Any] = []
    for one in annotations:
        if isinstance(one, Literals) and len(annotations) > 1:
            one = one.plain  # noqa: PLW2901  # a union has no place for it
        found.extend(member for member in members(one) if member not in found)
    return found[0] if len(found) == 1 else Union[tuple(found)]  # noqa: UP007  # made at run time


def is_open(kind: Any) -> bool:
    """Whether the annotation says nothing about the value."""
    return kind is Any or isinstance(kind, TypeVar | str) or kind is inspect.Parameter.empty


def owner_of(annotation: Any) -> Any:
    """Return the class behind a type: `list` for `list[int]`."""
    kind = strip(annotation)
    return get_origin(kind) or kind


def is_a(owner: Any, *kinds: type[Any]) -> bool:
    """Whether it is a class below one of `kinds`."""
    return isinstance(owner, type) and issubclass(owner, kinds)


def items_of(annotation: Any) -> Any:
    """Return the type of what iterating gives, None for what is no collection."""
    found: list[Any] = []
    for member in members(annotation):
        kind = member.plain if isinstance(member, Literals) else member
        owner, arguments = owner_of(kind), get_args(kind)
        if is_open(kind) or not isinstance(owner, type):
            return Any
        if is_typeddict(owner) or is_a(owner, str, bytes, BaseModel) or not hasattr(owner, "__iter__"):
            return None
        if is_a(owner, tuple):
            found.extend(one for one in arguments if one is not Ellipsis)
        elif not arguments:
            return Any
        else:
            found.append(arguments[0])
    return union_of(found) if found else Any


def cases(annotation: Any) -> tuple[object, ...] | None:
    """Return every value a type has when they can be counted: Literal, Enum, bool, None and unions of them."""
    found: list[object] = []
    for kind in members(annotation):
        if get_origin(kind) is Literal:
            found.extend(get_args(kind))
        elif kind is bool:
            found.extend((True, False))
        elif kind is NONE:
            found.append(None)
        elif is_a(kind, enum.Enum) and not is_a(kind, enum.Flag):
            found.extend(kind)
        else:
            return None
    return tuple(found)
