"""Maps that are taken up: only what is not done is asked, and nobody gets another item's answer."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass
from random import Random

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from llmflow import BadRequest, Model, Reply, Runtime, Usage, flow, gather, or_else, prompt, step, task

pytestmark = pytest.mark.anyio


class Stopped(Exception):
    """The power fails."""


class Asked(Model):
    """Answers with the word doubled, after a random number of turns; fails from the `stop`-th request on."""

    __slots__ = ("count", "fails", "random", "stop")

    def __init__(self, *, stop=10**9, seed=0):
        super().__init__("fake/one", handler=self.answer)
        self.count: Counter[str] = Counter()
        self.stop = stop
        self.fails: set[str] = set()
        self.random = Random(seed)

    async def answer(self, request):
        word = request.messages[-1].content
        self.count[word] += 1
        self.stop -= 1
        if self.stop < 0:
            raise Stopped
        for _ in range(self.random.randrange(8)):
            await checkpoint()
        if word in self.fails:
            raise BadRequest("no", status=400)
        return Reply(text=word * 2, usage=Usage(input_tokens=1, output_tokens=1), model="fake/one")


def asking(model):
    @step(model)
    def ask(word: str) -> str:
        return prompt(word)

    return ask


def rows(path, statement):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize("stop", [0, 1, 57, 199])
async def test_a_map_goes_on_in_the_middle(url, stop):
    """200 items, of which some were done: only the others are asked, and the values are in their order."""
    words = [str(number) for number in range(200)]
    model = Asked(stop=stop)
    unit = asking(model).with_(run_id="a")
    async with Runtime(journal=url):
        with pytest.raises(Stopped):
            await unit.map(words, concurrency=8)
        model.stop = 10**9
        done = {word for word, times in model.count.items() if times}
        values = await unit.map(words, concurrency=8)
        again = await unit.map(words, concurrency=8)

    assert [word * 2 for word in words] == values == again
    assert len(done) <= stop + 8
    assert 200 <= sum(model.count.values()) <= 200 + 8 + 1


async def test_a_map_of_a_flow_goes_on(url):
    """What its graph is given is another thing for each item, and none of it is what the map was given."""
    model = Asked(stop=1)
    ask = asking(model)

    @flow
    async def one(word: str) -> str:
        return await ask(word)

    unit = one.with_(run_id="a")
    async with Runtime(journal=url):
        with pytest.raises(Stopped):
            await unit.map(["a", "b"], concurrency=1)
        model.stop = 10
        values = await unit.map(["c", "b", "a"])

    assert (["cc", "bb", "aa"], {"a": 1, "b": 2, "c": 1}) == (values, model.count)


async def test_items_may_become_more(url):
    """The list has grown since: only what is new is asked."""
    model = Asked()
    unit = asking(model).with_(run_id="a")
    async with Runtime(journal=url):
        await unit.map(["a", "b"])
        values = await unit.map(["c", "b", "a"])

    assert (["cc", "bb", "aa"], {"a": 1, "b": 1, "c": 1}) == (values, model.count)


async def test_equal_items(url):
    """Each has its own answer, by its occurrence."""
    model = Asked(stop=5)
    unit = asking(model).with_(run_id="a")
    async with Runtime(journal=url):
        with pytest.raises(Stopped):
            await unit.map(["a", "a", "b", "a", "b", "a"], concurrency=1)
        model.stop = 10
        values = await unit.map(["a", "a", "b", "a", "b", "a"], concurrency=3)

    assert (["aa", "aa", "bb", "aa", "bb", "aa"], {"a": 5, "b": 2}) == (values, model.count)


async def test_keys(tmp_path):
    """Named by key=: the rows say it, and an item that is another one under its key is refused."""
    model = Asked()
    unit = asking(model).with_(run_id="a")
    async with Runtime(journal=f"sqlite:///{tmp_path}/journal.db"):
        outcomes = await unit.map(["x", "y"], key=lambda word: f"key-{word}", on_error="collect")
        changed = await unit.map(["x", "z"], key=lambda word: f"key-{'y' if word == 'z' else word}", on_error="collect")

    assert (["key-x", "key-y"], ["xx", "yy"]) == ([one.key for one in outcomes], [one.value for one in outcomes])
    assert ("xx", None, "RunConflict") == (changed[0].value, changed[1].value, type(changed[1].error).__name__)
    assert [("ask[key-x]",), ("ask[key-y]",)] == rows(tmp_path / "journal.db", "SELECT key FROM nodes ORDER BY key")
    assert {"x": 1, "y": 1} == model.count


async def test_a_key_that_cannot_be_made(url):
    """It is that item's failure; the others are asked, and only it is asked again."""
    model = Asked()
    unit = asking(model).with_(run_id="a")
    broken = ["b"]

    def key(word):
        if word in broken:
            raise KeyError(word)
        return word

    async with Runtime(journal=url):
        first = await unit.map(["a", "b", "c"], key=key, on_error="collect")
        broken.clear()
        second = await unit.map(["a", "b", "c"], key=key, on_error="collect")

    assert (["aa", None, "cc"], KeyError) == ([one.value for one in first], type(first[1].error))
    assert (["aa", "bb", "cc"], {"a": 1, "b": 1, "c": 1}) == ([one.value for one in second], model.count)


