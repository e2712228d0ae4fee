"""Calls that no graph knows: when an eager flow is taken up, each gets its own answer or is made again."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from llmflow import Model, Reply, RunConflict, Runtime, Usage, flow, prompt, step, task

pytestmark = pytest.mark.anyio


def keys(path):
    connection = sqlite3.connect(path)
    try:
        return [key for (key,) in connection.execute("SELECT key FROM nodes ORDER BY key")]
    finally:
        connection.close()


class Record:
    """Has no text of its own."""

    def __init__(self, word=""):
        self.word = word


@dataclass
class Page:
    """Has a text of its own in part, which is the same for all."""

    body: Record
    language: str = "en"


class Asked(Model):
    """Answers with its own name and the temperature it is asked with, and counts that."""

    __slots__ = ("count",)

    def __init__(self, name, count):
        super().__init__(f"fake/{name}", handler=self.answer)
        self.count = count

    async def answer(self, request):
        said = f"{request.messages[-1].content} {self.model} {request.params.get('temperature')}"
        self.count[said] += 1
        return Reply(text=said, usage=Usage(input_tokens=1, output_tokens=1), model=self.model)


class Crashed(Exception):
    """The process has died."""


async def taken_up(url, call, words="ab", again="bac", *, path=None):
    """Return what an eager flow gives that has crashed and is taken up: `call` for each word, in another order then."""
    orders = iter((words, again))

    @flow(eager=True)
    async def collect(client: Any) -> dict[str, str]:
        order = next(orders)
        found = {word: await call(client, word) for word in order}
        if order == words:
            raise Crashed
        return found

    unit = collect.with_(run_id="a")
    async with Runtime(journal=url if path is None else f"sqlite:///{path}"):
        with pytest.raises(Crashed):
            await unit(Record())
        return await unit(Record())


# -- inputs without a text ---------------------------------------------------------------------------------------------


def doubling(ran):
    """Ways to double a word that is hidden in something that has no text of its own."""

    @task
    async def double(one: object, two: object = None) -> str:
        while not isinstance(one, Record):
            one = one.body if isinstance(one, Page) else one[0]
        ran[one.word] += 1
        return one.word * 2

    @flow(eager=True)
    async def inner(one: Record) -> str:
        return await double(one)

    @flow
    async def traced(one: Record) -> str:
        return await double(one)

    @flow(eager=True)
    async def hidden(one: Record) -> str:
        @task
        async def look() -> str:
            return await double.function(one)

        return await look()

    return {
        "alone": lambda one: double(one),
        "dataclass": lambda one: double(Page(one)),
        "list": lambda one: double([one]),
        "beside": lambda one: double(one, "same"),
        "partial": lambda one: double.partial(one=one)(two="same"),
        "inner": inner,
        "traced": traced,
        "hidden": hidden,
    }


@pytest.mark.parametrize("way", sorted(doubling(Counter())))
async def test_a_call_whose_inputs_have_no_text_is_made_again(url, way):
    """What is recorded of it may be another one's; so may what is inside of it."""
    ran = Counter()
    double = doubling(ran)[way]
    found = await taken_up(url, lambda _, word: double(Record(word)))

    assert {"a": "aa", "b": "bb", "c": "cc"} == found
    assert {"a": 2, "b": 2, "c": 1} == ran


async def test_a_call_beside_it_is_not_made_again(url):
    """Only what cannot be told apart."""
    ran, asked = Counter(), Counter()
    double = doubling(ran)["alone"]

    @step(Asked("one", asked))
    def ask(word: str) -> str:
        return prompt(word)

    async def call(_, word):
        return await ask(await double(Record(word)))

    found = await taken_up(url, call)

    assert {word: f"{word * 2} one None" for word in "abc"} == found
    assert {f"{word * 2} one None": 1 for word in "abc"} == asked


