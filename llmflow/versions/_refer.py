"""What stands for a function, a class or an object in the text of a version."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, TypeAlias, cast

from llmflow.versions._home import Home, top_of
from llmflow.versions._values import Unseen, Writer, kind_of

__all__ = ["Objects", "has_a_home", "label"]

_METHODS: tuple[type[Any], ...] = (staticmethod, classmethod, MethodType)

Number: TypeAlias = Callable[[Any, str], str]
"""Gives a function or class of the program its number, and has it followed."""


class Objects:
    """Tells functions, classes and objects apart: the program's own are numbered, Python's named, others refused.

    Args:
        home: The program.
        number: Gives a function or class of the program its number.
        missing: Where it is noted what cannot be seen, and why.
    """

    def __init__(self, home: Home, number: Number, missing: dict[str, str]) -> None:
        self._home = home
        self._number = number
        self._missing = missing
        self._name = ""
        self.writer = Writer(self.refer, home.relative, self._note)

    def add(self, value: Any, name: str) -> str:
        """Return what stands for a value; what cannot be seen of it is noted under `name`."""
        try:
            return self.write(value, name)
        except Unseen as exc:
            self._missing.setdefault(name, str(exc))
        return f"unseen {type(value).__qualname__}"

    def _note(self, part: Any, reason: str) -> None:
        self._missing.setdefault(f"{self._name}: {type(part).__qualname__}", reason)

    def write(self, value: Any, name: str) -> str:
        """Return what stands for a value; parts of it that cannot be seen are noted under `name`.

        Raises:
            Unseen: When its content cannot be told.
        """
        self._name = name
        try:
            return self.writer.write(value)
        except Unseen:
            raise
        except Exception as exc:  # the objects are anybody's, and a version must not fail a call
            msg = f"it cannot be written down: {type(exc).__name__}"
            raise Unseen(msg) from exc

    def refer(self, value: Any) -> str:  # noqa: PLR0911  # one for each kind of object
        """Return what stands for a function, a class or an object.

        Raises:
            Unseen: When it cannot be followed.
        """
        if isinstance(value, MethodType) and not isinstance(value.__self__, type):
            return f"{self.refer(value.__func__)}({self.add(value.__self__, value.__qualname__)})"
        value = _plain(value)
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(cast("type[Any]", value))
        if isinstance(value, functools.partial):
            return self._partial(value)
        if isinstance(value, property):
            return f"property({','.join(self.refer(one) for one in (value.fget, value.fset) if one is not None)})"
        if (wrapped := _wrapped(value)) is not None:
            return self.refer(wrapped)
        return self._object(value)

    # -- by kind -------------------------------------------------------------------------------------------------------

    def _function(self, function: FunctionType) -> str:
        module = str(function.__globals__.get("__name__", ""))
        standing = self._home.standing(module)
        if standing == "own":
            return self._number(function, label(module) + function.__qualname__)
        inner = _wrapped(function)
        if inner is None and standing == "known":
            return function.__qualname__
        if inner is None:
            msg = f"a function of another package, {top_of(module)}"
            raise Unseen(msg)
        if standing == "foreign":
            self._missing.setdefault(
                function.__qualname__, f"wrapped by a function of another package, {top_of(module)}"
            )
        return self.refer(inner) + self._registered(function)

    def _partial(self, value: Any) -> str:
        fixed = f"{self.writer.write(value.args)},{self.writer.write(value.keywords)}"
        return f"partial({self.refer(value.func)},{fixed})"

    def _registered(self, function: FunctionType) -> str:
        """Return what `functools.singledispatch` chooses from."""
        registry = getattr(function, "registry", None)
        if not isinstance(registry, Mapping):
            return ""
        found = cast("Mapping[type[Any], Any]", registry).items()
        return f"[{','.join(sorted(f'{kind.__qualname__}:{self.refer(one)}' for kind, one in found))}]"

    def _class(self, of: type[Any]) -> str:
        standing = self._home.standing(of.__module__)
        if standing == "known":
            return of.__qualname__
        if standing == "foreign":
            msg = f"a class of another package, {top_of(of.__module__)}"
            raise Unseen(msg)
        generic = getattr(of, "__pydantic_generic_metadata__", None)
        if generic and generic["origin"] is not None:
            return f"{self.refer(generic['origin'])}[{','.join(map(self.writer.write, generic['args']))}]"
        return self._number(of, label(of.__module__) + of.__qualname__)

    def _object(self, value: Any) -> str:
        kind = kind_of(value)
        if top_of(kind.__module__) == "llmflow":
            return f"llmflow.{kind.__name__}({value.name if hasattr(value, 'kind') else ''})"
        if isinstance(value, logging.Logger):
            return "Logger"
        if isinstance(value, BuiltinFunctionType) or kind.__module__ == "builtins":
            return self._builtin(value, kind)
        if self._home.standing(kind.__module__) == "own":
            self.refer(kind)  # what it does can be seen, what it holds cannot
        msg = f"an object of the class {kind.__qualname__}, whose state is not read"
        raise Unseen(msg)

    def _builtin(self, value: Any, kind: type[Any]) -> str:
        module = str(getattr(value, "__module__", None) or "builtins")
        if self._home.standing(module) != "foreign":
            return str(getattr(value, "__qualname__", kind.__qualname__))
        msg = f"a function of another package, {top_of(module)}"
        raise Unseen(msg)

    # -- what needs no listing -----------------------------------------------------------------------------------------

    def is_known(self, value: Any) -> bool:
        """Whether something is of Python, of llmflow or of what that stands on, with nobody's function inside."""
        plain = _plain(value)
        if _wrapped(plain) is not None:
            return False
        names = plain.__globals__.get("__name__") if isinstance(plain, FunctionType) else None
        module = names or getattr(plain, "__module__", None)
        return isinstance(module, str) and self._home.standing(module) == "known"


def has_a_home(value: Any) -> bool:
    """Whether something says itself which module it is of, as functions and classes do."""
    plain = _plain(value)
    return isinstance(plain, FunctionType | type | BuiltinFunctionType) or _wrapped(plain) is not None


def label(module: str | None) -> str:
    """Return how the names of a module begin, for people: the name it has when it is imported."""
    if module is None:
        return ""
    if module == "__main__":
        filename = getattr(sys.modules.get(module), "__file__", None)
        module = Path(filename).stem if filename else module
    return f"{module.removeprefix('_target_')}."


def _plain(value: Any) -> Any:
    """Return the function inside of a method."""
    if isinstance(value, functools.cached_property):
        return cast("Any", value).func
    return getattr(value, "__func__", None) if isinstance(value, _METHODS) else value


def _wrapped(value: Any) -> Any:
    """Return the function that another one was put around, None when there is none."""
    if isinstance(value, type):
        return None
    try:
        held: object = inspect.getattr_static(value, "__dict__", None)
        inner = value.__dict__.get("__wrapped__") if held is not None else None
    except Exception:  # noqa: BLE001  # the objects are anybody's
        return None
    return inner if callable(inner) else None
