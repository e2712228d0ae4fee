"""What the names in a function or class stand for while the program runs."""

from __future__ import annotations

import builtins
import importlib
import inspect
import sys
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any, Final

from llmflow.versions._home import Home
from llmflow.versions._scopes import Chain, Imported, Reads
from llmflow.versions._source import module_source
from llmflow.versions._values import Unseen

__all__ = ["NOTHING", "Found", "Place", "origin_of", "place_of", "place_of_class"]

NOTHING: Final = object()
"""A name that stands for nothing that a prompt's version has to know: of Python, of llmflow, of the module itself."""

_HOPS = 10
"""How many modules a constant may have been imported through; it ends what two modules do in a circle."""
_DYNAMIC = {
    "getattr": "a name that is known only while it runs",
    "globals": "names that are known only while it runs",
    "vars": "names that are known only while it runs",
    "eval": "code that is known only while it runs",
    "exec": "code that is known only while it runs",
    "__import__": "a module that is known only while it runs",
    "open": "a file that is read while it runs",
    "input": "text that is asked for while it runs",
    "super": "a method of a class that is known only while it runs",
}
_OF_THE_MODULE = {
    "__file__": "the place of the module, which differs between machines",
    "__path__": "the place of the module, which differs between machines",
}


@dataclass(frozen=True, slots=True)
class Found:
    """What a chain of names stands for.

    Attributes:
        value: The object; NOTHING when it need not be looked at.
        written: As much of the chain as leads to it.
        name: What to call it: `texts.INTRO`.
        module: The module that holds it, None for one that no module holds.
    """

    value: Any
    written: str
    name: str
    module: str | None = None


@dataclass(slots=True)
class Place:
    """Where a function or class stands: its module's names, and those closed over."""

    names: dict[str, Any]
    cells: dict[str, Any] = field(default_factory=dict[str, Any])
    owner: type[Any] | None = None

    @property
    def module(self) -> str:
        """The module's name."""
        return str(self.names.get("__name__", ""))

    def find(self, chain: Chain, reads: Reads, home: Home) -> Found:
        """Return what a chain stands for.

        Raises:
            Unseen: When that is not certain, or lies outside of what can be followed.
        """
        root = chain[0]
        if root in reads.imports:
            value, holder = self._imported(reads.imports[root], home), None
        elif root in self.cells:
            value, holder = _content(self.cells[root]), None
        elif root in self.names:
            value, holder = self._global(root), self.module
        else:
            return Found(_builtin(root), root, root)
        return _descend(value, holder, chain, home)

    def _global(self, name: str) -> Any:
        if name in _OF_THE_MODULE:
            raise Unseen(_OF_THE_MODULE[name])
        hidden = name.startswith("__") and name.endswith("__") and name != "__doc__"
        return NOTHING if hidden else self.names[name]

    def _imported(self, what: Imported, home: Home) -> Any:
        """Return what an import in the body gives; only the author's own modules are loaded for it."""
        module = _absolute(what, self.names)
        if (standing := home.standing(module)) != "own":
            if standing == "known":
                return NOTHING
            raise Unseen(_outside(module))
        try:
            whole = importlib.import_module(module)
            if what.name is None:
                return whole
            return getattr(whole, what.name) if hasattr(whole, what.name) else _submodule(whole, what.name)
        except Exception as exc:
            msg = f"its import fails: {type(exc).__name__}"
            raise Unseen(msg) from exc


def place_of(function: FunctionType) -> Place:
    """Return the place of a function."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    return Place(function.__globals__, cells, _owner_of(function))


def place_of_class(of: type[Any]) -> Place:
    """Return the place of a class; what its methods close over stands for what it closes over."""
    module = sys.modules.get(of.__module__)
    cells: dict[str, Any] = {}
    names: dict[str, Any] = {"__name__": of.__module__} if module is None else vars(module)
    for value in vars(of).values():
        plain = getattr(value, "__func__", value)  # of a static or class method
        if isinstance(plain, FunctionType) and plain.__module__ == of.__module__:
            cells |= zip(plain.__code__.co_freevars, plain.__closure__ or (), strict=True)
            names = plain.__globals__
    cells.pop("__class__", None)
    return Place(names, cells)


def _owner_of(function: FunctionType) -> type[Any] | None:
    """Return the class that a function is a method of, None for one that is none or whose class is not at the top."""
    path = function.__qualname__.split(".")[:-1]
    found: Any = None
    for index, name in enumerate(path):
        found = function.__globals__.get(name) if index == 0 else inspect.getattr_static(found, name, None)
    return found if isinstance(found, type) else None


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        msg = "not assigned when the version was computed"
        raise Unseen(msg) from None


def _builtin(name: str) -> Any:
    if name in _DYNAMIC:
        raise Unseen(_DYNAMIC[name])
    if hasattr(builtins, name) or name == "__class__":
        return NOTHING
    msg = "not defined when the version was computed"
    raise Unseen(msg)


def _descend(value: Any, holder: str | None, chain: Chain, home: Home) -> Found:
    """Follow the attributes of modules; whatever else has attributes counts as a whole."""
    used = 1
    while isinstance(value, ModuleType):
        module = value.__name__
        if (standing := home.standing(module)) != "own":
            if standing == "known":
                return Found(NOTHING, chain[0], chain[0])
            raise Unseen(_outside(module))
        if used == len(chain):
            msg = "a module as a whole"
            raise Unseen(msg)
        name, holder = chain[used], module
        used += 1
        value = _OF_THE_MODULE.get(name, value)
        if isinstance(value, str):
            raise Unseen(value)
        value = _attribute(value, name)
    label = chain[used - 1]
    return Found(value, ".".join(chain[:used]), label, holder)


def _attribute(module: ModuleType, name: str) -> Any:
    try:
        return getattr(module, name) if hasattr(module, name) else _submodule(module, name)
    except Exception as exc:
        msg = "not defined when the version was computed"
        raise Unseen(msg) from exc


def _submodule(package: ModuleType, name: str) -> ModuleType:
    return importlib.import_module(f"{package.__name__}.{name}")


def origin_of(name: str, module: str | None, home: Home) -> tuple[str, str | None]:
    """Return where a name of a module was defined: its name there and the module, through imports of the program."""
    for _ in range(_HOPS):
        around = None if module is None else sys.modules.get(module)
        source = None if around is None else module_source(around)
        if around is None or source is None or name not in source.imported:
            break
        of, name, level = source.imported[name]
        module = _absolute(Imported(of, name, level), vars(around))
        if home.standing(module) != "own":
            break
    return name, module


def _absolute(what: Imported, names: dict[str, Any]) -> str:
    if not what.level:
        return what.module
    package = str(names.get("__package__") or "").split(".")
    parts = package[: len(package) - what.level + 1]
    return ".".join([*parts, *([what.module] if what.module else [])])


def _outside(module: str) -> str:
    return f"of another package, {module.partition('.')[0]}"
