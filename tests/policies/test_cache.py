"""Cache: an accepted answer is given again, as a new object, and asked for by one of many."""

from __future__ import annotations

import asyncio
import logging
import threading
from decimal import Decimal

import anyio
import pytest
from pydantic import BaseModel

from llmflow import (
    BadRequest,
    Band,
    Budget,
    BudgetExceeded,
    Cache,
    ContentFiltered,
    Deadline,
    DeadlineExceeded,
    DefinitionError,
    Fallback,
    InvalidOutput,
    Model,
    Price,
    ProviderUnavailable,
    QueueFull,
    Refused,
    Repair,
    Reply,
    Retry,
    Runtime,
    Truncated,
    Usage,
    context,
    hookimpl,
    plan,
    prompt,
    step,
    task,
)
from llmflow.testing import LoopbackServer, VirtualLoop, after, hang, openai_answer, scripted

pytestmark = pytest.mark.anyio


class Ticket(BaseModel):
    category: str
    tags: list[str] = []


class Hits:
    """Remembers the events of cache hits."""

    def __init__(self):
        self.events = []

    @hookimpl
    def llmflow_cache_hit(self, event):
        self.events.append(event)

    @property
    def kinds(self):
        return [one.kind for one in self.events]


@pytest.fixture
def hits():
    return Hits()


@pytest.fixture
def runtime(hits):
    with Runtime(seed=1, plugins=[hits]) as made:
        yield made


async def gathered(count, ask, *words):
    """Call `count` times at once; return the results, failures among them."""
    results = [None] * count

    async def one(index):
        try:
            results[index] = await ask.run(*(words or ("x",)))
        except Exception as error:
            results[index] = error

    async with anyio.create_task_group() as group:
        for index in range(count):
            group.start_soon(one, index)
    return results


# -- hits --------------------------------------------------------------------------------------------------------------


async def test_the_same_question_is_asked_once(asking, hits):
    """The second call is answered from the cache: no request, no cost, and what it would have cost is said."""
    model = scripted("fine", price=Price(input=1, output=1), usage=Usage(input_tokens=1000, output_tokens=500))
    ask = asking(model, Cache("1h"))

    first = await ask.run("x")
    second = await ask.run("x")

    assert ("fine", False, None) == (first.value, first.cached, first.saved_usd)
    assert ("fine", True, (), Decimal(0)) == (second.value, second.cached, second.attempts, second.cost_usd)
    assert first.cost_usd == second.saved_usd == Decimal("0.0015")
    assert ["hit"] == hits.kinds


async def test_a_hit_is_an_object_of_its_own(asking):
    """K4: what one caller does to its value no other sees."""
    ask = asking(scripted({"category": "bug"}), Cache("1h"), returns=Ticket)

    first = await ask("x")
    first.tags.append("mine")
    second = await ask("x")
    second.tags.append("yours")

    assert Ticket(category="bug") == await ask("x")


async def test_an_answer_lives_as_long_as_its_ttl(asking):
    """A moment before, it is a hit; at its end it is asked for again."""
    model = scripted("one", "two")
    ask = asking(model, Cache("10s"))

    await ask("x")
    await anyio.sleep(9.9)
    assert "one" == await ask("x")
    await anyio.sleep(0.2)
    assert "two" == await ask("x")


async def test_a_mended_answer_is_mended_again(asking):
    """What is kept is the answer as it came; a hit says too that it was mended."""
    ask = asking(scripted('Sure!\n```json\n{"category": "bug"}\n```'), Cache("1h"), returns=Ticket)

    await ask("x")
    result = await ask.run("x")

    assert (True, True, Ticket(category="bug")) == (result.cached, result.repaired, result.value)


async def test_a_hit_touches_no_request_policy(asking):
    """Neither places nor a dead provider matter to a hit."""
    ask = asking(scripted("fine"), Cache("1h"), Deadline(5))

    await ask("x")

    assert ["fine"] * 20 == [one.value for one in await gathered(20, ask)]


