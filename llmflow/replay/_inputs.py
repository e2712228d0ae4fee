"""Recorded inputs made into the arguments of a call again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from pydantic_core import ValidationError, from_json, to_json

from llmflow.schema import codec_of
from llmflow.step import input_hash

if TYPE_CHECKING:
    from llmflow.schema import Codec
    from llmflow.step import Unit

__all__ = ["Misfit", "Restored", "restore"]


class Misfit(ValueError):
    """Recorded inputs are not what the function takes."""


class Restored(dict[str, object]):
    """The arguments of a call, by name.

    Attributes:
        is_exact: Whether they are what was given then; they are not when a type has changed since.
    """

    is_exact: bool = True


def restore(unit: Unit[..., Any], data: bytes, hashed: str | None) -> Restored:
    """Return the arguments that were recorded.

    Args:
        unit: What will be called.
        data: The arguments by name, as JSON.
        hashed: Their hash, as it was recorded.

    Raises:
        Misfit: When they do not fit its parameters, or were not stored as they were.
    """
    recorded: Any = from_json(data)
    if not isinstance(recorded, dict):
        msg = "they are no object"
        raise Misfit(msg)
    given = cast("dict[str, object]", recorded)
    unknown = [name for name in given if name not in unit.signature.names and name not in unit.fixed]
    if unknown:
        msg = f"there is no parameter {unknown[0]!r} any more"
        raise Misfit(msg)
    missing = [name for name in unit.signature.required if name not in given]
    if missing:
        msg = f"parameter {missing[0]!r} was not given then"
        raise Misfit(msg)
    restored = Restored({name: _restored(unit, name, value) for name, value in given.items() if name not in unit.fixed})
    whole = {**unit.fixed, **restored}
    restored.is_exact = hashed is None or input_hash({name: whole[name] for name in given}) == hashed  # in its order
    return restored


def _restored(unit: Unit[..., Any], name: str, value: object) -> object:
    if _is_stand_in(value):
        msg = f"argument {name!r} could not be stored, it is a {cast('Mapping[str, object]', value)['?']}"
        raise Misfit(msg)
    hint = unit.signature.hints.get(name, Any)
    codec = _codec(hint)
    if codec is None:
        msg = f"argument {name!r}: {hint!r} cannot be made from JSON"
        raise Misfit(msg)
    try:
        return codec.load(to_json(value))
    except ValueError as exc:
        msg = f"argument {name!r} does not fit any more: {_first_problem(exc)}"
        raise Misfit(msg) from exc


def _first_problem(exc: ValueError) -> str:
    """Return the first thing that pydantic has against a value, without the value."""
    cause = exc.__cause__
    if not isinstance(cause, ValidationError):
        return str(exc)
    first = cause.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else first["msg"]


def _is_stand_in(value: object) -> bool:
    """Whether a value only says of which type it was."""
    return isinstance(value, dict) and cast("dict[str, object]", value).keys() == {"?"}


@cache
def _cached(hint: Any) -> Codec | None:
    return codec_of(hint)


def _codec(hint: Any) -> Codec | None:
    try:
        return _cached(hint)
    except TypeError:  # an annotation that cannot be hashed
        return codec_of(hint)
