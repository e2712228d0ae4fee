"""`.map()`: bounded, lazily read, one run, and one failure or all of them."""

from __future__ import annotations

import gc
from collections import Counter

import anyio
import pytest

from llmflow import (
    Attempt,
    DefinitionError,
    InvalidOutput,
    Model,
    Outcome,
    Request,
    Result,
    Runtime,
    hookimpl,
    prompt,
    step,
)
from llmflow.messages import CallScope
from llmflow.testing._scripted import after, scripted
from llmflow.testing._time import virtual_backend

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    """Both backends, on virtual time."""
    return virtual_backend(request.param)


def word_of(request):
    return request.messages[-1].content


@pytest.fixture
def model():
    """Doubles a word after a second; `bad` is no answer, `slow` takes ten."""

    def answer(request):
        word = word_of(request)
        return after(10 if word == "slow" else 1, "junk" if word.startswith("bad") else f"{len(word)}")

    return scripted(default=answer)


@pytest.fixture
def count(model):
    """A step that counts letters."""

    @step(model)
    def count(word: str) -> int:
        return prompt(word)

    return count


class Source:
    """Items, and how many of them were taken."""

    def __init__(self, items):
        self._items = iter(items)
        self.taken = 0

    def __iter__(self):
        return self

    def __next__(self):
        item = next(self._items)
        self.taken += 1
        return item


async def test_values_come_in_the_order_of_the_items(count):
    """However long each takes."""
    assert [4, 1, 2, 3] == await count.map(["slow", "a", "ab", "abc"])


async def test_nothing_gives_nothing(count):
    """An empty list is an empty list."""
    assert [] == await count.map([])
    assert [] == await count.map(iter(()), on_error="collect")


@pytest.mark.parametrize("concurrency", [1, 3, 16])
async def test_d3_so_many_at_a_time(concurrency, count, model):
    """D3: bounded, and as fast as the bound allows."""
    started = anyio.current_time()

    await count.map(["ab"] * 48, concurrency=concurrency)

    assert concurrency == model.peak
    assert started + 48 / concurrency == pytest.approx(anyio.current_time())


async def test_d3_sixteen_unless_said(count, model):
    """The default."""
    await count.map(["ab"] * 40)

    assert 16 == model.peak


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_items_are_read_as_there_is_room(concurrency, count, model):
    """At most one item is taken beyond those that are done or in work."""
    source, ahead = Source(["ab"] * 30), []

    def watching(request):
        ahead.append(source.taken - len(model.requests) + model.in_flight)
        return after(1, "2")

    model.default = watching
    await count.map(source, concurrency=concurrency)

    assert 30 == source.taken
    assert max(ahead) <= concurrency + 1


async def test_a_slow_consumer_holds_the_reading_back(count, model):
    """Outcomes that nobody takes are bounded: what is in work and as many again."""
    source = Source(["ab"] * 1000)

    async with count.map(source, concurrency=4) as outcomes:
        await anext(outcomes)
        await anyio.sleep(1000)
        assert source.taken <= 1 + 4 + 4 + 1


async def test_async_iterators_are_items_too(count):
    """A database cursor, say."""

    async def words():
        for word in ("a", "ab", "abc"):
            await anyio.sleep(1)
            yield word

    assert [1, 2, 3] == await count.map(words())


async def test_the_first_failure_stops_the_map(count, model):
    """It leaves as itself, no group around it; items behind are not begun."""
    source = Source(["ab", "ab", "bad", *["slow"] * 100])

    with pytest.raises(InvalidOutput) as caught:
        await count.map(source, concurrency=2)

    assert "count" == caught.value.step
    assert source.taken < 10
    assert 0 == model.in_flight


async def test_collect_gives_an_outcome_for_each_item(count):
    """With value or error, index, key and cost."""
    outcomes = await count.map(["ab", "bad", "abc"], on_error="collect", key=lambda word: f"<{word}>")

    assert [(0, "<ab>", 2, True), (1, "<bad>", None, False), (2, "<abc>", 3, True)] == [
        (one.index, one.key, one.value, one.ok) for one in outcomes
    ]
    assert InvalidOutput is type(outcomes[1].error)
    with pytest.raises(InvalidOutput):
        outcomes[1].unwrap()


async def test_outcomes_come_as_they_are_ready(count):
    """`async with` gives them without waiting for the slow one."""
    seen = []

    async with count.map(["slow", "a", "ab"]) as outcomes:
        async for outcome in outcomes:
            seen.append((outcome.index, outcome.value))

    assert [(1, 1), (2, 2), (0, 4)] == sorted(seen, key=lambda one: (one[0] == 0, one))
    assert (0, 4) == seen[-1]