async def test_off_takes_it_out(asking):
    """`Cache.off` on a step wins over the runtime's."""
    model = scripted(default="fine")
    with Runtime(policies=[Cache("1h")]):
        kept, asked = asking(model), asking(model, Cache.off)
        for _ in range(3):
            await kept("x")
            await asked("x")

    assert 4 == len(model.requests)


async def test_the_answer_of_a_fallback_is_kept_under_its_own_model(asking):
    """When the first model is back, it is asked; the fallback's answer is not given in its name."""
    first = scripted(ProviderUnavailable("503"), "from first", name="fake/first")
    second = scripted("from second", name="fake/second")
    ask = asking(first, Fallback(second), Cache("1h"), Retry.off)

    one, two, three = [await ask.run("x") for _ in range(3)]

    assert ["from second", "from first", "from first"] == [one.value, two.value, three.value]
    assert ["fake/second", "fake/first", "fake/first"] == [one.model, two.model, three.model]


async def test_a_fallback_is_answered_from_its_cache(asking):
    """While the first model is down, the second is asked once."""
    first = scripted(default=ProviderUnavailable, name="fake/first")
    second = scripted("from second", name="fake/second")
    ask = asking(first, Fallback(second), Cache("1h"), Retry.off)

    assert ["from second"] * 3 == [await ask("x") for _ in range(3)]


# -- what is never kept ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (ProviderUnavailable("503"), ProviderUnavailable),
        (BadRequest("400"), BadRequest),
        ("no json", InvalidOutput),
        ('{"tags": []}', InvalidOutput),
        (Reply(text='{"category": "b', finish_reason="length"), Truncated),
        (Reply(text="I cannot", finish_reason="refusal"), Refused),
        (Reply(text=None, finish_reason="content_filter"), ContentFiltered),
    ],
    ids=["unavailable", "bad request", "no json", "does not fit", "truncated", "refused", "filtered"],
)
async def test_a_failure_is_never_kept(asking, reply, error):
    """K3: the next call asks again, and its good answer is kept."""
    model = scripted(reply, {"category": "bug"})
    ask = asking(model, Cache("1h"), Retry.off, Repair.off, returns=Ticket)

    with pytest.raises(error):
        await ask("x")
    assert Ticket(category="bug") == await ask("x")
    assert Ticket(category="bug") == await ask("x")
    assert 2 == len(model.requests)


async def test_an_answer_that_its_check_refuses_is_not_kept(asking):
    """A check is part of being accepted."""

    def short(value, inputs):
        if len(value) > 3:
            raise ValueError("too long")

    model = scripted("much too long", "ok")
    ask = asking(model, Cache("1h"), Repair.off, checks=[short])

    with pytest.raises(InvalidOutput):
        await ask("x")

    assert ["ok", "ok"] == [await ask("x"), await ask("x")]


async def test_an_entry_that_no_longer_fits_is_asked_for_again(asking, caplog):
    """K4: it is a miss and one warning; it is not given, and it is not an error."""
    strict = False

    def check(value, inputs):
        if strict and value == "old":
            raise ValueError("no longer")

    model = scripted("old", "new", "newer")
    ask = asking(model, Cache("1h"), checks=[check])
    await ask("x")
    strict = True

    with caplog.at_level(logging.WARNING, "llmflow"):
        assert ["new", "new"] == [await ask("x"), await ask("x")]
    assert ["an answer in the cache of step 'question' no longer fits; it is asked for again"] == caplog.messages


async def test_what_has_no_stable_text_is_not_cached(caplog):
    """A validation context of unknown objects would be another one in another process: asked each time, one warning."""
    model = scripted(default="fine")

    @step(model, Cache("1h"))
    def question(word: str) -> str:
        return prompt(word, context={"of": object()})

    with caplog.at_level(logging.WARNING, "llmflow"):
        for _ in range(3):
            await question("x")

    assert 3 == len(model.requests)
    assert 1 == len(caplog.messages)
    assert "prompt(context=...) has no text that is the same in every process: a object" in caplog.messages[0]