async def test_failures_are_asked_again(url):
    """on_error="collect": what failed has no answer that could be taken."""
    model = Asked()
    model.fails = {"b"}
    unit = asking(model).with_(run_id="a")
    async with Runtime(journal=url):
        first = await unit.map(["a", "b", "c"], on_error="collect")
        model.fails = set()
        second = await unit.map(["a", "b", "c"], on_error="collect")

    assert ["aa", None, "cc"] == [one.value for one in first]
    assert (["aa", "bb", "cc"], {"a": 1, "b": 2, "c": 1}) == ([one.value for one in second], model.count)


async def test_one_by_one(url):
    """`async with`: a map that was left early is taken up."""
    model = Asked()
    unit = asking(model).with_(run_id="a")
    words = [str(number) for number in range(20)]
    async with Runtime(journal=url):
        async with unit.map(words, concurrency=2) as outcomes:
            seen = [await anext(outcomes) for _ in range(5)]
        async with unit.map(words, concurrency=2) as outcomes:
            found = {one.index: one.value async for one in outcomes}

    assert {index: word * 2 for index, word in enumerate(words)} == found
    assert 5 == len(seen)
    assert sum(model.count.values()) <= 20 + 2


class Record:
    """An item that has no text of its own."""

    def __init__(self, word):
        self.word = word


@pytest.mark.parametrize("keyed", [False, True])
async def test_items_that_nothing_tells_apart(url, keyed):
    """Without a key they run again, as what is recorded may be another one's; with one they do not."""
    ran = Counter()

    @task
    async def double(one: Record) -> str:
        ran[one.word] += 1
        return one.word * 2

    unit = double.with_(run_id="a")
    options = {"key": lambda one: one.word} if keyed else {}
    async with Runtime(journal=url):
        first = await unit.map([Record("a"), Record("b")], **options)
        second = await unit.map([Record("b"), Record("a"), Record("c")], **options)

    assert (["aa", "bb"], ["bb", "aa", "cc"]) == (first, second)
    assert ({"a": 1, "b": 1, "c": 1} if keyed else {"a": 2, "b": 2, "c": 1}) == ran


@dataclass
class Page:
    """An item of which a part has no text of its own, and the other is that of every item."""

    body: Record
    language: str = "en"


