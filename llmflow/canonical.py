"""One text for one value: equal values of any process give the same, different ones never."""

from __future__ import annotations

import datetime as dt
import decimal
import hashlib
import pathlib
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, cast

__all__ = ["canonical", "quoted"]

_BY_TEXT = (
    dt.date,
    dt.time,
    dt.timedelta,
    dt.timezone,
    decimal.Decimal,
    uuid.UUID,
    pathlib.PurePath,
)


def canonical(value: object) -> str:
    """Return `value` as JSON in which every type that JSON does not know is named.

    Raises:
        TypeError: For a value that looks different in another process or says nothing about itself.
    """
    plain = _plain(value)
    return plain if plain is not None else _tagged(value)


def _plain(value: object) -> str | None:
    """Return what JSON itself can tell apart, None for anything else; subclasses count as something else."""
    kind = type(value)
    if value is None:
        return "null"
    if kind is str:
        return quoted(cast(str, value))
    if kind is bool:
        return "true" if value else "false"
    if kind is int or kind is float:
        return repr(value)
    if kind is list:
        return _listed(canonical(one) for one in cast("list[object]", value))
    return None


def _tagged(value: object) -> str:
    """Return an object of one field: the name of the type, and what tells its values apart."""
    return f"{{{quoted(_name(value))}:{_content(value)}}}"


def _content(value: Any) -> str:
    if isinstance(value, Enum):
        return quoted(value.name)
    if isinstance(value, bytes | bytearray):
        return quoted(hashlib.sha256(value).hexdigest())
    if isinstance(value, _BY_TEXT):
        return quoted(str(value))
    if isinstance(value, str | int | float):
        return canonical(_bare(value))
    return _parts(value)


def _parts(value: Any) -> str:
    """Return the parts of what has parts, in an order that does not depend on how it was made."""
    if isinstance(value, Mapping):
        return _mapped(cast("Mapping[object, object]", value))
    if isinstance(value, set | frozenset):
        return _listed(sorted(canonical(one) for one in cast("set[object]", value)))
    if isinstance(value, list | tuple):
        return _listed(canonical(one) for one in cast("tuple[object, ...]", value))
    if is_dataclass(value) and not isinstance(value, type):
        return _mapped({one.name: getattr(value, one.name) for one in fields(value)})
    if hasattr(cast("object", value), "__pydantic_fields__"):
        return _mapped({**value.__dict__, **(getattr(value, "__pydantic_extra__", None) or {})})
    msg = f"a {type(value).__name__} has no text that is the same in every process"
    raise TypeError(msg)


def _bare(value: str | float) -> str | int | float:
    """Return a value of a subclass as one of its base."""
    if isinstance(value, str):
        return str.__str__(value)
    return int(value) if isinstance(value, int) else float(value)


def _mapped(value: Mapping[Any, object]) -> str:
    return _listed(sorted(f"[{canonical(key)},{canonical(one)}]" for key, one in value.items()))


def _listed(texts: Iterable[str]) -> str:
    return f"[{','.join(texts)}]"


def _name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}:{kind.__qualname__}"