# -- single flight -----------------------------------------------------------------------------------------------------


async def test_a_thousand_callers_are_one_request(asking, hits):
    """K1: one asks, the others wait for its answer and get objects of their own."""
    model = scripted(after(1, {"category": "bug"}))
    ask = asking(model, Cache("1h"), returns=Ticket)

    results = await gathered(1000, ask)

    assert 1 == len(model.requests)
    assert [Ticket(category="bug")] * 1000 == [one.value for one in results]
    assert 1000 == len({id(one.value) for one in results})
    assert (999, ["coalesced"] * 999) == (sum(one.cached for one in results), hits.kinds)


async def test_a_leader_that_fails_is_followed_by_few(asking):
    """K1: with a dead provider a hundred callers send three requests, and all of them get a failure."""
    model = scripted(default=after(1, lambda request: ProviderUnavailable("503")))
    ask = asking(model, Cache("1h"), Retry.off)

    results = await gathered(100, ask)

    assert 3 == len(model.requests)
    assert [ProviderUnavailable] * 100 == [type(one) for one in results]
    assert 100 == len({id(one) for one in results})


async def test_the_requests_of_all_leaders_count(asking):
    """K1: where one leader sends three by its retries, nobody takes over."""
    model = scripted(default=after(1, lambda request: ProviderUnavailable("503")))
    ask = asking(model, Cache("1h"), Retry(3, wait_initial=0.01))

    results = await gathered(50, ask)

    assert (3, 50) == (len(model.requests), sum(isinstance(one, ProviderUnavailable) for one in results))


async def test_a_shared_failure_is_not_kept(asking):
    """Who comes after it asks again."""
    model = scripted(*[after(1, ProviderUnavailable("503"))] * 3, default="fine")
    ask = asking(model, Cache("1h"), Retry.off)

    await gathered(10, ask)

    assert "fine" == await ask("x")


async def test_each_call_s_copy_of_a_failure_is_its_own(asking):
    """A note on one of them is on no other."""
    model = scripted(default=after(1, lambda request: ProviderUnavailable("503")))
    ask = asking(model, Cache("1h"), Retry.off)

    results = await gathered(10, ask)
    results[0].add_note("mine")

    assert [0] * 9 == [one.__notes__.count("mine") if hasattr(one, "__notes__") else 0 for one in results[1:]]
    assert ["step 'question': 503"] * 10 == [str(one) for one in results]


async def test_a_follower_takes_over_after_a_failure(asking):
    """The first request fails, the second succeeds: one caller has the failure, all others the answer."""
    model = scripted(after(1, ProviderUnavailable("503")), after(1, "fine"))
    ask = asking(model, Cache("1h"), Retry.off)

    results = await gathered(20, ask)

    assert 2 == len(model.requests)
    assert 19 == sum(getattr(one, "value", None) == "fine" for one in results)


async def test_a_cancelled_leader_hurts_nobody(asking):
    """K1: one of those who wait takes over."""
    model = scripted(hang(), after(1, "fine"))
    ask = asking(model, Cache("1h"))
    values = []

    async def call():
        values.append(await ask("x"))

    async with anyio.create_task_group() as group:
        with anyio.move_on_after(0.5):
            async with anyio.create_task_group() as leaders:
                leaders.start_soon(call)
                await anyio.sleep(0.1)
                for _ in range(20):
                    group.start_soon(call)
                await anyio.sleep_forever()

    assert (["fine"] * 20, 2) == (values, len(model.requests))


