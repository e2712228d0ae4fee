"""What may be read of a value whose type is all that is known.

Everything here answers from annotations alone. Where they do not say enough, the answer is yes: a wrong refusal would
stop a program that works, and what is let through is still checked by the author's type checker.
"""

from __future__ import annotations

import difflib
import enum
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from typing_extensions import is_typeddict

from llmflow.graph._fields import fields_of, fixed_items, hints_of
from llmflow.graph._fits import fits
from llmflow.graph._types import NONE, display, is_a, is_open, members, owner_of, strip, union_of

__all__ = ["Unfit", "field_type", "item_type"]

_MISSING = object()


class Unfit(Exception):
    """A type does not allow what was attempted; the message says why. The trace turns it into a DefinitionError."""


def field_type(annotation: Any, name: str) -> Any:
    """Return the type of a field or property.

    Raises:
        Unfit: When a value of this type has no such field, or may be None.
    """
    return _each(annotation, f"has no field {name!r}", lambda kind: _field(kind, name))


def item_type(annotation: Any, key: object) -> Any:
    """Return the type of what a constant index or key gives.

    Raises:
        Unfit: When a value of this type has no such item, or may be None.
    """
    return _each(annotation, f"has no item {key!r}", lambda kind: _item(kind, key))


def _each(annotation: Any, lacks: str, look: Callable[[Any], Any]) -> Any:
    alternatives = members(annotation)
    if NONE in alternatives and len(alternatives) > 1:
        msg = f"its type is {display(annotation)}, and None {lacks}"
        raise Unfit(msg)
    found: list[Any] = []
    for kind in alternatives:
        if get_origin(kind) is Literal:
            found.extend(look(type(value)) for value in get_args(kind))
        else:
            found.append(Any if is_open(kind) else look(kind))
    return union_of(found)


def _field(kind: Any, name: str) -> Any:
    owner = owner_of(kind)
    if is_typeddict(owner):
        msg = f"{display(kind)} is a TypedDict; write [{name!r}]"
        raise Unfit(msg)
    fields = fields_of(kind)
    if fields is not None and name in fields:
        return fields[name]
    if is_a(owner, enum.Enum) and name in ("name", "value"):
        return str if name == "name" else union_of([type(one.value) for one in owner])
    attribute = inspect.getattr_static(owner, name, _MISSING)
    if attribute is _MISSING:
        return _unlisted_field(kind, owner, fields, name)
    return _attribute_type(kind, attribute, name)


def _attribute_type(kind: Any, attribute: Any, name: str) -> Any:
    """Return the type of what is no declared field: properties may be read, methods not."""
    if isinstance(attribute, property | functools.cached_property):
        getter = attribute.func if isinstance(attribute, functools.cached_property) else attribute.fget
        return hints_of(getter).get("return", Any)
    if callable(attribute) or isinstance(attribute, classmethod | staticmethod):
        msg = f"{name!r} is a method of {display(kind)}, and a method needs a real value"
        raise Unfit(msg)
    return Any


def _unlisted_field(kind: Any, owner: Any, fields: Mapping[str, Any] | None, name: str) -> Any:
    if fields is None and is_a(owner, object) and owner.__module__ != "builtins" and _may_have_more(owner):
        return hints_of(owner).get(name, Any)
    if is_a(owner, BaseModel) and owner.model_config.get("extra") == "allow":
        msg = (
            f"{name!r} is no declared field of {display(kind)} and whether it is there is only known when the flow runs"
        )
        raise Unfit(msg)
    raise Unfit(_unknown(kind, name, tuple(fields or ()), "field"))


def _may_have_more(owner: type[Any]) -> bool:
    """Whether instances carry attributes that the class does not list."""
    return "__dict__" in dir(owner) or hasattr(owner, "__getattr__")


def _unknown(kind: Any, name: object, known: tuple[object, ...], what: str) -> str:
    close = difflib.get_close_matches(str(name), [str(one) for one in known], n=3)
    if close:
        return f"{display(kind)} has no {what} {name!r}; did you mean {' or '.join(map(repr, close))}?"
    listed = f"; it has {', '.join(map(repr, known))}" if known else ""
    return f"{display(kind)} has no {what} {name!r}{listed}"


def _item(kind: Any, key: object) -> Any:
    owner = owner_of(kind)
    if is_typeddict(owner):
        hints = hints_of(owner)
        if key not in hints:
            raise Unfit(_unknown(kind, key, tuple(hints), "key"))
        return strip(hints[str(key)])
    if is_a(owner, tuple):
        return _tuple_item(kind, key)
    if is_a(owner, Mapping):
        return _mapping_item(kind, key)
    if is_a(owner, Sequence):
        return _sequence_item(kind, owner, key)
    if hasattr(owner, "__getitem__"):
        return hints_of(owner.__getitem__).get("return", Any)
    hint = f"; write .{key}" if isinstance(key, str) and key in (fields_of(kind) or ()) else ""
    msg = f"{display(kind)} has no items{hint}"
    raise Unfit(msg)


def _tuple_item(kind: Any, key: object) -> Any:
    _check_index(kind, key)
    assert isinstance(key, int)
    items = fixed_items(kind)
    if items is None:
        arguments = get_args(kind)
        return arguments[0] if arguments else Any
    if not -len(items) <= key < len(items):
        msg = f"{display(kind)} has {len(items)} items, and no item {key}"
        raise Unfit(msg)
    return items[key]


def _mapping_item(kind: Any, key: object) -> Any:
    arguments = get_args(kind)
    if len(arguments) != 2:  # noqa: PLR2004  # key and value
        return Any
    if not fits(Literal[key], arguments[0]):
        msg = f"{display(kind)} has keys of type {display(arguments[0])}, not {key!r}"
        raise Unfit(msg)
    return arguments[1]


def _sequence_item(kind: Any, owner: Any, key: object) -> Any:
    _check_index(kind, key)
    if is_a(owner, str):
        return str
    if is_a(owner, bytes, bytearray):
        return int
    arguments = get_args(kind)
    return arguments[0] if arguments else Any


def _check_index(kind: Any, key: object) -> None:
    if isinstance(key, slice):
        msg = f"a slice of {display(kind)} needs a real value; only a constant index is possible"
        raise Unfit(msg)
    if not isinstance(key, int) or isinstance(key, bool):
        msg = f"{display(kind)} is indexed by a whole number, not {key!r}"
        raise Unfit(msg)
