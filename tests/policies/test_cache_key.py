"""The request key: everything an answer depends on is in it, and no secret is."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from llmflow import Cache, File, Message, Model, Runtime, context, prompt, step
from llmflow.canonical import canonical
from llmflow.testing import LoopbackServer, openai_answer, scripted

pytestmark = pytest.mark.anyio

PNG = File(media_type="image/png", data=b"\x89PNG", name="a.png")


class Count(BaseModel):
    number: int


class OtherCount(BaseModel):
    number: int
    unit: str = "one"


class Keys:
    """A store that remembers the keys it was asked for."""

    def __init__(self):
        self.asked = []

    async def get(self, key, /):
        self.asked.append(key)

    async def put(self, key, entry, /, *, seconds):
        """Keep nothing."""

    async def aclose(self):
        """Nothing is open."""


ANSWER = '{"number": 1}'


async def handler(request):
    return ANSWER


async def other_handler(request):
    return ANSWER


def made(name="question", model=None, returns=Count, text="How many {{ word }}?", built=None, **options):
    """Return a step like all the others but for what is said."""

    def body(word):
        return (
            prompt(text if built is None else None, **{"messages": None, **(built or {})})
            if built
            else prompt(f"How many {word}?")
        )

    body.__annotations__ = {"word": str, "return": returns}
    body.__name__ = body.__qualname__ = name
    return step(
        model or Model("fake/one", handler=handler),
        Cache("1h"),
        name=name,
        version=options.pop("version", "v1"),
        **options,
    )(body)


async def key_of(ask, word="x", tenant=None):
    keys = Keys()
    with Runtime() as runtime, context(tenant=tenant):
        runtime._stores._opened["cache"] = keys
        await ask(word)
    return keys.asked[0]


def changes():
    """Yield one step for each thing that may change, all else equal."""
    yield "step", made(name="another")
    yield "prompt version", made(version="v2")
    yield "schema", made(returns=OtherCount)
    yield "model name", made(model=Model("fake/two", handler=handler))
    yield "handler", made(model=Model("fake/one", handler=other_handler))
    yield "account", made(model=Model("fake/one", handler=handler, account="eu"))
    yield "option", made(model=Model("fake/one", handler=handler, top_k=3))
    yield "other option", made(model=Model("fake/one", handler=handler, top_k="3"))
    yield "temperature", made(params={"temperature": 0.0})
    yield "max_tokens", made(params={"max_tokens": 17})
    yield "stop", made(params={"stop": ["x"]})
    yield "seed", made(params={"seed": 1})
    yield "system", made(system="Be brief.")
    yield "role", made(built={"messages": [Message("assistant", "How many x?")]})
    yield "two messages", made(built={"messages": [Message("user", "How many"), Message("user", " x?")]})
    yield "one message", made(built={"messages": [Message("user", "How many x?"), Message("user", "")]})
    yield "file", made(built={"messages": [Message("user", "How many x?", (PNG,))]})
    for name, value in (("media_type", "image/gif"), ("data", b"\x89PNH"), ("name", "b.png")):
        other = File(**{"media_type": PNG.media_type, "data": PNG.data, "name": PNG.name, name: value})
        yield f"file's {name}", made(built={"messages": [Message("user", "How many x?", (other,))]})
    yield (
        "file's url",
        made(built={"messages": [Message("user", "How many x?", (File(media_type="image/png", url="https://a/b"),))]}),
    )
    for context_ in ({"a": 1}, {"a": "1"}, {"a": True}, {"a": 1.0}, {"a": [1]}, {"a": (1,)}, {1: "a"}, {}, []):
        yield f"context {context_!r}", made(built={"messages": [Message("user", "How many x?")], "context": context_})


CHANGES = dict(changes())


@pytest.mark.parametrize("change", CHANGES)
async def test_any_single_change_is_a_miss(change):
    """K2: the key is another one, and the same one when nothing changed."""
    same = await key_of(made())
    changed = await key_of(CHANGES[change])

    assert same == await key_of(made())
    assert changed == await key_of(CHANGES[change])
    assert same != changed


async def test_all_changes_differ_from_each_other():
    """K2: no two of them meet in one key; the encoding is unambiguous."""
    keys = [await key_of(one) for one in CHANGES.values()]

    assert len(set(keys)) == len(keys)


async def test_the_input_and_the_tenant_are_in_the_key():
    """K2, K5: as is who asks; no tenant is not a tenant called None."""
    ask = made()
    keys = [await key_of(ask, word, tenant) for word in ("x", "y") for tenant in (None, "a", "b", "None", "null")]

    assert 10 == len(set(keys))


# -- connections -------------------------------------------------------------------------------------------------------


def identity(model):
    with Runtime() as runtime:
        return runtime.identity(model)


CONNECTIONS = [
    Model("openai/m", api_key="sk-one"),
    Model("openai/m", api_key="sk-two"),
    Model("openai/m", api_key="sk-one", base_url="http://localhost:1/v1"),
    Model("openai/m", api_key="sk-one", base_url="http://localhost:2/v1"),
    Model("openai/m", api_key="sk-one", account="a"),
    Model("openai/m", api_key="sk-one", account="b"),
    Model("anthropic/m", api_key="sk-one"),
    Model("google/m", api_key="sk-one"),
]


def test_connections_are_told_apart():
    """K5: address, account and key each make another connection; the same three make the same one."""
    said = [identity(one) for one in CONNECTIONS]

    assert len(set(said)) == len(said)
    assert said == [identity(one) for one in CONNECTIONS]


def test_an_account_stands_for_its_keys():
    """A key that is rotated does not empty the cache when the account is named."""
    assert identity(Model("openai/m", api_key="sk-one", account="a")) == identity(
        Model("openai/m", api_key="sk-two", account="a")
    )


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_BASE_URL"])
def test_what_the_sdk_reads_from_the_environment_counts(monkeypatch, variable):
    """K5: another organisation or key in the environment is another connection."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    before = identity(Model("openai/m"))
    monkeypatch.setenv(variable, "http://other.invalid")

    assert before != identity(Model("openai/m"))