async def test_cancelled_followers_hurt_nobody(asking, runtime):
    """The leader and the other followers go on."""
    model = scripted(after(2, "fine"))
    ask = asking(model, Cache("1h"))
    values = []

    async def call():
        values.append(await ask("x"))

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        await anyio.sleep(0.1)
        with anyio.move_on_after(0.5):
            async with anyio.create_task_group() as given_up:
                for _ in range(10):
                    given_up.start_soon(call)
        group.start_soon(call)

    assert (["fine"] * 2, 1) == (values, len(model.requests))
    assert {"in_flight": 0, "waiting": 0} == flying(runtime)


def flying(runtime):
    (state,) = [one for one in runtime.stats().states if one.name == "single flight"]
    return dict(state.values)


@pytest.mark.parametrize("moment", [0.001, *(step / 20 for step in range(1, 45))])
async def test_a_leader_may_be_cancelled_at_any_moment(asking, runtime, moment):
    """R8: whenever it happens, the others are served and nothing is left over."""
    model = scripted(
        after(0.3, ProviderUnavailable("503", retryable=True)),
        after(0.5, "no json"),
        default=after(0.3, '{"category": "bug"}'),
    )
    ask = asking(model, Cache("1h"), Retry(5, wait_initial=0.2), returns=Ticket)
    values = []

    async def call():
        values.append(await ask("x"))

    async with anyio.create_task_group() as group:
        with anyio.move_on_after(moment):
            async with anyio.create_task_group() as leaders:
                leaders.start_soon(call)
                await anyio.sleep(0)
                await anyio.sleep(0)
                for _ in range(3):
                    group.start_soon(call)
                await anyio.sleep_forever()

    assert [Ticket(category="bug")] * 3 == values[-3:]
    assert {"in_flight": 0, "waiting": 0} == flying(runtime)


async def test_a_follower_s_deadline_is_its_own(asking, now):
    """It waits no longer than its own call may take."""
    model = scripted(after(100, "fine"))
    ask = asking(model, Cache("1h"))
    hurried = ask.with_(Deadline(2))
    started = now()

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "x")
        await anyio.sleep(0.5)
        with pytest.raises(DeadlineExceeded):
            await hurried("x")
        waited = now() - started
        group.cancel_scope.cancel()

    assert waited == pytest.approx(2.5)
    assert 1 == len(model.requests)


async def test_a_leader_whose_time_is_up_hands_over(asking):
    """Its deadline says nothing about the others: they ask on."""
    model = scripted(hang(), after(1, "fine"))
    ask = asking(model, Cache("1h"))
    failures, values = [], []

    async def hurried():
        with pytest.raises(DeadlineExceeded) as caught:
            await ask.with_(Deadline(1))("x")
        failures.append(caught.value)

    async def call():
        values.append(await ask("x"))

    async with anyio.create_task_group() as group:
        group.start_soon(hurried)
        await anyio.sleep(0.1)
        for _ in range(10):
            group.start_soon(call)

    assert (1, ["fine"] * 10, 2) == (len(failures), values, len(model.requests))


class Full:
    """A limiter in front of the provider that refuses the first few."""

    band = Band.BULKHEAD

    def __init__(self, refusals):
        self.refusals = refusals

    def wrap(self, proceed, site, /):
        async def limit(request):
            await anyio.sleep(0.1)
            if self.refusals:
                self.refusals -= 1
                raise QueueFull("full")
            return await proceed(request)

        return limit


async def test_a_leader_that_sends_nothing_hands_over(asking):
    """A limiter that refuses the leader need not refuse the next one."""
    model = scripted(after(0.1, "fine"))

    results = await gathered(10, asking(model, Cache("1h"), Full(4)))

    assert (4, 6, 1) == (
        sum(isinstance(one, QueueFull) for one in results),
        sum(getattr(one, "value", None) == "fine" for one in results),
        len(model.requests),
    )


