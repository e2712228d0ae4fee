"""Constants of a flow: what one run does to them no other run sees, and what is to be shared is shared."""

from __future__ import annotations

import datetime as dt
import threading
from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from llmflow import flow, task
from llmflow.engine._constants import copier_of
from llmflow.graph import Constant, Structure
from llmflow.runtime import Runtime

from .engine_graphs import Builder, run_graph

pytestmark = pytest.mark.anyio


@dataclass
class Basket:
    items: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class Frozen:
    items: Any = ()


class Document(BaseModel):
    items: list[str] = []


class Items(list[str]):
    pass


class Plain:
    def __init__(self) -> None:
        self.items: list[str] = []


class Client:
    """Like what holds a connection: it cannot be copied."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.items: list[str] = []


class Color(Enum):
    RED = "red"


@task
async def add(acc: Any, name: str) -> list[str]:
    found: Any = acc[0] if acc.__class__ is tuple else acc
    found = found["seen"] if found.__class__ is dict else getattr(found, "items", found)
    if isinstance(found, bytearray):
        found.extend(name.encode())
        return [found.decode()]
    found.append(name)
    return list(found)


@task
async def add_to(name: str, acc: list[str]) -> list[str]:
    acc.append(name)
    return list(acc)


MUTABLE: dict[str, Any] = {
    "list": list,
    "list in a dict": lambda: {"seen": list[str]()},
    "list in a tuple": lambda: (list[str](), "text"),
    "dataclass": Basket,
    "dataclass in a tuple": lambda: (Basket(),),
    "frozen dataclass": lambda: Frozen([]),
    "pydantic model": Document,
    "deque": deque,
    "bytearray": bytearray,
    "subclass of list": Items,
    "object": Plain,
}


@pytest.mark.parametrize("make", MUTABLE.values(), ids=MUTABLE)
async def test_runs_do_not_share_what_may_change(runtime: Runtime, make: Any) -> None:
    """One caller's data does not reach the next one."""
    builder = Builder()
    graph = builder.graph(builder.call(add, acc=Constant(make()), name="mine"))

    assert ["mine"] == await run_graph(graph, runtime)
    assert ["mine"] == await run_graph(graph, runtime)


async def _fixed(name: str) -> list[list[str]]:
    return await add_to.partial(acc=[]).map([name, name])


async def _argument(name: str) -> list[str]:
    return await add(Basket(), name)


async def _twice(name: str) -> list[str]:
    basket = Basket()
    first = await add(basket, name)
    return await add(basket, await joined(first))


@task
async def joined(value: list[str]) -> str:
    return "+".join(value)


@pytest.mark.parametrize("body", [_fixed, _argument, _twice])
async def test_traced_as_eager(body: Any) -> None:
    """Traced, a flow gives in every run what its body gives, also where calls of one run share an object."""
    decorate: Any = flow
    eager, traced = flow(eager=True)(body), decorate(body)

    for name in ("a", "b"):
        assert await eager(name) == await traced(name)


async def test_the_result_is_the_caller_s(runtime: Runtime) -> None:
    """A constant that a flow returns is new for every caller."""
    graph = Builder().graph(Structure(list, (Constant([]),)))
    (await run_graph(graph, runtime))[0].append("mine")

    assert [[]] == await run_graph(graph, runtime)


async def test_one_object_stays_one_in_a_run(runtime: Runtime) -> None:
    """Alone and in other constants."""
    alone: list[int] = []
    graph = Builder().graph(Structure(list, (Constant(alone), Constant(alone), Constant((alone, Basket())))))
    first, second, (third, _) = await run_graph(graph, runtime)

    assert first is second
    assert first is third
    assert alone is not first


async def test_what_cannot_be_copied_is_shared(runtime: Runtime) -> None:
    """Alone and in a container, of which each run has its own."""
    client = Client()
    graph = Builder().graph(Structure(list, (Constant(client), Constant([client]))))
    first, inside = await run_graph(graph, runtime)
    inside.clear()

    assert first is client
    assert [client] == (await run_graph(graph, runtime))[1]


IMMUTABLE: tuple[object, ...] = (
    "text",
    b"bytes",
    1,
    2.5,
    True,
    None,
    Color.RED,
    Basket,
    add,
    len,
    lambda: None,
    (1, ("a", frozenset({2}))),
    frozenset({1}),
    Frozen(),
    Frozen((1, "a")),
    dt.datetime.now(dt.UTC),
    dt.timedelta(1),
    Path("a"),
    Decimal(1),
    UUID(int=1),
    object(),
    Client(),
)


@pytest.mark.parametrize("value", IMMUTABLE, ids=lambda value: type(value).__name__)
def test_what_never_changes_costs_nothing(value: object) -> None:
    """No copy is made of it."""
    assert copier_of(value) is None


@task
def scale_by(n: int, factor: int) -> int:
    return n * factor


@flow
async def give_back(n: int, factor: int) -> tuple[int, int]:
    return n, factor


@flow
async def scale_all(n: int) -> list[int]:
    _, factor = await give_back(n, 3)
    return await scale_by.partial(factor=factor).map([n, 2])


async def test_a_constant_that_came_through_an_inner_flow_can_be_fixed_for_a_map() -> None:
    """The placeholder of a value that is known already is replaced by the value."""
    assert [15, 6] == await scale_all(5)
