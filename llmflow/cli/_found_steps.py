"""Which steps a command is about: those of modules, and those that flows lead to."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from types import CodeType, ModuleType
from typing import Any, cast

from llmflow.cli._failures import UsageError
from llmflow.cli._target import load_module, load_target
from llmflow.errors import DefinitionError
from llmflow.graph import Flow
from llmflow.graph._location import at
from llmflow.step import Step, Unit

__all__ = ["Found", "find", "place_of", "told"]

_PLACED = re.compile(r"(\S+:\d+): (.*)", re.DOTALL)


class Found:
    """The units of some targets.

    Attributes:
        units: Every step, task and flow, each once.
        steps: The steps by the name they have in a lock.
        wrong: What cannot be imported or built, each with the error that says why.
    """

    def __init__(self) -> None:
        self.units: list[Unit[..., Any]] = []
        self.steps: dict[str, Step[..., Any]] = {}
        self.wrong: list[tuple[str, Exception]] = []

    def add(self, unit: Unit[..., Any], called: str) -> None:
        """Take a unit and everything that it leads to."""
        if any(one is unit for one in self.units):
            return
        self.units.append(unit)
        if isinstance(unit, Step):
            self._add_step(unit, called)
            return
        try:
            with redirect_stdout(sys.stderr):  # what bodies print is no data
                inner = [*_inside(unit)]
        except DefinitionError as exc:
            self.wrong.append((place_of(unit), exc))
            return
        for one in inner:
            self.add(one, one.name)

    def _add_step(self, step: Step[..., Any], called: str) -> None:
        """Take a step; copies with the same prompt are one, and one with another goes by its variable too."""
        known = self.steps.setdefault(step.name, step)
        if known is step or known.prompt_version == step.prompt_version:
            return
        if known.function is not step.function:
            msg = f"two steps are called {step.name!r}: {known.origin} and {step.origin}; give one of them name=..."
            self.wrong.append((place_of(step), DefinitionError(msg)))
            return
        self.steps.setdefault(f"{step.name}#{called}", step)


def find(targets: Sequence[str]) -> Found:
    """Return the units of the targets; whatever is wrong with one of them is noted, and the others are read on."""
    found = Found()
    for target in targets:
        try:
            for name, unit in _units_of(target):
                found.add(unit, name)
        except (UsageError, DefinitionError) as exc:
            found.wrong.append((target, exc))
    return found


def place_of(unit: Unit[..., Any]) -> str:
    """Return where a unit is written: `file:line`."""
    code = unit.function.__code__
    return at(code.co_filename, code.co_firstlineno)


def told(where: str, error: Exception) -> tuple[str, str]:
    """Return the place of an error and what it says; one that names a line itself knows better."""
    placed = _PLACED.match(str(error))
    return (where, str(error)) if placed is None else (placed[1], placed[2])


# -- looking -----------------------------------------------------------------------------------------------------------


def _units_of(target: str) -> Iterator[tuple[str, Unit[..., Any]]]:
    place, separator, name = target.rpartition(":")
    if separator and place and not name.endswith(".py") and "/" not in name and "\\" not in name:
        yield name.rpartition(".")[2], load_target(target)
    else:
        yield from _units_in(load_module(target))


def _units_in(module: ModuleType) -> Iterator[tuple[str, Unit[..., Any]]]:
    """Yield the units of a module, and those that are methods of its classes; the ones under their own name first."""
    named = [*_named(vars(module).items())]
    for value in vars(module).values():
        if isinstance(value, type) and value.__module__ == module.__name__:
            named += _named(vars(value).items())
    yield from sorted(named, key=lambda one: one[0] != one[1].name)


def _named(items: Iterable[tuple[str, object]]) -> Iterator[tuple[str, Unit[..., Any]]]:
    for name, value in items:
        inner: object = getattr(value, "__func__", value)  # of a static or class method
        if isinstance(inner, Unit):
            yield name, cast("Unit[..., Any]", inner)


def _inside(unit: Unit[..., Any]) -> Iterator[Unit[..., Any]]:
    """Yield the units that a flow's graph holds, or that the body of a task or an eager flow names."""
    if isinstance(unit, Flow) and not unit.eager:
        yield from unit.graph().units()
        return
    code: CodeType = unit.function.__code__
    known = unit.function.__globals__
    for name in sorted(_names(code)):
        value = known.get(name)
        inner = [vars(value).get(one) for one in _names(code)] if isinstance(value, ModuleType) else [value]
        yield from (cast("Unit[..., Any]", one) for one in inner if isinstance(one, Unit))


def _names(code: CodeType) -> set[str]:
    inner = (one for one in code.co_consts if isinstance(one, CodeType))
    return {*code.co_names}.union(*map(_names, inner))