@pytest.mark.parametrize(
    ("policies", "requests"),
    [((Budget(calls=1, per="call"), Retry(3, wait_initial=0.01)), 3), ((Budget(calls=2, per="call"),), 2)],
)
async def test_leaders_that_a_limit_stops_half_way_are_few(policies, requests, asking):
    """K1: who was refused its retry or re-ask has sent something: the others do not each do the same."""
    answer = (lambda request: ProviderUnavailable("503")) if requests == 3 else "not a number"
    model = scripted(default=after(0.1, answer))

    results = await gathered(100, asking(model, Cache("1h"), *policies, returns=int))

    assert requests == len(model.requests)
    assert [BudgetExceeded] * 100 == [type(one) for one in results]


async def test_a_follower_s_own_check_decides(asking):
    """A check sees the inputs of its own call; whom the shared answer does not fit asks for one."""
    model = scripted(after(1, "yes"), after(1, "no"))

    def agrees(value, inputs):
        if inputs["liked"] != value:
            raise ValueError("not liked")

    @step(model, Cache("1h"), Repair.off, checks=[agrees])
    def question(word: str, liked: str) -> str:
        return prompt(word)

    values = []

    async def call(liked):
        values.append(await question("x", liked))

    async with anyio.create_task_group() as group:
        group.start_soon(call, "yes")
        await anyio.sleep(0.1)
        group.start_soon(call, "no")

    assert ["yes", "no"] == values


def test_threads_and_loops_share_a_flight(runtime):
    """K1: callers in threads with event loops of their own, asyncio and trio, send one request."""
    ready = threading.Barrier(8)
    release = threading.Event()

    async def answer(request):
        await anyio.to_thread.run_sync(release.wait)
        return "fine"

    model = Model("fake/one", handler=answer)
    asked = []

    async def counted(request):
        asked.append(request)
        return await answer(request)

    model.handler = counted

    @step(model, Cache("1h"))
    def question(word: str) -> str:
        return prompt(word)

    values = []

    def work(backend):
        async def main():
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(call)

        async def call():
            values.append(await question("x"))

        ready.wait()
        if backend == "sync":
            values.append(question.sync("x"))
        else:
            anyio.run(main, backend=backend)

    threads = [threading.Thread(target=work, args=(one,)) for one in ("asyncio", "trio", "sync", "sync") * 2]
    for one in threads:
        one.start()
    until(lambda: len(asked) == 1 and flying(runtime)["waiting"] == 23)
    release.set()
    for one in threads:
        one.join(120)

    assert (["fine"] * 24, 1) == (values, len(asked))


def until(condition):
    """Wait for what other threads do."""
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it never came about")


async def test_a_sync_call_never_waits_for_the_loop_it_blocks():
    """A flight that is led on this very loop could not end while `.sync()` blocks it: the call sends its own request."""
    model = scripted(hang(), "own")

    @step(model, Cache("1h"))
    def question(word: str) -> str:
        return prompt(word)

    async with anyio.create_task_group() as group:
        group.start_soon(question, "x")
        await anyio.sleep(0.1)
        value = question.sync("x")
        group.cancel_scope.cancel()

    assert ("own", 2) == (value, len(model.requests))


def test_a_loop_that_ends_hands_its_flight_over(runtime):
    """The leader's event loop is closed under it; a follower in another thread asks instead."""
    begun = threading.Event()
    asked = []

    async def answer(request):
        asked.append(request)
        begun.set()
        if len(asked) == 1:
            await anyio.sleep_forever()
        return "fine"

    @step(Model("fake/one", handler=answer), Cache("1h"))
    def question(word: str) -> str:
        return prompt(word)

    values = []

    async def lead():
        leader = asyncio.ensure_future(question.run("x"))
        await asyncio.to_thread(begun.wait)
        follower.start()
        await asyncio.to_thread(until, lambda: flying(runtime)["waiting"] == 1)
        assert not leader.done()

    follower = threading.Thread(target=lambda: values.append(question.sync("x")))
    asyncio.run(lead())
    follower.join(120)

    assert (["fine"], 2) == (values, len(asked))


