"""What classes declare: their fields, which of them are required, the items of a tuple."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NotRequired, Required, TypeVar, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from typing_extensions import is_typeddict

from llmflow.graph._types import is_a, owner_of, strip

__all__ = ["fields_of", "fixed_items", "hints_of", "required_fields"]


def fields_of(annotation: Any) -> Mapping[str, Any] | None:
    """Return the declared fields of a model, dataclass, TypedDict or NamedTuple with their types, None for others."""
    kind, owner = strip(annotation), owner_of(annotation)
    if is_a(owner, BaseModel):
        return {name: field.annotation for name, field in owner.model_fields.items()}
    if _is_dataclass(owner):
        hints = _substituted(kind, owner)
        return {field.name: hints.get(field.name, Any) for field in dataclasses.fields(owner)}
    if is_typeddict(owner) or _is_named_tuple(owner):
        return {name: strip(hint) for name, hint in _substituted(kind, owner).items()}
    return None


def required_fields(annotation: Any) -> tuple[str, ...]:
    """Return the fields that must be given when a value of this type is constructed."""
    owner: Any = owner_of(annotation)
    if is_typeddict(owner):
        return tuple(name for name, hint in hints_of(owner).items() if _is_required(owner, name, hint))
    if is_a(owner, BaseModel):
        return tuple(name for name, field in owner.model_fields.items() if field.is_required())
    if _is_dataclass(owner):
        missing = dataclasses.MISSING
        return tuple(
            one.name
            for one in dataclasses.fields(owner)
            if one.init and one.default is missing and one.default_factory is missing
        )
    if _is_named_tuple(owner):
        return tuple(name for name in owner._fields if name not in owner._field_defaults)
    return ()


def fixed_items(annotation: Any) -> tuple[Any, ...] | None:
    """Return the item types of a tuple whose length is known, None for everything else."""
    kind, owner = strip(annotation), owner_of(annotation)
    if _is_named_tuple(owner):
        return tuple((fields_of(kind) or {}).values())
    arguments = get_args(kind)
    if owner is not tuple or kind is tuple or Ellipsis in arguments:
        return None
    return arguments


def _is_required(owner: Any, name: str, hint: Any) -> bool:
    """Whether a TypedDict must have a key; its own list is wrong where annotations are strings."""
    return get_origin(hint) is Required or (get_origin(hint) is not NotRequired and name in owner.__required_keys__)


def _is_dataclass(owner: Any) -> bool:
    return isinstance(owner, type) and dataclasses.is_dataclass(cast("type[Any]", owner))


def _is_named_tuple(owner: Any) -> bool:
    return is_a(owner, tuple) and hasattr(owner, "_fields")


def _substituted(kind: Any, owner: Any) -> dict[str, Any]:
    """Return the hints of a generic class with the type variables replaced by the arguments of `kind`."""
    hints = hints_of(owner)
    variables = dict(zip(getattr(owner, "__parameters__", ()), get_args(kind), strict=False))
    return {name: _replace(hint, variables) for name, hint in hints.items()} if variables else hints


def _replace(hint: Any, variables: Mapping[Any, Any]) -> Any:
    if isinstance(hint, TypeVar):
        return variables.get(hint, hint)
    inside = getattr(hint, "__parameters__", ())
    return hint[tuple(variables.get(one, one) for one in inside)] if inside else hint


def hints_of(owner: Any) -> dict[str, Any]:
    """Return type hints as far as they can be resolved; a class may name what only its author's module knows."""
    try:
        return get_type_hints(owner, include_extras=True)
    except (NameError, TypeError, AttributeError, SyntaxError, ValueError):
        return {}
