"""Everything that is allowed on a placeholder: it becomes a checked edge, and gives what the eager body gives."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable
from types import ModuleType

import pytest

from llmflow.graph import Constant, Input, Ref, Structure
from llmflow.runtime import Runtime

Load = Callable[[str], ModuleType]

# `ticket` is node 0, `text` the parameter; the expression is given to the last node, `echo`.
EDGES = {
    "value": ("ticket", Ref(0)),
    "parameter": ("text", Input("text")),
    "model-field": ("ticket.category", Ref(0, (("attr", "category"),))),
    "property": ("ticket.upper", Ref(0, (("attr", "upper"),))),
    "list-index": ("ticket.tags[0]", Ref(0, (("attr", "tags"), ("item", 0)))),
    "negative-index": ("ticket.tags[-1]", Ref(0, (("attr", "tags"), ("item", -1)))),
    "tuple-index": ("ticket.pair[1]", Ref(0, (("attr", "pair"), ("item", 1)))),
    "string-index": ("ticket.pair[1][0]", Ref(0, (("attr", "pair"), ("item", 1), ("item", 0)))),
    "list": ("[text, ticket.score]", Structure(list, (Input("text"), Ref(0, (("attr", "score"),))))),
    "tuple": ("(text, 1)", Structure(tuple, (Input("text"), Constant(1)))),
    "dict": ("{'a': text}", Structure(dict, (Input("text"),), ("a",))),
    "nested": ("[{'a': (text,)}]", Structure(list, (Structure(dict, (Structure(tuple, (Input("text"),)),), ("a",)),))),
    "constant": ("LIMIT", Constant(3)),
    "constant-list": ("[1, 2]", Constant([1, 2])),
    "starred-tuple": (
        "[*ticket.pair]",
        Structure(list, (Ref(0, (("attr", "pair"), ("item", 0))), Ref(0, (("attr", "pair"), ("item", 1))))),
    ),
    "getattr": ("getattr(ticket, 'category')", Ref(0, (("attr", "category"),))),
    "cast": ("cast('str', text)", Input("text")),
    "comprehension": ("[one for one in (text, text)]", Structure(list, (Input("text"), Input("text")))),
    "dict-lookup": ("{'a': text}['a']", Input("text")),
    "dict-of-holders": ("dict(a=text)", Structure(dict, (Input("text"),), ("a",))),
}


@pytest.mark.parametrize(("expression", "expected"), EDGES.values(), ids=EDGES)
def test_an_access_is_an_edge(load: Load, expression: str, expected: object) -> None:
    """What is read of a value is recorded as the way to it."""
    module = load(
        "@flow\nasync def subject(text: str) -> Any:\n"
        f"    ticket = await triage(text)\n    return await echo({expression})\n"
    )

    last = module.subject.graph().nodes[-1]

    assert {"value": expected} == last.inputs


BODIES = {
    "straight": "return await label(text)",
    "constant-result": "return 3",
    "none": "return None",
    "field": "t = await triage(text)\nreturn t.category",
    "structure-result": "t = await triage(text)\nreturn {'a': [t.score, text], 'b': (1, t.tags[0])}",
    "unpack-pair": "t = await triage(text)\nnumber, name = t.pair\nreturn await join(name, await label(name)), await count(number)",
    "unpack-star": "t = await triage(text)\nfirst, *rest = t.pair\nreturn [first, rest]",
    "unpack-named": "left, right = await named(3)\nreturn await label(right), left",
    "named-fields": "pair = await named(3)\nreturn pair.left, pair.right, pair[1]",
    "dataclass": "p = await point(4)\nreturn p.x, await count(p.x)",
    "typed-dict": "r = await row(text)\nreturn r['name'], await count(r['size'])",
    "enum": "k = await kind(text)\nreturn k.value, k.name",
    "loop": "for _ in range(LIMIT):\n    text = await label(text)\nreturn text",
    "loop-append": "found = []\nfor one in ['a', 'b']:\n    found.append(await join(text, one))\nreturn found",
    "comprehension": "return [await join(text, one) for one in ('a', 'b')]",
    "dict-comprehension": "return {one: await join(text, one) for one in ('a', 'b')}",
    "len-of-list": "found = [await label(text), text]\nreturn len(found)",
    "truth-of-list": "found = [await label(text)]\nif found:\n    return await label(found[0])\nreturn 'none'",
    "if-constant": "if LIMIT > 2:\n    return await label(text)\nreturn text",
    "none-constant": "x = None\nif x is None:\n    x = await label(text)\nreturn x",
    "try-constant": "try:\n    x = int('3')\nexcept ValueError:\n    x = 0\nreturn await join(text, str(x))",
    "match-constant": "match LIMIT:\n    case 3:\n        x = 'three'\n    case _:\n        x = 'other'\nreturn await join(text, x)",
    "with-constant": "with contextlib.suppress(ValueError):\n    x = int('3')\nreturn await join(text, str(x))",
    "while-constant": "n = 0\nwhile n < 2:\n    text = await label(text)\n    n += 1\nreturn text",
    "f-string-of-constant": "return await label(f'{LIMIT:03d}')",
    "in-constant": "return await label('yes' if 'a' in ('a', 'b') else 'no')",
    "walrus": "return (y := await label(text)), y",
    "helper": "async def twice(one):\n    return await label(await label(one))\nreturn await twice(text)",
    "plain-helper": "def pick(one):\n    return one.category\nreturn pick(await triage(text))",
    "lambda": "pick = lambda one: one.score\nreturn pick(await triage(text))",
    "gather": "a, b = await gather(label(text), triage(text))\nreturn await join(a, b.category)",
    "gather-mixed": "return await gather(label.map([text]), when(True, label('a'), label('b')), build(Point, x=1, y=text))",
    "gather-helper": "async def twice(one):\n    return await label(await label(one))\nreturn await gather(twice(text), twice('b'))",
    "gather-star": "return await gather(*[label(one) for one in ('a', 'b', 'c')])",
    "gather-nothing": "return await gather()",
    "map": "t = await triage(text)\nreturn await label.map(t.tags)",
    "map-literal": "return await label.map([text, 'b'])",
    "map-partial": "return await join.partial(right=text).map(['a', 'b'])",
    "map-partial-constant": "return await join.partial(right='!').map([text])",
    "map-starmap": "return await join.starmap([(text, 'a'), ('b', text)])",
    "map-collect": "o = await label.map([text], on_error='collect')\nreturn o[0].value",
    "map-index": "found = await words(text)\nlabelled = await label.map(found)\nreturn labelled[0]",
    "when": "t = await triage(text)\nreturn await when(t.urgent, label('urgent'), join(text, 'later'))",
    "when-constant": "return await when(LIMIT > 2, label(text), label('b'))",
    "when-nested": "t = await triage(text)\nreturn await when(t.urgent, when(t.urgent, label('a'), label('b')), label('c'))",
    "when-map": "t = await triage(text)\nreturn await when(t.urgent, label.map(t.tags), label.map(['x']))",
    "when-build": "t = await triage(text)\nreturn await when(t.urgent, build(Point, x=t.score, y=1), point(0))",
    "switch": "t = await triage(text)\nreturn await switch(t.category, {'bug': label('b'), 'billing': label('c')})",
    "switch-default": "return await switch(text, {'abcd': label('b')}, label('other'))",
    "switch-enum": "return await switch(await kind(text), {Kind.BUG: label('b'), Kind.OTHER: label('c')})",
    "switch-bool": "t = await triage(text)\nreturn await switch(t.urgent, {True: label('b'), False: label('c')})",
    "switch-constant": "return await switch(LIMIT, {3: label('b'), 4: label('c')})",
    "or-else-value": "return await or_else(fail(text), 'nothing', on=ValueError)",
    "or-else-call": "return await or_else(fail(text), join(text, 'x'), on=(ValueError, KeyError))",
    "or-else-fine": "return await or_else(label(text), join(text, 'x'))",
    "or-else-placeholder": "t = await triage(text)\nreturn await or_else(fail(text), t.category, on=ValueError)",
    "build": "t = await triage(text)\nreturn await build(Point, x=t.score, y=[text])",
    "build-model": "t = await triage(text)\nreturn await build(Ticket, category='bug', urgent=t.urgent, score=1, tags=[text], pair=(1, text))",
    "build-typed-dict": "return await build(Row, name=text, size=3)",
    "build-named": "return await build(Named, left=1, right=text)",
    "partial": "return await join.partial(right='!')(text)",
    "with_": "return await label.with_()(text)",
    "defaults": "return await inner(text)",
    "inner-field": "t = await outer_ticket(text)\nreturn t.score, t.tags[0]",
    "inner-structure": "a, b = await pair_flow(text)\nreturn await join(a, b)",
    "inner-dict": "d = await dict_flow(text)\nreturn d['a']",
    "inner-twice": "return await inner(await inner(text))",
    "inner-constant": "return await inner('fixed', 'other')",
    "inner-in-when": "t = await triage(text)\nreturn await when(t.urgent, inner(text), inner('x'))",
    "inner-map": "return await inner.map([text, 'b'])",
    "inner-eager": "return await eager_flow(text)",
    "inner-constant-result": "return await switch(await constant_flow(), {3: label(text), 4: label('x')})",
    "union-field": "return (await shape(text)).x",
    "generic": "page = await page_of(text)\nreturn await count(page.items[0]), page.title",
    "mutated-constant": "return await push([], text), await push([], text)",
    "effects": "await label('side')\nreturn text",
}

INNER = """
@flow
async def inner(text: str, suffix: str = "!") -> str:
    return await label(await join(text, suffix))

