"""A law: whatever a body is made of, it gives the same traced and eager.

Random programs are written as source text, because a flow is checked in its source. They have steps that depend on
each other, fields, items, unpacking, literals, gather, maps, conditions, fallbacks, constructed models, loops over
constants, and flows inside of flows, some of them eager.
"""

from __future__ import annotations

import itertools
import linecache
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmflow.runtime import Runtime

PRELUDE = """\
from typing import Any, Literal, NamedTuple, TypedDict
from dataclasses import dataclass
from pydantic import BaseModel
from llmflow.graph import build, flow, gather, or_else, switch, task, when

class Pair(NamedTuple):
    number: int
    text: str

class Item(BaseModel):
    number: int
    text: str
    kind: Literal["even", "odd"]
    inside: tuple[int, str]

    @property
    def double(self) -> int:
        return 2 * self.number

@dataclass
class Both:
    left: int
    right: str

class Row(TypedDict):
    number: int
    text: str

@task
def add(a: int, b: int = 1) -> int:
    return (a * 3 + b) % 101

@task
def show(a: int) -> str:
    return f"<{a}>"

@task
def glue(a: str, b: str) -> str:
    return (a + "." + b)[-40:]

@task
def item(a: int) -> Item:
    return Item(number=a, text=f"i{a}", kind="odd" if a % 2 else "even", inside=(a + 1, f"t{a}"))

@task
def pair(a: int) -> Pair:
    return Pair(a, f"p{a}")

@task
def row(a: int) -> Row:
    return Row(number=a, text=f"r{a}")

@task
def small(a: int) -> bool:
    return a < 50

@task
def fragile(a: int) -> int:
    if a % 3 == 0:
        raise ValueError(a)
    return a

@task
def total(values: list[int]) -> int:
    return sum(values) % 101

"""


@dataclass
class Program:
    """A body under construction: its lines, and which variables hold ints and which hold strings."""

    lines: list[str] = field(default_factory=list)
    ints: list[str] = field(default_factory=lambda: ["n"])
    texts: list[str] = field(default_factory=lambda: ["s"])
    fresh: Any = field(default_factory=itertools.count)

    def new(self, kind: str) -> str:
        """Return the name of a new variable, known from the next statement on."""
        name = f"{kind[0]}{next(self.fresh)}"
        (self.ints if kind == "int" else self.texts).append(name)
        return name


INT_CALLS = ("add({i}, {j})", "add(b={i}, a={j})", "add({i})", "total([{i}, {j}])", "add.partial(b={i})({j})")
INT_OPERATIONS = (
    "when(await small({i}), {c}, {d})",
    "when(LIMIT > {k}, {c}, {d})",
    "switch((await item({i})).kind, {{'even': {c}, 'odd': {d}}})",
    "switch({i}, {{1: {c}, 2: {d}}}, add({j}))",
    "or_else(fragile({i}), {c}, on=ValueError)",
    "or_else(fragile({i}), {j}, on=(ValueError, KeyError))",
)
STATEMENTS = (
    "{x} = await {c}",
    "{x} = await {o}",
    "{y} = await show({i})",
    "{y} = await glue({s}, {t})",
    "{x}, {y} = await gather({c}, show({i}))",
    "{x}, {x2} = (await {c}, await {d})",
    "{x}, {y} = (await item({i})).inside",
    "{x}, {y} = await pair({i})",
    "z = await item({i})\n{x} = z.double\n{y} = z.text",
    "z = await pair({i})\n{x} = z.number\n{y} = z[1]",
    "z = await row({i})\n{x} = z['number']\n{y} = z['text']",
    "z = await build(Both, left={i}, right={s})\n{x} = z.left\n{y} = z.right",
    "z = await build(Item, number={i}, text={s}, kind='odd', inside=({j}, {t}))\n{x} = z.inside[0]",
    "z = await add.map([{i}, {j}, {k}])\n{x} = await total(z)\n{x2} = z[1]",
    "z = await add.partial(b={i}).map([{j}, 4])\n{x} = z[0]",
    "z = await add.starmap([({i}, {j}), ({k}, {i})])\n{x} = z[-1]",
    "z = await show.map([{i}], on_error='collect')\n{y} = z[0].value",
    "z = []\nfor k in range({k}):\n    z.append(await add({i}, k))\n{x} = await total(z)",
    "z = [await show(one) for one in ({i}, {j})]\n{y} = z[1]",
    "{x} = {i}\nfor _ in range({k}):\n    {x} = await add({x}, {j})",
    "z = {{'a': {i}, 'b': [{s}]}}\n{x} = z['a']\n{y} = z['b'][0]",
    "if LIMIT > {k}:\n    {x} = await {c}\nelse:\n    {x} = {i}",
    "{x} = await helper({i}, {j})",
    "{x} = await inner0({i}, {s})",
    "{x} = await inner1({i}, {s})",
    "z = await pair_flow({i}, {s})\n{x} = z[0]\n{y} = z[1]",
    "{x} = await when(await small({i}), inner0({j}, {s}), {c})",
    "z = await inner0.partial(s={s}).map([{i}, {j}])\n{x} = z[1]",
)


