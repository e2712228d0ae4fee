"""Which variables of a body may hold what is only known when the flow runs."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

__all__ = [
    "PLAIN",
    "Env",
    "Level",
    "Taint",
    "element",
    "holder",
    "join",
    "own_nodes",
    "pairs",
    "parameter_names",
    "root_of",
]


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
    container: bool = False
    """Whether it is a list, dict or the like, whose methods are known."""
    targets: tuple[Any, ...] = ()
    """What calling it, or something in it, runs: units, functions, lambdas; empty when that is not known."""

    def __bool__(self) -> bool:
        return self.level is not Level.PLAIN

    @property
    def is_value(self) -> bool:
        """Whether it may be a placeholder itself."""
        return self.level is Level.VALUE


PLAIN = Taint()


def join(taints: Iterable[Taint]) -> Taint:
    """Return what a variable may be that is one of several things."""
    every = list(taints)
    if not every:
        return PLAIN
    most = max(every, key=lambda one: one.level)
    targets = tuple({id(one): one for taint in every for one in taint.targets}.values())
    known = all(taint.targets for taint in every)
    return Taint(most.level, most.origin, all(taint.container for taint in every), targets if known else ())


def holder(taints: Iterable[Taint]) -> Taint:
    """Return what a container of several things is."""
    inside = join(taints)
    return Taint(Level.HOLDER if inside else Level.PLAIN, inside.origin, container=True, targets=inside.targets)


def element(container: Taint) -> Taint:
    """Return what is inside of something."""
    level = Level.VALUE if container else Level.PLAIN
    return Taint(level, container.origin, container.container, container.targets)


@dataclass(slots=True)
class Env:
    """What the variables of one function hold at one point of it."""

    variables: dict[str, Taint] = field(default_factory=dict[str, Taint])
    functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = field(
        default_factory=dict[str, ast.FunctionDef | ast.AsyncFunctionDef]
    )
    aliases: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    stored: dict[str, Taint] = field(default_factory=dict[str, Taint])
    """The variables into whose values something was put."""

    def fork(self) -> Env:
        """Return a copy, for code that may or may not run."""
        aliases = {name: set(others) for name, others in self.aliases.items()}
        return Env(dict(self.variables), dict(self.functions), aliases, dict(self.stored))

    def merge(self, *others: Env) -> None:
        """Take over what happened in branches of which one has run."""
        for other in others:
            self.functions.update(other.functions)
            self.stored.update(other.stored)
            for name, same in other.aliases.items():
                self.aliases.setdefault(name, set()).update(same)
            for name, taint in other.variables.items():
                self.variables[name] = join((self.variables.get(name, taint), taint))

    def add(self, name: str, taint: Taint) -> None:
        """Note that something was put into a variable's value, which other variables may have too."""
        waiting, seen = [name], set[str]()
        while waiting:
            one = waiting.pop()
            if one in seen:
                continue
            seen.add(one)
            waiting.extend(self.aliases.get(one, ()))
            now = self.variables.get(one, PLAIN)
            level = max(now.level, Level.HOLDER) if taint else now.level
            targets = (*now.targets, *taint.targets) if taint.targets else ()
            self.variables[one] = Taint(level, now.origin or taint.origin, now.container, targets)
            if taint:
                self.stored[one] = taint

    def alias(self, name: str, others: Iterable[str]) -> None:
        """Note that a variable may have the same value as others, or one that is inside of theirs."""
        for other in others:
            if other != name:
                self.aliases.setdefault(name, set()).add(other)
                self.aliases.setdefault(other, set()).add(name)


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


def root_of(node: ast.expr) -> str | None:
    """Return the variable that an expression of items and attributes starts at."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None