@pytest.mark.parametrize("keyed", [False, True])
async def test_items_of_a_map_in_an_eager_flow(url, keyed):
    """With `key=` the author says what tells them apart, so they are not run again."""
    ran = Counter()

    @task
    async def double(one: Page) -> str:
        ran[one.body.word] += 1
        return one.body.word * 2

    async def call(_, words):
        options = {"key": lambda one: one.body.word} if keyed else {}
        return "".join(await double.map([Page(Record(word)) for word in words], **options))

    found = await taken_up(url, call, ["ab"], ["bac"])

    assert {"bac": "bbaacc"} == found
    assert ({"a": 1, "b": 1, "c": 1} if keyed else {"a": 2, "b": 2, "c": 1}) == ran


async def test_texts_that_look_like_the_mark(url):
    """A text is known whatever is in it."""
    ran = Counter()

    @task
    async def double(word: str, parts: list[str]) -> str:
        ran[word] += 1
        return word * 2

    words = ["?", "?Record", "[?]", "?Record,?Record", "list(?Record)", "a]?/b"]
    found = await taken_up(url, lambda _, word: double(word, ["?", word]), words, words[::-1])

    assert {word: word * 2 for word in words} == found
    assert dict.fromkeys(words, 1) == ran


# -- the run's own arguments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["alone", "in a tuple", "fixed"])
async def test_what_the_run_itself_was_given_is_known(url, way):
    """A client that is the run's own argument: nothing is run again that was given it, as the id stands for that client."""
    ran = Counter()

    @task
    async def fetch(client: object, word: str) -> str:
        ran[word] += 1
        return word * 2

    def call(client, word):
        if way == "fixed":
            return fetch.partial(client=client)(word=word)
        return fetch(client if way == "alone" else (client, 1), word)

    assert {"a": "aa", "b": "bb", "c": "cc"} == await taken_up(url, call)
    assert {"a": 1, "b": 1, "c": 1} == ran


async def test_a_client_of_the_flow_s_own_is_not(url):
    """It is one of any number that could be made in there."""
    ran = Counter()

    @task
    async def fetch(client: object, word: str) -> str:
        ran[word] += 1
        return word * 2

    assert {"a": "aa", "b": "bb", "c": "cc"} == await taken_up(url, lambda _, word: fetch(Record(), word))
    assert {"a": 2, "b": 2, "c": 1} == ran


async def test_methods_of_one_object(url):
    """Steps that are methods of the object whose flow runs: what is paid is not paid again."""
    asked, orders = Counter(), iter(("ab", "bac"))

    class Desk:
        @step(Asked("one", asked))
        def ask(self, word: str) -> str:
            return prompt(word)

        @flow(eager=True)
        async def collect(self, limit: int) -> list[str]:
            found = [await self.ask(word) for word in next(orders)]
            if len(found) < limit:
                raise Crashed
            return found

    async with Runtime(journal=url):
        with pytest.raises(Crashed):
            await Desk().collect.with_(run_id="a")(limit=3)
        found = await Desk().collect.with_(run_id="a")(limit=3)

    assert [f"{word} one None" for word in "bac"] == found
    assert {f"{word} one None": 1 for word in "abc"} == asked


async def test_two_arguments_of_a_run_that_look_the_same(url):
    """Neither is known, as nothing tells one from the other."""
    ran, orders = Counter(), iter(("ab", "ba"))
    double = doubling(ran)["alone"]

    @flow(eager=True)
    async def both(a: Record, b: Record) -> dict[str, str]:
        order = next(orders)
        found = {word: await double({"a": a, "b": b}[word]) for word in order}
        if order == "ab":
            raise Crashed
        return found

    unit = both.with_(run_id="a")
    async with Runtime(journal=url):
        with pytest.raises(Crashed):
            await unit(Record("a"), Record("b"))
        found = await unit(Record("a"), Record("b"))

    assert ({"a": "aa", "b": "bb"}, {"a": 2, "b": 2}) == (found, ran)


