"""The normal form of a function whose source is not there: as much as its code object says under every Python."""

from __future__ import annotations

from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from llmflow.versions._scopes import Reads

__all__ = ["compiled_form", "compiled_reads"]


def compiled_form(function: FunctionType) -> str:
    """Return the parameters, names and constants of a function, in an order that no compiler decides."""
    code = function.__code__
    doc = function.__doc__
    constants = {one for one in _constants(code) if one not in (repr(doc), "None")}
    parameters = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return f"compiled({list(parameters)},{sorted(_names(code))},{sorted(constants)})"


def compiled_reads(function: FunctionType) -> Reads:
    """Return the names that a function may take from outside; some may be attributes of the same name."""
    code = function.__code__
    known = function.__globals__.keys() | set(code.co_freevars)
    return Reads(free={(name,) for name in _names(code) if name in known})


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _codes(one)


def _names(code: CodeType) -> set[str]:
    return {name for one in _codes(code) for name in (*one.co_names, *one.co_freevars)}


def _constants(code: CodeType) -> Iterator[str]:
    for one in _codes(code):
        yield from _flat(one.co_consts)


def _flat(values: tuple[Any, ...]) -> Iterator[str]:
    """Yield the constants one by one: compilers fold them into tuples at will."""
    for one in values:
        inside: Any = one
        if isinstance(one, tuple | frozenset):
            yield from _flat((*inside,))
        elif not isinstance(one, CodeType) and not (isinstance(one, str) and "<locals>" in one):
            yield repr(one)