def doubled(ran):
    """Ways to double the word of a record, each with what makes an item of a record."""

    @task
    async def double(one: Record) -> str:
        ran[one.word] += 1
        return one.word * 2

    @task
    async def double_page(one: Page) -> str:
        return await double.function(one.body)

    @task
    async def double_first(one: list[Record]) -> str:
        return await double.function(one[0])

    @task
    async def double_both(language: str, one: Record) -> str:
        return await double.function(one)

    @flow
    async def traced(one: Record) -> str:
        return await double(one)

    @flow(eager=True)
    async def eager(one: Record) -> str:
        return await double(one)

    @flow(eager=True)
    async def hidden(one: Record) -> str:
        @task
        async def look() -> str:
            return await double.function(one)

        return await look()

    return {
        "alone": (double.map, lambda one: one),
        "dataclass": (double_page.map, Page),
        "list": (double_first.map, lambda one: [one]),
        "starmap": (double_both.starmap, lambda one: ("en", one)),
        "traced": (traced.map, lambda one: one),
        "eager": (eager.map, lambda one: one),
        "hidden": (hidden.map, lambda one: one),
    }


WAYS = sorted(doubled(Counter()))


def word_of(item):
    """The word of what `doubled` makes an item of."""
    while not isinstance(item, Record):
        item = item.body if isinstance(item, Page) else item[-1]
    return item.word


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("keyed", [False, True])
async def test_items_that_have_no_text_in_part(url, way, keyed):
    """They are as unknown as those that have none at all: with other items around them they run again, all of each."""
    ran = Counter()
    mapped, item = doubled(ran)[way]
    unit = mapped.__self__.with_(run_id="a")
    options = {"key": word_of} if keyed else {}
    async with Runtime(journal=url):
        first = await getattr(unit, mapped.__name__)([item(Record(word)) for word in "ab"], **options)
        second = await getattr(unit, mapped.__name__)([item(Record(word)) for word in "bac"], **options)

    assert (["aa", "bb"], ["bb", "aa", "cc"]) == (first, second)
    assert ({"a": 1, "b": 1, "c": 1} if keyed else {"a": 2, "b": 2, "c": 1}) == ran


async def test_a_fallback_that_an_unknown_item_took(url):
    """It is that item's: with the others it is tried first, as nobody knows whose it was."""
    broken = {"a"}

    @task
    async def double(one: Record) -> str:
        if one.word in broken:
            raise BadRequest(one.word, status=400)
        return one.word * 2

    @flow
    async def careful(one: Record) -> str:
        return await or_else(double(one), "none")

    unit = careful.with_(run_id="a")
    async with Runtime(journal=url):
        first = await unit.map([Record("a"), Record("b")])
        second = await unit.map([Record("b"), Record("a")])

    assert (["none", "bb"], ["bb", "none"]) == (first, second)


LIKE_MARKS = ["?", "[?]", "@?", "0123456789ab?", "a]?", "a]?/b", "a]@0123456789ab?", "a]@0123456789ab?/b", "#2", ""]


@pytest.mark.parametrize("keyed", [False, True])
async def test_texts_that_look_like_the_mark_of_unknown_items(url, keyed):
    """What a user wrote is known, whatever is in it, and so is the author's key."""
    model = Asked()
    ask = asking(model)

    @flow
    async def one(word: str) -> str:
        return await ask(word)

    options = {"key": lambda word: word} if keyed else {}
    async with Runtime(journal=url):
        for unit in (ask.with_(run_id="a"), one.with_(run_id="b")):
            first = await unit.map(LIKE_MARKS, **options)
            second = await unit.map(LIKE_MARKS[::-1], **options)

            assert first == second[::-1] == [word * 2 for word in LIKE_MARKS]
    assert dict.fromkeys(LIKE_MARKS, 2) == model.count


