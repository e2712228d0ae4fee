"""One text for a value that a prompt is made of: the same in every process, on every machine."""

from __future__ import annotations

import collections
import datetime as dt
import fractions
import re
import string
import typing
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal
from enum import Enum
from json.encoder import encode_basestring_ascii as quoted
from pathlib import PurePath
from types import GenericAlias, MappingProxyType, UnionType
from typing import Any, TypeAlias, TypeVar

from llmflow.canonical import canonical

__all__ = ["Note", "Refer", "Unseen", "Writer", "kind_of"]

Refer: TypeAlias = Callable[[Any], str]
"""Writes what is no data: a function, a class, an object of somebody's class."""

Note: TypeAlias = Callable[[Any, str], None]

_PLAIN = (type(None), bool, float, complex, type(...))
_BY_TEXT = (dt.date, dt.time, dt.timedelta, dt.timezone, Decimal, uuid.UUID)
_LISTS = (list, tuple, collections.deque)
_MAPPINGS = (dict, MappingProxyType, collections.OrderedDict, collections.defaultdict, collections.Counter)
_SETS = (set, frozenset)
_BASES: tuple[type[Any], ...] = (str, int, float, bytes, list, tuple, dict, set, frozenset)
_ALIASES = (GenericAlias, UnionType)


def kind_of(value: object) -> type[Any]:
    """Return the type of a value, whatever the value says that it is."""
    return type(value)


class Unseen(Exception):
    """A value whose content cannot be told, with the reason."""


class Writer:
    """Writes values; what is no data is left to `refer`.

    Args:
        refer: Writes functions, classes and objects.
        relative: Returns a path as it reads from the folder of the program, None for one that lies elsewhere.
        note: Takes a part of a value whose content cannot be told, and the reason; the rest is written.
    """

    def __init__(self, refer: Refer, relative: Callable[[str], str | None], note: Note) -> None:
        self._refer = refer
        self._relative = relative
        self._note = note

    def write(self, value: Any) -> str:  # noqa: PLR0911  # one for each kind of value
        """Return the text of a value.

        Raises:
            Unseen: When its content cannot be told.
        """
        kind = kind_of(value)
        if kind is str:
            return self._text(value)
        if kind is int:
            return hex(value)  # repr refuses very long ones
        if kind in _PLAIN:
            return repr(value)
        if kind is bytes:
            return f"b'{value.hex()}'"
        if kind in _LISTS:
            return self._listed(kind, map(self._part, value))
        if kind in _SETS:
            return self._listed(kind, sorted(map(self._part, value)))
        if kind in _MAPPINGS:
            return self._listed(kind, self._pairs(value))
        return self._tagged(value, kind)

    def _part(self, value: Any) -> str:
        try:
            return self.write(value)
        except Unseen as exc:
            self._note(value, str(exc))
            return f"unseen {kind_of(value).__qualname__}"

    # -- parts of the standard library ---------------------------------------------------------------------------------

    def _text(self, value: str) -> str:
        inside = self._relative(value)
        return quoted(value) if inside is None else f"path({quoted(inside)})"

    def _tagged(self, value: Any, kind: type[Any]) -> str:  # noqa: PLR0911  # as above
        if isinstance(value, PurePath):
            return self._path(value)
        if isinstance(value, Enum):
            return f"{self._refer(kind)}.{value.name}"
        if kind in _BY_TEXT:
            return canonical(value)
        if kind is range or kind is slice or kind is fractions.Fraction:
            return repr(value)
        if kind is re.Pattern:
            return f"pattern({self.write(value.pattern)},{value.flags})"
        if kind is string.Template:
            return f"template({quoted(value.template)})"
        if kind is bytearray:
            return f"bytearray('{value.hex()}')"
        return self._typed(value, kind)

    def _path(self, value: PurePath) -> str:
        if not value.is_absolute():
            return f"path({quoted(value.as_posix())})"
        inside = self._relative(str(value))
        if inside is None:
            msg = "an absolute path, which differs between machines"
            raise Unseen(msg)
        return f"path({quoted(inside)})"

    def _typed(self, value: Any, kind: type[Any]) -> str:
        """Return a type such as `list[int]` or `Literal["a"]`, which `get_args` may read."""
        if isinstance(value, TypeVar):
            return f"TypeVar({quoted(value.__name__)})"
        if kind.__name__ == "TypeAliasType":
            return self.write(value.__value__)
        if (isinstance(value, _ALIASES) or kind.__module__ == "typing") and typing.get_origin(value) is not None:
            origin: Any = typing.get_origin(value)
            inside = ",".join(map(self.write, typing.get_args(value)))
            if isinstance(origin, type) and origin is not UnionType:
                return f"{self.write(origin)}[{inside}]"
            name = "Union" if origin is UnionType else getattr(origin, "__name__", None) or str(origin)
            return f"type({name},[{inside}])"
        if kind.__module__ == "typing":
            return quoted(str(value))
        return self._object(value, kind)

    # -- objects of classes --------------------------------------------------------------------------------------------

    def _object(self, value: Any, kind: type[Any]) -> str:
        """Return an object that is nothing but its fields, or a subclass of something plain."""
        if issubclass(kind, type):
            return self._refer(value)
        held = _held(value, kind)
        if held is None:
            return self._of_subclass(value, kind)
        return f"{self._refer(kind)}({','.join(self._pairs(held))})"

    def _of_subclass(self, value: Any, kind: type[Any]) -> str:
        for base in _BASES:
            if isinstance(value, base):
                plain = str.__str__(value) if base is str else base(value)
                return f"{self._refer(kind)}({self.write(plain)})"
        return self._refer(value)

    def _pairs(self, value: Mapping[Any, Any]) -> Iterable[str]:
        """Yield what a mapping holds in its own order, in which a prompt may list it."""
        return (f"{self._part(key)}:{self._part(one)}" for key, one in value.items())

    def _listed(self, kind: type[Any], texts: Iterable[str]) -> str:
        return f"{kind.__name__}[{','.join(texts)}]"


def _held(value: Any, kind: type[Any]) -> dict[str, Any] | None:
    """Return what an object of fields holds, None for one that is more than its fields."""
    names: Any = getattr(kind, "_fields", None)
    if is_dataclass(kind):
        return {one.name: getattr(value, one.name, None) for one in fields(kind)}
    if hasattr(kind, "__pydantic_fields__"):
        extra: Any = getattr(value, "__pydantic_extra__", None)
        return {**value.__dict__, **(extra or {})}
    if names is not None and issubclass(kind, tuple):
        return dict(zip(names, value, strict=True))
    return None