@pytest.mark.parametrize("eager", [False, True])
async def test_a_run_that_was_given_a_client(url, eager):
    """It happens once: a client counts by its type, and what is beside it as it is."""
    ran = Counter()

    @task
    async def fetch(client: object, word: str) -> str:
        ran["fetch"] += 1
        return word * 2

    @task
    async def check(word: str) -> str:
        ran["check"] += 1
        if ran["check"] == 1:
            raise Crashed
        return word

    @flow(eager=eager)
    async def visit(client: object, word: str) -> str:
        return await check(await fetch(client, word))

    unit = visit.with_(run_id="a")
    async with Runtime(journal=url):
        with pytest.raises(Crashed):
            await unit(Record(), "a")
        values = [await unit(Record(), "a") for _ in range(2)]
        with pytest.raises(RunConflict, match="with other inputs"):
            await unit(Record(), "b")
        with pytest.raises(RunConflict, match="with other inputs"):
            await unit(Page(Record()), "a")

    assert (["aa", "aa"], {"fetch": 1, "check": 2}) == (values, ran)


# -- what .with_() said ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"a": {"model": "A"}, "b": {"model": "B"}}, id="model"),
        pytest.param({"a": {"params": {"temperature": 0}}, "b": {"params": {"temperature": 1}}}, id="params"),
        pytest.param({"a": {}, "b": {"model": "B"}, "c": {"params": {"temperature": 1}}}, id="without"),
        pytest.param(
            {"a": {"model": "A", "params": {"temperature": 1}}, "b": {"model": "A"}, "c": {"params": {"seed": 1}}},
            id="both",
        ),
    ],
)
@pytest.mark.parametrize("mapped", [False, True])
async def test_one_question_of_several_models(url, options, mapped):
    """Each answer is that of the model, or the parameters, that the call said; none is paid twice."""
    asked = Counter()
    models = {name: Asked(name, asked) for name in "AB"}

    @step(Asked("one", asked))
    def ask(word: str) -> str:
        return prompt(word)

    async def call(_, name):
        said = options[name]
        unit = ask.with_(**{**said, "model": models[said["model"]]} if "model" in said else said)
        return (await unit.map(["x"]))[0] if mapped else await unit("x")

    found = await taken_up(url, call, "".join(options), "".join(reversed(options)))

    expected = {
        name: f"x {said.get('model', 'one')} {said.get('params', {}).get('temperature')}"
        for name, said in options.items()
    }
    assert (expected, Counter(expected.values())) == (found, asked)


async def test_one_model_at_several_addresses(file):
    """What is asked is a service, not a name; whose key is used does not matter."""
    asked = Counter()

    @step
    def ask(word: str) -> str:
        return prompt(word)

    def model(**options):
        made = Asked("one", asked)
        for name, value in options.items():
            setattr(made, name, value)
        return made

    async def call(_, name):
        options = {
            "a": {"base_url": "http://a.test"},
            "b": {"account": "b"},
            "c": {"options": {"mode": "json"}},
            "d": {},
            "e": {"api_key": "k"},
        }[name]
        return await ask.with_(model=model(**options))("x")

    await taken_up(None, call, "abcde", "edcba", path=file)

    assert 4 == len({key.partition("#")[0] for key in keys(file)})
    assert 5 == len(keys(file))


# -- keys never change -------------------------------------------------------------------------------------------------


async def test_keys(file):
    """Those of known inputs stay as they are for ever; behind the others stands a question mark."""

    @step(Asked("one", Counter()))
    def ask(word: str) -> str:
        return prompt(word)

    @task
    async def use(word: str, n: object, one: object = None) -> str:
        return word

    async def call(client, _):
        await ask("w")
        await ask("w")
        await ask.with_(version="7")("w")
        await ask.with_(model=Asked("two", Counter()))("w")
        await ask.map(["w", "x"], key=lambda word: f"key {word}")
        await use("w", [1, (2,)], client)
        await use("w", [1, (2,)], Record())
        return await use("w", [1, (2,)])

    await taken_up(None, call, "a", "b", path=file)

    assert [
        "collect/ask@2eb0498c5d21",
        "collect/ask@2eb0498c5d21#2",
        "collect/ask@2eb0498c5d21#3",
        "collect/ask@e437f14db43a",
        "collect/ask[key w]@2eb0498c5d21",
        "collect/ask[key x]@a0375da4f181",
        "collect/use@62e0db40da47",
        "collect/use@62e0db40da47?",
        "collect/use@66a2fcb7513b",
    ] == keys(file)