@pytest.mark.parametrize("model", CONNECTIONS, ids=repr)
def test_no_key_is_in_an_identity(model):
    """S2: a hash tells keys apart and does not show them."""
    assert "sk-" not in identity(model)


def test_a_client_is_known_by_its_address_and_key():
    """Two clients made alike are one connection; another key is another."""
    openai = pytest.importorskip("openai")
    one, same, other = [
        Model("openai/m", client=openai.AsyncOpenAI(api_key=key, base_url="http://localhost:1/v1"))
        for key in ("sk-one", "sk-one", "sk-two")
    ]

    assert identity(one) == identity(same) != identity(other)
    assert "sk-one" not in identity(one)


def test_two_handlers_of_one_name_are_two():
    """Functions made by a function, methods and lambdas are names of this process, one for each object."""

    def make():
        async def answer(request):
            return ANSWER

        return answer

    with Runtime() as runtime:
        one, other = make(), make()
        said = [
            runtime.identity(Model("a/b", handler=made)) for made in (one, other, scripted().answer, scripted().answer)
        ]
        again = runtime.identity(Model("a/b", handler=one))

    assert (4, said[0]) == (len(set(said)), again)
    assert again == identity(Model("a/b", handler=one))  # in another runtime of this process, it is itself


def test_a_handler_that_cannot_be_watched_is_known_too():
    """An object that takes no weak references keeps its name, and nobody else gets it."""

    class Slotted:
        __slots__ = ()

        async def __call__(self, request):
            return ANSWER

    one = Slotted()
    said = [identity(Model("a/b", handler=handler)) for handler in (one, one, Slotted(), Slotted(), Slotted())]

    assert (4, said[0]) == (len(set(said)), said[1])


def test_an_address_that_is_used_again_is_not_the_same_handler():
    """K5: handlers come and go at the same place in memory; none inherits another one's answers."""
    with Runtime() as runtime:
        said = [runtime.identity(Model("a/b", handler=scripted().answer)) for _ in range(200)]

    assert 200 == len(set(said))


PROGRAM = """
import sys
from llmflow import Model, Runtime
import module_of_handlers
async def mine(request): ...
with Runtime() as runtime:
    for handler in (module_of_handlers.answer, mine, lambda request: None):
        print(runtime.identity(Model("a/b", handler=handler)))
"""


