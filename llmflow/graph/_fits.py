"""Whether a value of one type may be given where another is expected."""

from __future__ import annotations

import enum
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from typing_extensions import is_typeddict

from llmflow.graph._fields import fields_of, required_fields
from llmflow.graph._types import Literals, is_open, members, strip

__all__ = ["fits"]

_NUMBERS = {float: (int,), complex: (int, float)}


def fits(source: Any, target: Any) -> bool:
    """Return False when a value of type `source` cannot be one of type `target`; when unsure, True."""
    given, wanted = members(source), members(target)
    if any(is_open(kind) or kind is object for kind in wanted):
        return True
    return all(is_open(one) or _fits_any(one, wanted) for one in given)


def _fits_any(source: Any, targets: tuple[Any, ...]) -> bool:
    if get_origin(source) is Literal:
        return all(_value_fits(value, targets) for value in get_args(source))
    if source is bool and _value_fits(True, targets) and _value_fits(False, targets):  # bool is Literal[True, False]
        return True
    if any(_fits_one(source, target) for target in targets):
        return True
    if isinstance(source, enum.EnumMeta) and len(source):  # an enum is the Literal of its members
        return all(_value_fits(value, targets) for value in tuple[Any, ...](source))
    return False


def _value_fits(value: object, targets: tuple[Any, ...]) -> bool:
    for target in targets:
        if get_origin(target) is Literal:
            if any(type(value) is type(one) and value == one for one in get_args(target)):
                return True
        elif _fits_one(type(value), target):
            return True
    return False


def _fits_one(source: Any, target: Any) -> bool:  # noqa: PLR0911  # one for each kind of type
    if source == target or is_open(target):
        return True
    if isinstance(source, Literals):
        return _literal_fits(source, target)
    if get_origin(target) is Literal:
        return False
    one: Any = get_origin(source) or source
    other: Any = get_origin(target) or target
    if is_typeddict(one) or is_typeddict(other):
        return _typed_dict_fits(source, target, one, other)
    if not isinstance(one, type) or not isinstance(other, type) or getattr(other, "_is_protocol", False):
        return True
    if not _is_subclass(one, other):
        return any(_is_subclass(one, number) for number in _NUMBERS.get(other, ())) or _same_generic_model(one, other)
    return _arguments_fit(source, target, one, other)


def _literal_fits(source: Literals, target: Any) -> bool:
    """Whether a dict that is written out is what is wanted; a TypedDict takes no keys but its own."""
    owner = get_origin(target) or target
    if not is_typeddict(owner):
        return _fits_one(source.plain, target)
    wanted = fields_of(target) or {}
    return (
        all(name in wanted for name in source.items)
        and all(name in source.items for name in required_fields(owner))
        and all(fits(kind, wanted[name]) for name, kind in {**source.items, **source.constants}.items())
    )


def _typed_dict_fits(source: Any, target: Any, one: Any, other: Any) -> bool:
    if not is_typeddict(one):
        return False
    if not is_typeddict(other):
        return isinstance(other, type) and (
            getattr(other, "_is_protocol", False)
            or other is dict
            or _is_subclass(other, Mapping)
            or _is_subclass(dict, other)
        )
    given, wanted = fields_of(source) or {}, fields_of(target) or {}
    return all(name in given for name in required_fields(other)) and all(
        fits(given[name], hint) for name, hint in wanted.items() if name in given
    )


def _is_subclass(one: type[Any], other: type[Any]) -> bool:
    try:
        return issubclass(one, other)
    except TypeError:  # a class that refuses to be asked
        return True


def _same_generic_model(one: type[Any], other: type[Any]) -> bool:
    """Whether two pydantic models are one generic class with arguments that fit."""
    if not (issubclass(one, BaseModel) and issubclass(other, BaseModel)):
        return False
    given, wanted = one.__pydantic_generic_metadata__, other.__pydantic_generic_metadata__
    if one is wanted["origin"]:
        return True  # its arguments are not said
    if given["origin"] is None or given["origin"] is not wanted["origin"]:
        return False
    return all(fits(a, b) for a, b in zip(given["args"], wanted["args"], strict=False))


def _arguments_fit(source: Any, target: Any, one: type[Any], other: type[Any]) -> bool:
    """Compare type arguments covariantly, also for list: what a node gives is handed over and not kept."""
    given, wanted = get_args(source), get_args(target)
    if not given or not wanted:
        return True
    if one is tuple:
        return _tuple_fits(given, wanted, other)
    if issubclass(one, Mapping) and not issubclass(other, Mapping):
        given = given[:1]  # a mapping is iterated over its keys
    if len(given) != len(wanted) or Ellipsis in wanted:
        return True
    return all(fits(a, b) for a, b in zip(given, wanted, strict=True) if _is_type(a) and _is_type(b))


def _tuple_fits(given: tuple[Any, ...], wanted: tuple[Any, ...], other: type[Any]) -> bool:
    if other is not tuple:
        return all(fits(one, wanted[0]) for one in given if one is not Ellipsis)
    if Ellipsis in wanted:
        return all(fits(one, wanted[0]) for one in given if one is not Ellipsis)
    if Ellipsis in given:
        return False
    return len(given) == len(wanted) and all(fits(a, b) for a, b in zip(given, wanted, strict=True))


def _is_type(argument: Any) -> bool:
    """Whether a type argument is a type, and not the list of parameters of a Callable."""
    kind = strip(argument)
    return (
        isinstance(kind, type) or get_origin(kind) in (Literal, Union, types.UnionType) or get_origin(kind) is not None
    )
