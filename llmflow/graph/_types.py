"""What the types of a flow allow: which fields a value has, what an index gives, whether one type fits another.

Everything here answers from annotations alone. Where they do not say enough, the answer is yes: a wrong refusal would
stop a program that works, and what is let through is still checked by the author's type checker.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import functools
import inspect
import types
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, NotRequired, Required, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

from llmflow.schema._annotations import display, unwrap
from pydantic import BaseModel

__all__ = ["Unfit", "cases", "display", "field_type", "fields_of", "fixed_items", "is_open", "item_type", "items_of", "members", "required_fields", "strip", "union_of"]

NoneType = type(None)
_MARKERS = (ClassVar, Final, Required, NotRequired)
_MISSING = object()


class Unfit(Exception):  # noqa: N818  # never leaves the package: the trace turns it into a DefinitionError
    """A type does not allow what was attempted; the message says why."""


def strip(annotation: Any) -> Any:
    """Return what is inside `Annotated`, aliases, `NewType`, `NotRequired` and their like; None for `NoneType`."""
    annotation = unwrap(annotation)
    while get_origin(annotation) in _MARKERS:
        annotation = unwrap(get_args(annotation)[0])
    return NoneType if annotation is None else annotation


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
        found.extend(member for member in members(one) if member not in found)
    return found[0] if len(found) == 1 else Union[tuple(found)]  # noqa: UP007  # made at run time


def is_open(kind: Any) -> bool:
    """Whether the annotation says nothing about the value."""
    return kind is Any or isinstance(kind, TypeVar | str) or kind is inspect.Parameter.empty


# -- fields and indices ------------------------------------------------------------------------------------------------


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


def _each(annotation: Any, lacks: str, look: Any) -> Any:
    alternatives = members(annotation)
    if NoneType in alternatives and len(alternatives) > 1:
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
    owner: Any = get_origin(kind) or kind
    if is_typeddict(owner):
        msg = f"{display(kind)} is a TypedDict; write [{name!r}]"
        raise Unfit(msg)
    fields = fields_of(kind)
    if fields is not None and name in fields:
        return fields[name]
    if isinstance(owner, type) and issubclass(owner, enum.Enum) and name in ("name", "value"):
        return str if name == "name" else union_of([type(one.value) for one in owner])
    attribute = inspect.getattr_static(owner, name, _MISSING)
    if attribute is _MISSING:
        return _unlisted_field(kind, owner, fields, name)
    return _attribute_type(kind, attribute, name)


def _attribute_type(kind: Any, attribute: Any, name: str) -> Any:
    """Return the type of what is no declared field: properties may be read, methods not."""
    if isinstance(attribute, property | functools.cached_property):
        getter = attribute.func if isinstance(attribute, functools.cached_property) else attribute.fget
        return _hints(getter).get("return", Any)
    if callable(attribute) or isinstance(attribute, classmethod | staticmethod):
        msg = f"{name!r} is a method of {display(kind)}, and a method needs a real value"
        raise Unfit(msg)
    return Any


def _unlisted_field(kind: Any, owner: Any, fields: Mapping[str, Any] | None, name: str) -> Any:
    if fields is None and isinstance(owner, type) and owner.__module__ != "builtins" and _may_have_more(owner):
        return _hints(owner).get(name, Any)
    if isinstance(owner, type) and issubclass(owner, BaseModel) and owner.model_config.get("extra") == "allow":
        return Any
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
    owner: Any = get_origin(kind) or kind
    if is_typeddict(owner):
        hints = _hints(owner)
        if key not in hints:
            raise Unfit(_unknown(kind, key, tuple(hints), "key"))
        return strip(hints[key])  # type: ignore[index]
    if isinstance(owner, type) and issubclass(owner, tuple):
        return _tuple_item(kind, key)
    if isinstance(owner, type) and issubclass(owner, Mapping):
        return _mapping_item(kind, key)
    if isinstance(owner, type) and issubclass(owner, Sequence):
        return _sequence_item(kind, owner, key)
    if hasattr(owner, "__getitem__"):
        return _hints(owner.__getitem__).get("return", Any)
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
    if not is_open(strip(arguments[0])) and not _is_key(key, arguments[0]):
        msg = f"{display(kind)} has keys of type {display(arguments[0])}, not {key!r}"
        raise Unfit(msg)
    return arguments[1]


def _is_key(key: object, annotation: Any) -> bool:
    from llmflow.graph._fits import fits  # noqa: PLC0415  # which is built on this module

    return fits(Literal[key], annotation)  # type: ignore[valid-type]


def _sequence_item(kind: Any, owner: type[Any], key: object) -> Any:
    _check_index(kind, key)
    if issubclass(owner, str):
        return str
    if issubclass(owner, bytes | bytearray):
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


# -- what types declare ------------------------------------------------------------------------------------------------


def fields_of(annotation: Any) -> Mapping[str, Any] | None:
    """Return the declared fields of a model, dataclass, TypedDict or NamedTuple with their types, None for others."""
    kind = strip(annotation)
    owner: Any = get_origin(kind) or kind
    if not isinstance(owner, type):
        return None
    if issubclass(owner, BaseModel):
        return {name: field.annotation for name, field in owner.model_fields.items()}
    if dataclasses.is_dataclass(owner):
        hints = _substituted(kind, owner)
        return {field.name: hints.get(field.name, Any) for field in dataclasses.fields(owner)}
    if is_typeddict(owner) or _is_named_tuple(owner):
        return {name: strip(hint) for name, hint in _substituted(kind, owner).items()}
    return None


def required_fields(annotation: Any) -> tuple[str, ...]:
    """Return the fields that must be given when a value of this type is constructed."""
    owner: Any = get_origin(annotation) or annotation
    if is_typeddict(owner):
        return tuple(sorted(owner.__required_keys__))
    if isinstance(owner, type) and issubclass(owner, BaseModel):
        return tuple(name for name, field in owner.model_fields.items() if field.is_required())
    if dataclasses.is_dataclass(owner):
        missing = dataclasses.MISSING
        return tuple(
            one.name for one in dataclasses.fields(owner) if one.init and one.default is missing and one.default_factory is missing
        )
    if _is_named_tuple(owner):
        return tuple(name for name in owner._fields if name not in owner._field_defaults)
    return ()


def fixed_items(annotation: Any) -> tuple[Any, ...] | None:
    """Return the item types of a tuple whose length is known, None for everything else."""
    kind = strip(annotation)
    owner: Any = get_origin(kind) or kind
    if _is_named_tuple(owner):
        return tuple((fields_of(kind) or {}).values())
    arguments = get_args(kind)
    if owner is not tuple or kind is tuple or Ellipsis in arguments:
        return None
    return arguments


def items_of(annotation: Any) -> Any:
    """Return the type of what iterating gives, None for what is no collection."""
    found: list[Any] = []
    for kind in members(annotation):
        owner: Any = get_origin(kind) or kind
        arguments = get_args(kind)
        if is_open(kind) or not isinstance(owner, type):
            return Any
        if is_typeddict(owner) or issubclass(owner, str | bytes | BaseModel) or not hasattr(owner, "__iter__"):
            return None
        if issubclass(owner, tuple):
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
        elif kind is NoneType:
            found.append(None)
        elif isinstance(kind, type) and issubclass(kind, enum.Enum) and not issubclass(kind, enum.Flag):
            found.extend(kind)
        else:
            return None
    return tuple(found)


def _is_named_tuple(owner: Any) -> bool:
    return isinstance(owner, type) and issubclass(owner, tuple) and hasattr(owner, "_fields")


def _substituted(kind: Any, owner: Any) -> dict[str, Any]:
    """Return the hints of a generic class with the type variables replaced by the arguments of `kind`."""
    hints = _hints(owner)
    variables = dict(zip(getattr(owner, "__parameters__", ()), get_args(kind), strict=False))
    return {name: _replace(hint, variables) for name, hint in hints.items()} if variables else hints


def _replace(hint: Any, variables: Mapping[Any, Any]) -> Any:
    if isinstance(hint, TypeVar):
        return variables.get(hint, hint)
    inside = getattr(hint, "__parameters__", ())
    return hint[tuple(variables.get(one, one) for one in inside)] if inside else hint


def _hints(owner: Any) -> dict[str, Any]:
    """Return type hints as far as they can be resolved; a class may name what only its author's module knows."""
    try:
        return get_type_hints(owner, include_extras=True)
    except Exception:  # noqa: BLE001  # whatever an annotation raises, it only means that nothing is known
        return {}
