"""Constants of a graph: those that may change are made anew in every run.

A list that the body wrote down is one object in the graph, but the author sees a new one in every run: without the
copies, what one caller's run adds to it the next caller would read.
"""

from __future__ import annotations

import copy
import datetime as dt
import decimal
import enum
import fractions
import pathlib
import re
import types
import uuid
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias, cast

__all__ = ["Copier", "copier_of", "may_change"]

Memo: TypeAlias = dict[int, Any]
Copier: TypeAlias = Callable[[Memo], Any]
"""Returns a run's copy; the memo, one for each run, keeps what is one object in the body one object in the run."""

_IMMUTABLE = (
    str,
    bytes,
    int,
    float,
    complex,
    types.NoneType,
    type(...),
    type(NotImplemented),
    range,
    slice,
    enum.Enum,
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.ModuleType,
    types.GenericAlias,
    re.Pattern,
    dt.date,
    dt.time,
    dt.timedelta,
    dt.tzinfo,
    decimal.Decimal,
    fractions.Fraction,
    pathlib.PurePath,
    uuid.UUID,
    BaseException,  # not immutable, but who raises one looks for that one
)
_CONTAINERS = (list, tuple, dict, set)


def may_change(value: Any) -> bool:
    """Whether what a run does to a value could be seen by another run."""
    if isinstance(value, _IMMUTABLE):
        # A subclass may have attributes; those of the classes above have none, but for enums, types and functions.
        return False
    if type(value) in (tuple, frozenset):
        return any(map(may_change, value))
    if _is_frozen(value):
        return any(may_change(getattr(value, one.name, None)) for one in fields(value))
    return not (type(value) is object or _is_ours(value))


def _is_frozen(value: Any) -> bool:
    return is_dataclass(value) and cast("Any", type(value)).__dataclass_params__.frozen and not _is_ours(value)


def _is_ours(value: object) -> bool:
    """Whether it is a step, a flow, a model: what llmflow shares between runs itself."""
    return any(one.__module__.partition(".")[0] == "llmflow" for one in type(value).__mro__)


def copier_of(value: Any) -> Copier | None:
    """Return what makes a run's copy of a constant, None when all runs share it.

    What cannot be copied, such as a client or a lock, is shared: nobody can mean anything else by it.
    """
    if not may_change(value):
        return None
    if type(value) in (list, dict, set) and not any(map(may_change, _items(value))):
        return lambda memo: memo.setdefault(id(value), value.copy())
    kept = {id(one): one for one in _shared_in(value)}
    if id(value) in kept:
        return None
    return lambda memo: copy.deepcopy(value, _with(memo, kept))


def _with(memo: Memo, kept: Memo) -> Memo:
    memo.update(kept)
    return memo


def _shared_in(value: Any) -> Iterator[object]:
    """Yield what a copy has in common with its original: found in plain containers, whose parts are copied one by one."""
    if type(value) in _CONTAINERS:
        for one in _items(value):
            yield from _shared_in(one)
    elif not may_change(value) or not _can_be_copied(value):
        yield value


def _items(value: Any) -> Iterator[Any]:
    return iter(value.values() if value.__class__ is dict else value)


def _can_be_copied(value: object) -> bool:
    try:
        copied = copy.deepcopy(value)
    except Exception:  # noqa: BLE001  # whatever a __deepcopy__ or __reduce__ may raise
        return False
    return type(copied) is type(value)