# -- stale while revalidate --------------------------------------------------------------------------------------------


async def test_a_stale_answer_is_given_while_one_asks(asking, now, hits):
    """Past its ttl one caller asks and waits; all others have the old answer at once."""
    model = scripted("old", after(3, "new"))
    ask = asking(model, Cache("10s", stale="1m"))
    await ask("x")
    await anyio.sleep(11)
    started = now()
    values = []

    async def call():
        values.append((await ask("x"), round(now() - started)))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(call)

    assert [("old", 0)] * 4 + [("new", 3)] == values
    assert (["stale"] * 4, 2) == (hits.kinds, len(model.requests))
    assert "new" == await ask("x")


async def test_a_failed_refresh_gives_the_stale_answer(asking):
    """Stale is better than nothing while the provider is down."""
    model = scripted("old", default=ProviderUnavailable("503"))
    ask = asking(model, Cache("10s", stale="1m"), Retry.off)
    await ask("x")
    await anyio.sleep(11)

    result = await ask.run("x")

    assert ("old", True, 1) == (result.value, result.cached, len(result.attempts))


async def test_a_refresh_leaves_time_for_the_stale_answer(asking, now):
    """A provider that hangs does not use up the whole deadline."""
    model = scripted("old", hang())
    ask = asking(model, Cache("10s", stale="1h"), Deadline(10))
    await ask("x")
    await anyio.sleep(11)
    started = now()

    value = await ask("x")

    assert ("old", 9) == (value, round(now() - started))


async def test_past_stale_there_is_no_answer(asking):
    """After ttl and stale together it is asked for, and a failure is a failure."""
    model = scripted("old", default=ProviderUnavailable("503"))
    ask = asking(model, Cache("10s", stale="10s"), Retry.off)
    await ask("x")
    await anyio.sleep(20.1)

    with pytest.raises(ProviderUnavailable):
        await ask("x")


# -- a store that fails ------------------------------------------------------------------------------------------------


class Broken:
    """A store of somebody who has not read that none of its methods raises."""

    async def get(self, key, /):
        raise OSError("gone")

    async def put(self, key, entry, /, *, seconds):
        raise OSError("gone")

    async def aclose(self):
        """Nothing is open."""


class Garbage(Broken):
    """A store in which somebody planted things."""

    def __init__(self, entry):
        self.entry = entry

    async def get(self, key, /):
        from llmflow import Kept

        return Kept(self.entry, 1.0)

    async def put(self, key, entry, /, *, seconds):
        """Keep nothing."""


def with_store(store):
    class Plugin:
        @hookimpl
        def llmflow_store(self, url):
            return store if url == "odd://" else None

    return Runtime(plugins=[Plugin()], cache="odd://")


async def test_a_store_that_raises_fails_no_call(asking, caplog):
    """Fault 47: it is a miss and one warning for each side."""
    model = scripted(default="fine")
    with with_store(Broken()), caplog.at_level(logging.WARNING, "llmflow"):
        ask = asking(model, Cache("1h"))
        values = [await ask("x") for _ in range(3)]

    assert (["fine"] * 3, 3, 2) == (values, len(model.requests), len(caplog.messages))


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"\x80\x04\x95\x1f\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94\x8c\x04exec\x94\x93\x94.",
        b"null",
        b"[]",
        b'{"v":1}',
        b'{"v":1,"text":null,"by":null,"cost_nano":null}',
        b'{"v":1,"text":"evil","by":7,"cost_nano":null}',
        b'{"v":1,"text":"evil","by":null,"cost_nano":-5}',
        b'{"v":1,"text":"evil","by":null,"cost_nano":1e99}',
        b'{"v":99,"text":"evil","by":null,"cost_nano":null}',
        b"[" * 100_000,
    ],
    ids=["empty", "pickle", "null", "list", "no fields", "no text", "by", "refund", "float", "version", "deep"],
)
async def test_a_planted_entry_is_a_miss(asking, caplog, entry):
    """K7: what is not an entry is never loaded, given or raised; one warning says so."""
    model = scripted(default="fine")
    with with_store(Garbage(entry)), caplog.at_level(logging.WARNING, "llmflow"):
        ask = asking(model, Cache("1h"))
        values = [await ask("x") for _ in range(3)]

    assert ["fine"] * 3 == values
    assert len(caplog.messages) <= 1