@flow
async def outer_ticket(text: str) -> Ticket:
    return await triage(text)

@flow
async def pair_flow(text: str) -> tuple[str, str]:
    return text, await label(text)

@flow
async def dict_flow(text: str) -> dict[str, Any]:
    return {"a": [text], "b": 1}

@flow
async def constant_flow() -> int:
    return LIMIT

@flow(eager=True)
async def eager_flow(text: str) -> str:
    value = await label(text)
    return value.upper() if value else ""

@dataclasses.dataclass
class Circle:
    x: int

@task
def shape(text: str) -> Point | Circle:
    return Circle(len(text))

I = TypeVar("I")

class Page(BaseModel, Generic[I]):
    items: list[I]
    title: str

@task
def page_of(text: str) -> Page[int]:
    return Page[int](items=[len(text)], title=text)

@task
def push(found: list[str], text: str) -> list[str]:
    found.append(text)
    return found

"""


def both(load: Load, body: str) -> ModuleType:
    lines = textwrap.indent(body, "    ")
    source = "".join(
        f"@flow({options})\nasync def {name}(text: str) -> Any:\n{lines}\n\n"
        for name, options in (("traced", ""), ("eager", "eager=True"))
    )
    return load(INNER + source)


@pytest.mark.filterwarnings("ignore:flow .* reaches no step:UserWarning")
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_traced_body_gives_what_the_eager_one_gives(load: Load, runtime: Runtime, body: str) -> None:  # noqa: ARG001  # entered
    """The same source gives the same value traced and eager, in the first run and in the next."""
    module = both(load, body)

    for text in ("ab cd", "bug", "abcd"):
        expected = module.eager.sync(text)

        assert expected == module.traced.sync(text)
        assert expected == module.traced.sync(text)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    "name", ["gather", "when", "map", "or-else-call", "inner-twice", "switch", "gather-helper", "inner-eager"]
)
async def test_a_traced_body_gives_what_the_eager_one_gives_on_both_backends(
    load: Load, name: str, anyio_backend: str
) -> None:
    """The graph is built inside a running loop as it is outside of one."""
    module = both(load, BODIES[name])
    async with Runtime():
        assert await module.eager("ab cd") == await module.traced("ab cd"), anyio_backend


def test_building_leaves_no_warning(load: Load) -> None:
    """Calls that were taken over by an operation are not reported as forgotten."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*reaches no step")
        for body in BODIES.values():
            both(load, body).traced.graph()