def test_a_function_of_a_module_is_the_same_in_every_process(tmp_path):
    """A program's own functions too, but not those of another program; a lambda is nobody else's."""
    (tmp_path / "module_of_handlers.py").write_text("async def answer(request): ...", encoding="utf-8")
    said = []
    for name in ("one.py", "one.py", "two.py"):
        (tmp_path / name).write_text(PROGRAM, encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, str(tmp_path / name)], capture_output=True, text=True, check=True, env=environment
        )
        said.append(done.stdout.splitlines())
    first, again, other = said

    assert first[:2] == again[:2]
    assert (first[0], first[1] == other[1]) == (other[0], False)
    assert 3 == len({first[2], again[2], other[2]})


# -- without a key -----------------------------------------------------------------------------------------------------


async def test_a_missing_api_key_is_the_call_s_failure(monkeypatch):
    """It is said as it would be without a cache, and nothing is kept under no key."""
    from llmflow import AuthenticationFailed

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Runtime(), pytest.raises(AuthenticationFailed, match="has no API key"):
        await made(model="openai/gpt-5-mini")("x")


def test_the_key_is_nowhere_in_the_file(tmp_path):
    """K7, S2: neither the entry nor its key shows the credential, also when the provider echoes it."""
    secret = "sk-very-secret-0123456789"
    with LoopbackServer(openai_answer(f"your key is {secret[:3]}")) as server:
        model = Model("openai/m", api_key=secret, base_url=server.base_url)

        @step(model, Cache("1h"))
        def question(word: str) -> str:
            return prompt(word)

        with Runtime(cache=f"sqlite:///{tmp_path}/cache.db"):
            question.sync("x")
            question.sync("x")

    written = b"".join(one.read_bytes() for one in tmp_path.rglob("*") if one.is_file())

    assert 1 == len(server.requests)
    assert b"your key is sk-" in written
    assert secret.encode() not in written


# -- the text of values ------------------------------------------------------------------------------------------------


class Colour(Enum):
    red = 1
    blue = 2


class Loud(str):
    pass


@dataclass
class Point:
    x: int
    y: int


@pytest.mark.parametrize(
    "value",
    [
        None, True, 1, 1.0, "1", b"1", [1], (1,), {1}, {1: 1}, {"1": 1}, Colour.red, Colour.blue, Loud("1"), Point(1, 2),
        Point(2, 1), Count(number=1), OtherCount(number=1), Decimal(1), dt.date(2020, 1, 1), dt.datetime(2020, 1, 1),
        dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc), dt.timedelta(1), float("nan"), float("inf"), [[1], 2], [1, [2]],
        [[1, 2]], "[1,2]", {"a": {"b": 1}}, {"a": [["b", 1]]}, {"tuple": [1]}, {"dict": [["a", 1]]}, [None], [], (), {},
    ],
    ids=repr,
)  # fmt: skip
def test_every_value_has_a_text_of_its_own(value):
    """Types that look alike are told apart."""
    parameters = next(
        one for one in test_every_value_has_a_text_of_its_own.pytestmark if one.name == "parametrize"
    ).args[1]
    texts = [canonical(one) for one in parameters]

    assert 1 == texts.count(canonical(value))
    json.loads(canonical(value).replace("nan", "NaN").replace("inf", "Infinity"))


_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
)


@given(_plain)
def test_a_mapping_s_order_does_not_matter(value):
    """The same pairs are the same text, in whatever order they were put in."""
    pairs = {str(number): one for number, one in enumerate([value, 1, "x"])}

    assert canonical(pairs) == canonical(dict(reversed(pairs.items())))


@given(_plain, _plain)
def test_different_values_have_different_texts(one, other):
    """The text is unambiguous: it is equal only when types and values are."""

    def typed(value):
        if isinstance(value, list | tuple):
            return (type(value), [typed(part) for part in value])
        if isinstance(value, dict):
            return (dict, {repr(typed(key)): typed(part) for key, part in value.items()})
        return (type(value), repr(value))

    assert (typed(one) == typed(other)) == (canonical(one) == canonical(other))


@pytest.mark.parametrize(
    "value", [object(), lambda: 1, [object()], {"a": object()}], ids=["object", "function", "inside", "value"]
)
def test_what_says_nothing_about_itself_is_refused(value):
    """Its text would hold an address, which is another one in the next process."""
    with pytest.raises(TypeError, match="no text that is the same in every process"):
        canonical(value)