async def test_leaving_the_block_cancels_what_is_left(count, model):
    """And waits for it."""
    async with count.map(["slow"] * 5 + ["a"], concurrency=6) as outcomes:
        await anext(outcomes)
        assert 5 == model.in_flight

    assert 0 == model.in_flight


async def test_what_the_source_raises_leaves_as_itself(count):
    """The author's own iterator, the author's own error."""

    def words():
        yield "a"
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        await count.map(words())


async def test_what_the_key_raises_leaves_as_itself(count):
    """As one error, never as a group."""

    def key(word):
        raise KeyError("no key")

    with pytest.raises(KeyError, match="no key"):
        await count.map(["a", "b"], key=key)


async def test_a_cancelled_map_leaves_nothing(count, model):
    """Cancellation passes through, and everything in work ends."""
    with anyio.move_on_after(5) as scope:
        await count.map(["slow"] * 50, concurrency=8)

    assert (True, 0, 8) == (scope.cancelled_caught, model.in_flight, len(model.requests))


async def test_all_items_belong_to_one_run(model):
    """A run is the outermost call, and that is the map."""
    runs = set()

    class Watch:
        @hookimpl
        def llmflow_call_finished(self, event):
            runs.add(event.run_id)

    @step(model)
    def count(word: str) -> int:
        return prompt(word)

    async with Runtime(plugins=[Watch()]):
        await count.map(["a", "b", "c"])

    assert 1 == len(runs)


async def test_a_map_in_a_body_belongs_to_the_run_around_it(model):
    """As every inner call."""
    runs = set()

    class Watch:
        @hookimpl
        def llmflow_call_finished(self, event):
            runs.add(event.run_id)

    @step(model)
    def count(word: str) -> int:
        return prompt(word)

    @step(model)
    async def outer(word: str) -> int:
        await count.map([word] * 3)
        return prompt(word)

    async with Runtime(plugins=[Watch()]):
        result = await outer.run("ab")

    assert {result.run_id} == runs


async def test_after_a_map_the_next_call_is_a_run_of_its_own(count):
    """Also when the map could not even begin."""
    from llmflow.context import frame

    @step
    def nobody(word: str) -> str:
        return prompt(word)

    await count.map(["a"])
    with pytest.raises(DefinitionError, match="has no model"):
        await nobody.map(["a"])

    assert frame.get() is None


async def test_starmap_takes_tuples(model):
    """One for each call; anything else is said to be wrong."""

    @step(model)
    def join(one: str, other: str) -> int:
        return prompt(one + other)

    assert [3, 5] == await join.starmap([("a", "bc"), ("ab", "cde")])
    assert [3] == await join.partial(other="bc").map(["a"])
    with pytest.raises(TypeError, match="tuples"):
        await join.starmap(["ab"])


async def test_map_needs_one_parameter(model):
    """Said when `.map()` is called, with the ways out."""

    @step(model)
    def join(one: str, other: str) -> int:
        return prompt(one + other)

    with pytest.raises(DefinitionError, match="partial") as caught:
        join.map(["a"])

    assert "starmap" in str(caught.value)


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"concurrency": True}, {"on_error": "ignore"}], ids=str)
def test_absurd_options_are_refused(wrong, count):
    """When `.map()` is called."""
    with pytest.raises(DefinitionError):
        count.map(["a"], **wrong)


@pytest.mark.parametrize("items", ["text", 7, None], ids=repr)
async def test_what_is_no_list_is_refused(items, count):
    """A string is not a list of letters by accident."""
    with pytest.raises(TypeError, match="map of 'count'"):
        await count.map(items)


async def test_d3_ten_thousand_items_in_bounded_memory():
    """D3, fault 76: of 10,000 items that pass through, only those in work are alive at any moment, and their records."""

    async def answer(request):
        return "2"

    @step(Model("my/model", handler=answer))
    def count(word: str) -> int:
        return prompt(word)

    def living():
        gc.collect()
        kinds = Counter(type(one) for one in gc.get_objects())
        return Counter({kind: kinds[kind] for kind in (Outcome, Result, Attempt, Request, CallScope)})

    before = living()  # what other tests have kept
    done, alive = 0, []
    async with count.map((f"w{n}" for n in range(10_000)), concurrency=100) as outcomes:
        async for outcome in outcomes:
            done += outcome.value // 2
            if done % 2000 == 0:
                alive.append(max((living() - before).values(), default=0))

    assert 10_000 == done
    assert max(alive) <= 300


def test_map_from_plain_code(count):
    """`await` is all it needs; a script runs it with `asyncio.run`."""
    import asyncio

    from llmflow.testing._time import VirtualLoop

    async def main():
        return await count.map(["a", "ab"])

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert [1, 2] == runner.run(main())
