"""Finding the source of a function, and what the names in it mean."""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import inspect
import linecache
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any, Final, TypeAlias, cast

from llmflow.graph._location import at
from llmflow.step import Unit

__all__ = ["UNKNOWN", "FunctionNode", "Source", "find_source"]

FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

UNKNOWN: Final = object()
"""What a name or an attribute means that cannot be known before the code runs."""


@dataclass(frozen=True, slots=True)
class Source:
    """A function as a tree."""

    function: FunctionType
    node: FunctionNode
    filename: str

    @property
    def names(self) -> dict[str, Any]:
        """The module's names."""
        function: Any = self.function
        return function.__globals__  # type: ignore[no-any-return]

    @property
    def package(self) -> str:
        """The top-level package the function is in."""
        return self.function.__module__.partition(".")[0]

    def location(self, node: Any) -> str:
        """Return `file:line` of a piece of it."""
        return at(self.filename, node.lineno)

    @property
    def global_names(self) -> set[str]:
        """The names that it declares to be the module's."""
        return {name for one in ast.walk(self.node) if isinstance(one, ast.Global) for name in one.names}

    def imported(self, node: ast.Import | ast.ImportFrom) -> dict[str, Any]:
        """Return what an import in the body makes known; it runs with the body anyway."""
        found: dict[str, Any] = {}
        try:
            for one in node.names:
                if isinstance(node, ast.Import):
                    whole = importlib.import_module(one.name)
                    name = one.asname or one.name.partition(".")[0]
                    found[name] = whole if one.asname else sys.modules[name]
                else:
                    package = self.names.get("__package__")
                    module = importlib.import_module("." * node.level + (node.module or ""), package)
                    found[one.asname or one.name] = getattr(module, one.name, UNKNOWN)
        except Exception:  # noqa: BLE001  # whatever a module raises, it raises again when the body runs
            return {}
        return found

    def resolve(self, node: ast.expr) -> Any:
        """Return the object that an expression of names and dots stands for, UNKNOWN when that is not certain."""
        match node:
            case ast.Name(name):
                return self._name(name)
            case ast.Attribute(value, name):
                return _attribute(self.resolve(value), name)
            case _:
                return UNKNOWN

    def _name(self, name: str) -> Any:
        code = self.function.__code__
        if name in code.co_freevars:
            return self._closed_over(name)
        if name in code.co_varnames or name in code.co_cellvars:
            return UNKNOWN
        return self.names.get(name, getattr(builtins, name, UNKNOWN))

    def _closed_over(self, name: str) -> Any:
        cells = dict(zip(self.function.__code__.co_freevars, self.function.__closure__ or (), strict=True))
        try:
            return cells[name].cell_contents
        except ValueError:  # not assigned yet
            return UNKNOWN


def _attribute(owner: Any, name: str) -> Any:
    """Return an attribute that reading cannot have effects: of a module or class, or a method of an object."""
    if owner is UNKNOWN:
        return UNKNOWN
    if isinstance(owner, ModuleType | type):
        return getattr(owner, name, UNKNOWN)
    own: Any = inspect.getattr_static(owner, name, UNKNOWN)
    if isinstance(own, staticmethod):
        return own.__func__
    if isinstance(own, Unit):
        return cast("Unit[..., Any]", own)
    found: Any = inspect.getattr_static(owner.__class__, name, UNKNOWN)
    return functools.partial(found, owner) if isinstance(found, FunctionType) else UNKNOWN


def find_source(function: Callable[..., Any]) -> Source | None:
    """Return the tree of a function, None when its source cannot be read or is not that of the running code."""
    if not isinstance(function, FunctionType):
        return None
    code = function.__code__
    lines = linecache.getlines(code.co_filename, function.__globals__)
    tree = _parse("".join(lines)) if lines else None
    if tree is None:
        return None
    for node in ast.walk(tree):
        if isinstance(node, FunctionNode) and node.name == code.co_name and _first_line(node) == code.co_firstlineno:
            return Source(function, node, code.co_filename) if _is_same(node, function) else None
    return None


@functools.lru_cache(maxsize=32)
def _parse(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except SyntaxError:
        return None


def _first_line(node: FunctionNode) -> int:
    """Return the line that the compiler gives a function: its first decorator's."""
    return min([node.lineno, *(one.lineno for one in node.decorator_list)])


def _is_same(node: FunctionNode, function: FunctionType) -> bool:
    """Whether the file still holds what is running; it may have been edited since the import."""
    arguments = node.args
    names = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    code = function.__code__
    return names == list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
