"""Which variables of a body may hold what is only known when the flow runs."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

__all__ = ["PLAIN", "Env", "Level", "Taint", "element", "holder", "join", "own_nodes", "pairs", "parameter_names"]


class Level(IntEnum):
    """How much of a value is unknown while a flow is built."""

    PLAIN = 0
    """It is what it will be in every run."""
    HOLDER = 1
    """A list, tuple or dict that is there, with something in it that is not."""
    VALUE = 2
    """It may be a placeholder itself."""


@dataclass(frozen=True, slots=True)
class Taint:
    """A level and, for errors, where the unknown comes from."""

    level: Level = Level.PLAIN
    origin: str = ""

    def __bool__(self) -> bool:
        return self.level is not Level.PLAIN

    @property
    def is_value(self) -> bool:
        """Whether it may be a placeholder itself."""
        return self.level is Level.VALUE


PLAIN = Taint()


def join(taints: Iterable[Taint]) -> Taint:
    """Return what a variable may be that is one of several things."""
    return max(taints, key=lambda one: one.level, default=PLAIN)


def holder(taints: Iterable[Taint]) -> Taint:
    """Return what a container of several things is."""
    inside = join(taints)
    return Taint(Level.HOLDER, inside.origin) if inside else PLAIN


def element(container: Taint) -> Taint:
    """Return what is inside of something."""
    return Taint(Level.VALUE, container.origin) if container else PLAIN


@dataclass(slots=True)
class Env:
    """What the variables of one function hold at one point of it."""

    variables: dict[str, Taint] = field(default_factory=dict[str, Taint])
    functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = field(
        default_factory=dict[str, ast.FunctionDef | ast.AsyncFunctionDef]
    )

    def fork(self) -> Env:
        """Return a copy, for code that may or may not run."""
        return Env(dict(self.variables), dict(self.functions))

    def merge(self, *others: Env) -> None:
        """Take over what happened in branches of which one has run."""
        for other in others:
            self.functions.update(other.functions)
            for name, taint in other.variables.items():
                self.variables[name] = join((self.variables.get(name, PLAIN), taint))

    def add(self, name: str, taint: Taint) -> None:
        """Note that something was put into a variable's value."""
        self.variables[name] = join((self.variables.get(name, PLAIN), holder((taint,))))


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below one that run when it runs, so not those of functions defined in it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            yield child
            yield from own_nodes(child)


def parameter_names(arguments: ast.arguments) -> list[str]:
    """Return the names that a function's parameters bind."""
    extra = [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
    return [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *extra)]


def pairs(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]] | None:
    """Return what is assigned to what when both sides are written out, as in `a, b = 1, await triage(text)`."""
    if not isinstance(target, ast.Tuple | ast.List) or not isinstance(value, ast.Tuple | ast.List):
        return None
    sides = (*target.elts, *value.elts)
    if len(target.elts) != len(value.elts) or any(isinstance(one, ast.Starred) for one in sides):
        return None
    return list(zip(target.elts, value.elts, strict=True))