# -- declaring it ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"ttl": 0}, {"ttl": -1}, {"ttl": "soon"}, {"ttl": float("inf")}, {"stale": -1}])
def test_absurd_options_are_refused(options):
    """Where they are written, naming them."""
    with pytest.raises(DefinitionError, match=f"Cache: {next(iter(options))}"):
        Cache(**options)


def test_a_task_has_no_answers_to_keep():
    """Refused where it is written."""

    def fetch(url: str) -> str:
        return url

    with pytest.raises(DefinitionError, match="task 'fetch' has Cache"):
        task(Cache("1h"))(fetch)


def test_it_stands_between_fallback_and_repair(asking):
    """So a hit needs neither, and each model has its own answers."""
    with Runtime():
        bands = [
            one.band for one in plan(asking(scripted(), Fallback(scripted(name="a/b")), Cache("1h"))).nodes[0].layers
        ]

    assert ["FALLBACK", "CACHE", "REPAIR"] == bands[1:4]


async def test_tenants_do_not_share_answers(asking):
    """K5: what one tenant was told is asked for again by another."""
    model = scripted(default="fine")
    ask = asking(model, Cache("1h"))

    for tenant in ("a", "b", None, "a", "b", None):
        with context(tenant=tenant):
            await ask("x")

    assert 3 == len(model.requests)


def test_virtual_loops_follow_each_other():
    """A new loop on virtual time begins before the old one ended; what was kept on that is not from the future."""
    model = scripted(default="fine")

    @step(model, Cache("10s"))
    def question(word: str) -> str:
        return prompt(word)

    async def first():
        await asyncio.sleep(100)
        await question("x")

    with Runtime():
        for main in (first, lambda: question("x")):
            with asyncio.Runner(loop_factory=VirtualLoop) as runner:
                runner.run(main())

    assert 2 == len(model.requests)


# -- over the wire -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_thousand_calls_over_http_are_one_request(anyio_backend, store, tmp_path):
    """Fault 65: a thousand callers that ask the same of a real server, cold, send one request."""
    url = "memory://" if store == "memory" else f"sqlite:///{tmp_path}/cache.db"
    with LoopbackServer(openai_answer('{"category": "bug"}')) as server:

        @step(Model("openai/gpt-5-mini", api_key="sk-x", base_url=server.base_url), Cache("1h"))
        def classify(word: str) -> Ticket:
            return prompt(f"Classify {word}")

        async with Runtime(cache=url):
            results = await gathered(1000, classify)
            again = await classify.run("x")

        assert [Ticket(category="bug")] * 1000 == [one.value for one in results]
        assert (1, True) == (len(server.requests), again.cached)


def test_a_thousand_sync_calls_from_threads_are_one_request(runtime):
    """Fault 65: threads too, each with an event loop of its own."""
    with LoopbackServer(openai_answer('{"category": "bug"}')) as server:

        @step(Model("openai/gpt-5-mini", api_key="sk-x", base_url=server.base_url), Cache("1h"))
        def classify(word: str) -> Ticket:
            return prompt(f"Classify {word}")

        values = []
        threads = [
            threading.Thread(target=lambda: values.extend(classify.sync("x") for _ in range(125))) for _ in range(8)
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join(60)

        assert ([Ticket(category="bug")] * 1000, 1) == (values, len(server.requests))
