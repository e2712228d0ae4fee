"""Programs written to files: a flow is checked in its source, so a test of what it may contain needs some."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

PRELUDE = """\
import asyncio, copy, dataclasses, functools, json, pickle, contextlib, enum
from collections.abc import *
from typing import *
import anyio
from pydantic import BaseModel
from llmflow.graph import build, flow, gather, or_else, switch, task, when

class Kind(enum.Enum):
    BUG = "bug"
    OTHER = "other"

class Ticket(BaseModel):
    category: Literal["billing", "bug"]
    urgent: bool
    score: int
    tags: list[str]
    pair: tuple[int, str]
    parent: "Ticket | None" = None

    @property
    def upper(self) -> str:
        return self.category.upper()

    def method(self) -> str:
        return self.category

@dataclasses.dataclass
class Point:
    x: int
    y: Any

class Row(TypedDict):
    name: str
    size: int

class Named(NamedTuple):
    left: int
    right: str

LIMIT = 3

@task
def triage(message: str) -> Ticket:
    return Ticket(category="bug", urgent=len(message) > 3, score=len(message), tags=list(message), pair=(len(message), message))

@task
def echo(value: Any) -> Any:
    return value

@task
def count(number: int) -> int:
    return number + 1

@task
def label(text: str) -> str:
    return f"<{text}>"

@task
def point(x: int) -> Point:
    return Point(x, x)

@task
def row(name: str) -> Row:
    return Row(name=name, size=len(name))

@task
def named(left: int) -> Named:
    return Named(left, str(left))

@task
def kind(text: str) -> Kind:
    return Kind.BUG if text == "bug" else Kind.OTHER

@task
def join(left: str, right: str) -> str:
    return left + "+" + right

@task
def fail(text: str) -> str:
    raise ValueError(text)

@task
def maybe(text: str) -> Ticket | None:
    return None

@task
def words(text: str) -> list[str]:
    return text.split()

"""

Load = Callable[[str], ModuleType]
_numbers = itertools.count()


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Return what writes a program to a file and imports it."""
    names: list[str] = []

    def load_source(source: str) -> ModuleType:
        name = f"program_{next(_numbers)}"
        path = tmp_path / f"{name}.py"
        path.write_text(PRELUDE + source)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        names.append(name)
        spec.loader.exec_module(module)
        return module

    yield load_source
    for name in names:
        del sys.modules[name]