async def test_the_place_of_an_unknown_item_says_that_it_is_one(tmp_path):
    """A question mark behind its brackets; places of items that are known never change."""
    mapped, item = doubled(Counter())["dataclass"]

    @task
    async def ask(one: object) -> str:
        return "fine"

    async with Runtime(journal=f"sqlite:///{tmp_path}/journal.db"):
        await mapped.__self__.with_(run_id="a").map([item(Record("a")), item(Record("b"))])
        await ask.with_(run_id="b").map(["a", {"a": [1, None, 2.5]}])

    places = [key for (key,) in rows(tmp_path / "journal.db", "SELECT key FROM nodes ORDER BY run_id, key")]
    assert [
        "double_page[69b369cce47a]?",
        "double_page[69b369cce47a]?#2",
        "ask[747838d761b1]",
        "ask[ac8d8342bbb2]",
    ] == places


# -- nobody gets another record's answer -------------------------------------------------------------------------------


def programs(model):
    """The three ways of doing the same to 20 records: waits of random length first, then a paid step."""
    ask = asking(model)

    @task
    async def look_up(record: str) -> str:
        for _ in range(model.random.randrange(12)):
            await checkpoint()
        return record

    @flow
    async def one(record: str) -> str:
        return await ask(await look_up(record))

    @flow(eager=True)
    async def eager_gather(records: list[str]) -> list[str]:
        async def alone(record):
            return await ask(await look_up(record))

        results = {}

        async def put(index, record):
            results[index] = await alone(record)

        async with anyio.create_task_group() as group:
            for index, record in enumerate(records):
                group.start_soon(put, index, record)
        return [results[index] for index in range(len(records))]

    @flow
    async def traced_map(records: list[str]) -> list[str]:
        return await one.map(records, concurrency=20)

    @flow(eager=True)
    async def eager_map(records: list[str]) -> list[str]:
        return await one.map(records, concurrency=20)

    @flow(eager=True)
    async def eager_own_gather(records: list[str]) -> list[str]:
        return [await one(record) for record in records[:10]] + list(await gather(*[one(r) for r in records[10:]]))

    return {one.name: one for one in (eager_gather, traced_map, eager_map, eager_own_gather)}


@pytest.mark.parametrize("name", ["eager_gather", "traced_map", "eager_map", "eager_own_gather"])
async def test_nobody_gets_another_record_s_answer(tmp_path, name):
    """Killed after ten starts and begun anew with other waits: 0 of 20 records have the answer of another one."""
    records = [f"r{number:02}" for number in range(18)] + ["r03", "r03"]
    wrong = 0
    for seed in range(4):
        url = f"sqlite:///{tmp_path}/{seed}.db"
        async with Runtime(journal=url):
            first = Asked(stop=10, seed=seed)
            with pytest.raises((Stopped, BaseExceptionGroup)):
                await programs(first)[name].with_(run_id="a")(records)
        async with Runtime(journal=url):
            second = Asked(seed=seed + 100)
            values = await programs(second)[name].with_(run_id="a")(list(records))
        wrong += sum(value != record * 2 for value, record in zip(values, records, strict=True))
        assert sum(second.count.values()) >= 10  # of which the ones that were cut short are asked again

    assert 0 == wrong


@pytest.mark.parametrize("name", ["eager_gather", "traced_map", "eager_map", "eager_own_gather"])
@settings(max_examples=8, deadline=None)
@given(
    words=st.lists(st.sampled_from(["a", "b", "c", "dd"]), max_size=12), seeds=st.tuples(st.integers(), st.integers())
)
def test_law_places_do_not_depend_on_timing(tmp_path_factory, name, words, seeds):
    """With other waits the same nodes have the same places and the same inputs, duplicates included."""
    folder = tmp_path_factory.mktemp("places")
    words = [*words, *words[:3]]

    async def run(seed):
        model = Asked(seed=seed)
        async with Runtime(journal=f"sqlite:///{folder}/{seed}.db"):
            await programs(model)[name].with_(run_id="a")(words)
        return sorted(rows(f"{folder}/{seed}.db", "SELECT key, input_hash, output FROM nodes"))

    first, second = anyio.run(run, seeds[0]), anyio.run(run, seeds[1])
    assert first == second
    assert len(first) >= len(words)