@st.composite
def programs(draw: st.DrawFn) -> str:
    """Write a module with two flows, `traced` and `eager`, of one body, over two flows inside."""
    parts = [
        PRELUDE,
        "LIMIT = 2\n\nasync def helper(a, b):\n    return await add(await add(a), b)\n",
        "@flow\nasync def pair_flow(n: int, s: str) -> tuple[int, str]:\n    return await add(n), s\n",
        _flow("inner0", draw(bodies(("inner0", "inner1"), small=True)), eager=False),
        _flow("inner1", draw(bodies(("inner1",), small=True)), eager=draw(st.booleans())),
    ]
    lines = draw(bodies((), small=False))
    parts += [_flow("traced", lines, eager=False), _flow("eager", lines, eager=True)]
    return "\n".join(parts)


def _flow(name: str, lines: list[str], *, eager: bool) -> str:
    return f"@flow(eager={eager})\nasync def {name}(n: int, s: str) -> Any:\n" + "".join(
        f"    {line}\n" for line in lines
    )


@st.composite
def bodies(draw: st.DrawFn, forbidden: tuple[str, ...], *, small: bool) -> list[str]:
    """Draw the lines of a body; those that call one of the `forbidden` flows are left out."""
    program = Program()
    allowed = [one for one in STATEMENTS if not any(name in one for name in forbidden)]
    for template in draw(st.lists(st.sampled_from(allowed), min_size=1, max_size=2 if small else 7)):
        _write(draw, program, template)
    if small:
        return [*program.lines, f"return await add({_pick(draw, program.ints)}, {_pick(draw, program.ints)})"]
    shown = ", ".join(draw(st.lists(st.sampled_from([*program.ints, *program.texts]), min_size=1, max_size=4)))
    result = draw(
        st.sampled_from(("[{0}]", "({0},)", "{{'a': [{0}], 'b': ({0},)}}", "await gather(add({1}), show({1}))"))
    )
    return [*program.lines, f"return {result.format(shown, _pick(draw, program.ints))}"]


def _write(draw: st.DrawFn, program: Program, template: str) -> None:
    """Fill a statement with variables that exist, and only then add those it makes."""

    def values() -> dict[str, str]:
        ints, texts = [*program.ints, "7"], [*program.texts, "'c'"]
        return {
            "i": _pick(draw, ints),
            "j": _pick(draw, ints),
            "s": _pick(draw, texts),
            "t": _pick(draw, texts),
            "k": str(draw(st.integers(0, 3))),
        }

    def call() -> str:
        return draw(st.sampled_from(INT_CALLS)).format(**values())

    used = {**values(), "c": call(), "d": call()}
    used["o"] = draw(st.sampled_from(INT_OPERATIONS)).format(**{**used, "c": call(), "d": call()})
    made = {
        name: program.new("int" if name[0] == "x" else "text") for name in ("x", "x2", "y") if f"{{{name}}}" in template
    }
    program.lines.extend(template.format(**used, **made).splitlines())


def _pick(draw: st.DrawFn, names: list[str]) -> str:
    return draw(st.sampled_from(names))


_numbers = itertools.count()
_MODULE = "llmflow_random_program"
"""A name that no other test imports; the class of a model must be found in its module."""


@pytest.fixture(scope="module", autouse=True)
def _no_module_is_left() -> Iterator[None]:
    yield
    sys.modules.pop(_MODULE, None)


def load(source: str) -> dict[str, Any]:
    """Run a program whose source Python can find, as a notebook does."""
    name = f"<program {next(_numbers)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    module = sys.modules[_MODULE] = ModuleType(_MODULE)
    exec(compile(source, name, "exec"), module.__dict__)  # noqa: S102
    return module.__dict__


async def compare(names: dict[str, Any]) -> None:
    async with Runtime(seed=1):
        for number, text in ((3, "a"), (60, "b")):
            expected = await names["eager"](number, text)

            assert expected == await names["traced"](number, text)
            assert expected == await names["traced"](number, text)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(source=programs())
def test_traced_equals_eager(backend: str, source: str) -> None:
    """The graph of a body does what the body does, in every run."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*reaches no step")
        anyio.run(compare, load(source), backend=backend)
