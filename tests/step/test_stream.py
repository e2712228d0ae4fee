"""`.stream()`: snapshots while an answer is written, restarts that are said, a final value that is validated."""

from __future__ import annotations

import asyncio
import gc
from decimal import Decimal
from typing import Any, Literal

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, RootModel, model_serializer, model_validator

from llmflow import (
    Bulkhead,
    Cache,
    Chunk,
    Deadline,
    DeadlineExceeded,
    Fallback,
    Final,
    InvalidOutput,
    Model,
    Partial,
    Price,
    ProviderTimeout,
    ProviderUnavailable,
    Repair,
    Restarted,
    Retry,
    Runtime,
    Snapshot,
    Timeout,
    Usage,
    context,
    flow,
    prompt,
    step,
    task,
)
from llmflow.backend import monotonic
from llmflow.context import caller
from llmflow.errors import DefinitionError
from llmflow.testing import after, hang, pieces, scripted, virtual_backend
from llmflow.testing._time import VirtualLoop

pytestmark = pytest.mark.anyio

TICKET = '{"category": "bug", "urgent": true}'


class Ticket(BaseModel):
    category: Literal["billing", "bug"]
    urgent: bool


class Rows(BaseModel):
    rows: list[str]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Both backends, on virtual time."""
    return virtual_backend(request.param)


def asking(model: Any, *policies: Any, returns: Any = str, **options: Any) -> Any:
    def question(word):
        return prompt(f"About {word}?")

    question.__annotations__ = {"word": str, "return": returns}
    return step(model, *policies, **options)(question)


def cut(text: str, size: int = 7) -> object:
    return pieces(*(text[at : at + size] for at in range(0, len(text), size)))


def dumps(snapshots: list[Any]) -> list[Any]:
    return [one.model_dump() if isinstance(one, Partial) else one for one in snapshots]


# -- what is seen ------------------------------------------------------------------------------------------------------


async def test_snapshots_of_text_grow():
    """Each snapshot of a `str` is the whole text so far, one for every piece."""
    async with asking(scripted(pieces("Hel", "lo ", "you"))).stream("x") as stream:
        seen = [snapshot async for snapshot in stream]

    assert ["Hel", "Hello ", "Hello you"] == seen
    assert "Hello you" == await stream.final()


async def test_snapshots_of_a_model_have_the_fields_that_came():
    """A model is shown as a `Partial`: unset fields are absent, a field that is no text comes when it is complete."""
    text = '{"category": "bug", "urgent": true}'
    slow = pieces(*(after(0.1, one) for one in (text[:15], text[15:20], text[20:32], text[32:])))

    async with asking(scripted(slow), returns=Ticket).stream("x") as stream:
        seen = [snapshot async for snapshot in stream]

    assert [{}, {"category": "bug"}, {"category": "bug", "urgent": True}] == dumps(seen)
    assert not hasattr(seen[1], "urgent")
    assert Ticket(category="bug", urgent=True) == await stream.final()


async def test_a_scalar_has_only_its_value():
    """There is nothing to show of half a number."""
    async with asking(scripted(cut("12345", 2)), returns=int).stream("x") as stream:
        events = [event async for event in stream.events()]

    assert [Snapshot(12345), Final(12345)] == events


async def test_deltas_are_the_pieces_of_the_text():
    """`deltas()` gives what came, as it came."""
    async with asking(scripted(pieces("Hel", "lo"))).stream("x") as stream:
        seen = [delta async for delta in stream.deltas()]

    assert ["Hel", "lo"] == seen


async def test_events_end_with_the_final_value():
    """`events()` has the snapshots, and the validated value last."""
    async with asking(scripted(pieces("a", "b"))).stream("x") as stream:
        events = [event async for event in stream.events()]

    assert [Snapshot("a"), Snapshot("ab"), Final("ab")] == events


async def test_final_alone_reads_the_stream():
    """Whoever wants no snapshots asks for the value at once."""
    async with asking(scripted(cut(TICKET)), returns=Ticket).stream("x") as stream:
        value = await stream.final()

    assert Ticket(category="bug", urgent=True) == value


async def test_a_result_is_there_at_the_end():
    """`result` is what `run()` would have returned, with the seconds to the first piece."""
    model = scripted(
        pieces(after(0.5, "Hel"), after(0.5, "lo")),
        usage=Usage(input_tokens=10, output_tokens=5),
        price=Price(input=1, output=2),
    )

    async with asking(model).stream("x") as stream:
        with pytest.raises(RuntimeError, match="not complete"):
            _ = stream.result
        await stream.final()

    (attempt,) = stream.result.attempts
    assert ("Hello", Decimal("0.00002")) == (stream.result.value, stream.result.cost_usd)
    assert pytest.approx(0.5) == attempt.first_token_s
    assert pytest.approx(1.0) == attempt.latency_s


async def test_an_answer_that_is_not_streamed_comes_in_one_piece():
    """A model that ignores the sink gives one snapshot, and has no first token."""
    async with asking(scripted("Hello")).stream("x") as stream:
        events = [event async for event in stream.events()]

    assert [Snapshot("Hello"), Final("Hello")] == events
    assert stream.result.attempts[0].first_token_s is None


async def test_a_cached_answer_comes_in_one_snapshot():
    """A hit asks nobody: one snapshot, and the value."""
    question = asking(scripted(cut(TICKET)), Cache("1h"), returns=Ticket)
    await question("x")

    async with question.stream("x") as stream:
        events = [event async for event in stream.events()]

    value = Ticket(category="bug", urgent=True)
    assert [{"category": "bug", "urgent": True}, value] == dumps([one.value for one in events])
    assert stream.result.cached


async def test_deltas_of_a_cached_answer_are_its_text():
    """A hit is one delta."""
    question = asking(scripted(pieces("Hel", "lo")), Cache("1h"))
    await question("x")

    async with question.stream("x") as stream:
        assert ["Hello"] == [delta async for delta in stream.deltas()]


async def test_a_body_that_asks_nobody_streams_its_value():
    """A body may return a value itself; it is the only snapshot."""

    @step(scripted())
    def known(word: str) -> str:
        return word.upper()

    async with known.stream("x") as stream:
        assert [Snapshot("X"), Final("X")] == [event async for event in stream.events()]


class Tags(RootModel[list[str]]):
    """A model that is written as a list."""


class Tree(RootModel[list["Tree"]]):
    """A model that is written as a list of itself."""


class Tagged(BaseModel):
    tags: Tags
    tree: Tree


class Point(BaseModel):
    x: int

    @model_validator(mode="wrap")
    @classmethod
    def _from_number(cls, value: Any, handler: Any) -> Any:
        return handler({"x": value} if isinstance(value, int) else value)

    @model_serializer
    def _to_number(self) -> int:
        return self.x


async def test_a_root_model_is_shown_as_it_grows():
    """It is written without its field, and is shown with it, as the value has it."""
    written = pieces(*(after(0.01, one) for one in ('{"tags": ["a', 'b"], "tr', 'ee": [[], [[', "]]]}")))

    async with asking(scripted(written), returns=Tagged).stream("x") as stream:
        seen = [snapshot async for snapshot in stream]

        assert ["a"] == seen[0].tags.root
        assert ["ab"] == seen[-1].tags.root == stream.result.value.tags.root
        assert [0, 1] == [len(one.root) for one in seen[-1].tree.root]

    async with asking(scripted(pieces(after(0.01, '["a'), after(0.01, '"]'))), returns=Tags).stream("x") as stream:
        assert [["a"]] == [snapshot.root async for snapshot in stream]


async def test_what_does_not_look_like_its_model_is_shown_at_the_end():
    """A validator may take a number for an object: then the value is the only snapshot, and not none."""
    async with asking(scripted(pieces("4", "2")), returns=Point).stream("x") as stream:
        assert [Point(x=42)] == [snapshot async for snapshot in stream]


async def test_a_slow_reader_sees_the_newest_snapshot_of_a_model():
    """A structure is read from its start for each snapshot, so only when it is asked for: 400 pieces, few snapshots."""
    text = '{"category": "bug", "urgent": true' + " " * 400 + "}"

    async with asking(scripted(cut(text, 1)), returns=Ticket).stream("x") as stream:
        seen = []
        async for snapshot in stream:
            seen.append(snapshot)
            await anyio.sleep(0.01)

    assert {"category": "bug", "urgent": True} == seen[-1].model_dump()
    assert len(seen) <= 4


async def test_a_long_answer_is_not_read_anew_for_each_piece():
    """What is read for all snapshots together grows with the answer, not with its square; the last one is complete."""
    text = '{"rows": [' + ", ".join(f'"row {n}"' for n in range(3000)) + "]}"
    model = scripted(pieces(*(after(0.001, text[at : at + 4]) for at in range(0, len(text), 4))))

    async with asking(model, Deadline(10_000), Timeout(10_000), returns=Rows).stream("x") as stream:
        seen = [len(snapshot.model_dump_json()) async for snapshot in stream]

    assert sum(seen) < 2200 * len(text) / 4
    assert len(seen) > len(text) / 4 / 24
    assert len(stream.result.value.model_dump_json()) == seen[-1]


async def test_iteration_may_stop_and_go_on():
    """The rest of a stream can be read by another loop, or by `final()`."""
    async with asking(scripted(pieces("a", "b", "c", "d"))).stream("x") as stream:
        async for _ in stream:
            break
        async for snapshot in stream:
            assert "ab" == snapshot
            break

        assert "abcd" == await stream.final()


async def test_without_the_block_the_loop_is_the_stream():
    """A bare loop begins the call and ends it."""
    seen = [snapshot async for snapshot in asking(scripted(pieces("a", "b"))).stream("x")]

    assert ["a", "ab"] == seen


async def test_what_surrounds_the_call_surrounds_the_stream():
    """The tenant of the block's beginning is the call's."""
    tenants = []

    async def handler(request):
        tenants.append(caller.get().tenant)
        return "ok"

    with context(tenant="acme"):
        async with asking(Model("h/m", handler=handler)).stream("x") as stream:
            await stream.final()

    assert ["acme"] == tenants


async def test_a_stream_inside_an_eager_flow_belongs_to_its_run():
    """The step's call is one of the flow's."""
    question = asking(
        scripted(pieces("a", "b"), price=Price(input=1, output=1), usage=Usage(input_tokens=10**6, output_tokens=0))
    )

    @flow(eager=True)
    async def outer(word: str) -> str:
        async with question.stream(word) as stream:
            return await stream.final()

    result = await outer.run("x")

    assert ["ab"] == [call.value for call in result.calls]
    assert Decimal(1) == result.cost_usd


async def test_a_traced_flow_cannot_stream():
    """Nothing runs while a flow is built, so a stream is refused with the line."""
    question = asking(scripted("a"))

    @flow
    async def outer(word: str) -> str:
        return await question.stream(word).final()

    with pytest.raises(DefinitionError, match="stream"):
        outer.graph()


async def test_a_flow_and_a_task_give_their_value():
    """They have no text of their own: the value is the only snapshot."""
    question = asking(scripted(default="a"))

    @task
    async def double(word: str) -> str:
        return word * 2

    @flow
    async def outer(word: str) -> str:
        return await double(await question(word))

    for unit, expected in ((double, "xx"), (outer, "aa")):
        async with unit.stream("x") as stream:
            assert [Snapshot(expected), Final(expected)] == [event async for event in stream.events()]


# -- what goes wrong ---------------------------------------------------------------------------------------------------


async def test_43_a_failure_in_the_middle_restarts_and_says_so():
    """Fault 43: what was shown is void, and the next request's answer begins from nothing."""
    model = scripted(pieces("Hel", ProviderUnavailable("reset")), pieces("Good ", "day"))

    async with asking(model, Retry(2)).stream("x") as stream:
        events = [event async for event in stream.events()]

    shown = [Snapshot("Hel"), Restarted(2, "ProviderUnavailable: reset"), Snapshot("Good "), Snapshot("Good day")]
    assert [*shown, Final("Good day")] == events
    assert ["ProviderUnavailable", "ok"] == [one.outcome for one in stream.result.attempts]


async def test_43_deltas_never_go_on_in_silence():
    """Text that was handed out cannot be taken back: the restart is raised, and the value can still be had."""
    model = scripted(pieces("Hel", ProviderUnavailable("reset")), pieces("Good ", "day"))
    seen = []

    async with asking(model, Retry(2)).stream("x") as stream:
        with pytest.raises(ProviderUnavailable, match="reset") as caught:
            async for delta in stream.deltas():
                seen.append(delta)

        assert "Good day" == await stream.final()

    assert ["Hel"] == seen
    assert any("events()" in note for note in caught.value.__notes__)


async def test_deltas_of_a_repeated_ask_say_that_it_did_not_fit():
    """There is no error of a request then; the message says what happened."""
    model = scripted(pieces("ni", "ne"), pieces("9"))

    async with asking(model, returns=int).stream("x") as stream:
        with pytest.raises(InvalidOutput, match="did not fit"):
            async for _ in stream.deltas():
                pass


async def test_a_failure_before_the_first_piece_is_no_restart():
    """Nothing was shown, so nothing is void."""
    model = scripted(ProviderUnavailable("503"), pieces("a", "b"))

    async with asking(model, Retry(2)).stream("x") as stream:
        events = [event async for event in stream.events()]

    assert [Snapshot("a"), Snapshot("ab"), Final("ab")] == events


async def test_a_fallback_in_the_middle_restarts():
    """The other model's answer is another answer."""
    model = scripted(default=pieces("Hel", ProviderUnavailable("reset")), name="a/first")
    other = scripted(pieces("Good ", "day"), name="b/second")

    async with asking(model, Retry.off, Fallback(other)).stream("x") as stream:
        events = [event async for event in stream.events()]

    assert Restarted(2, "ProviderUnavailable: reset") == events[1]
    assert Final("Good day") == events[-1]
    assert "b/second" == stream.result.model


async def test_a_repeated_ask_restarts():
    """An answer that did not fit was shown; the next one begins from nothing."""
    model = scripted(cut('{"category": "spam", "urgent": true}'), cut(TICKET))

    async with asking(model, returns=Ticket).stream("x") as stream:
        events = [event async for event in stream.events()]

    assert [Restarted(2, "the answer did not fit")] == [one for one in events if isinstance(one, Restarted)]
    assert Final(Ticket(category="bug", urgent=True)) == events[-1]


async def test_43_half_an_answer_is_never_final():
    """Fault 43: when nothing more helps, the error leaves the loop, and there is no value."""
    model = scripted(default=pieces('{"category": "bug", ', ProviderUnavailable("the stream ended early")))
    seen = []

    async with asking(model, Retry(2), returns=Ticket).stream("x") as stream:
        with pytest.raises(ProviderUnavailable, match="ended early") as caught:
            async for snapshot in stream:
                seen.append(snapshot)
        with pytest.raises(ProviderUnavailable):
            await stream.final()

    assert {"category": "bug"} == seen[-1].model_dump()
    assert 2 == len(caught.value.attempts)


async def test_an_answer_that_never_fits_is_not_final():
    """A stream's last snapshot may look complete; only what is validated is a value."""
    async with asking(scripted(cut('{"category": "bug"}')), Repair.off, returns=Ticket).stream("x") as stream:
        with pytest.raises(InvalidOutput):
            await stream.final()


async def test_what_the_block_raises_leaves_as_itself():
    """No group around it, on either backend, and the call is over."""
    model = scripted(pieces("a", hang()))

    with pytest.raises(ZeroDivisionError):
        async with asking(model).stream("x") as stream:
            async for _ in stream:
                _ = 1 / 0

    assert 0 == model.in_flight


async def test_pieces_of_an_older_request_are_not_mixed_in():
    """Two requests at once: the pieces of the newer one count, the older one's are dropped; should that answer, it says so."""

    async def handler(request):
        await request.sink(Chunk("a", 0))
        return "ab"

    async with asking(Model("h/m", handler=handler)).stream("x") as stream:
        feed = stream._feed
        assert "a" == await anext(stream.deltas())
        await feed.put(Chunk("new", 5))
        await feed.put(Chunk("old", 1))
        events = [event async for event in stream.events()]

    assert Restarted(5, "the answer did not fit") == events[0]
    assert [Snapshot("new"), Restarted(1, "another answer was taken"), Snapshot("ab"), Final("ab")] == events[1:]


async def test_a_faster_request_is_a_restart():
    """A newer request's piece that comes while the older one still runs has no failure to name."""

    async def handler(request):
        await request.sink(Chunk("a", 0))
        await stream._feed.put(Chunk("b", 7))
        return "b"

    async with asking(Model("h/m", handler=handler)).stream("x") as stream:
        events = [event async for event in stream.events()]

    assert Restarted(7, "another request was faster") == events[1]
    assert "<Stream of step 'question'>" == repr(stream)


async def test_an_old_answer_after_half_a_new_one_is_a_restart():
    """A cache that gives its old answer, because the new one broke off, says that what was shown is void."""
    model = scripted("old", default=pieces("ne", ProviderUnavailable("reset")))
    question = asking(model, Cache(1, stale=1000), Retry.off)
    await question("x")
    await anyio.sleep(2)

    async with question.stream("x") as stream:
        events = [event async for event in stream.events()]
    async with question.stream("x") as stream:
        with pytest.raises(ProviderUnavailable):
            async for _ in stream.deltas():
                pass

    restarted = Restarted(0, "another answer was taken")
    assert [Snapshot("ne"), restarted, Snapshot("old"), Final("old")] == events


async def test_k1_streams_of_the_same_question_share_a_request():
    """K1: the one that asks is streamed, the others have the whole answer at once, one snapshot each."""
    model = scripted(pieces(after(1, "Hel"), after(1, "lo")))
    question = asking(model, Cache("1h"))
    told = []

    async def read():
        async with question.stream("x") as stream:
            told.append([event async for event in stream.events()])

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(read)

    assert 1 == len(model.requests)
    streamed, *others = sorted(told, key=len, reverse=True)
    assert [Snapshot("Hel"), Snapshot("Hello"), Final("Hello")] == streamed
    assert [[Snapshot("Hello"), Final("Hello")]] * 4 == others


async def test_the_end_of_a_program_is_not_swallowed():
    """A model that says SystemExit ends the program, read or not."""

    async def handler(_):
        raise SystemExit(3)

    question = asking(Model("h/m", handler=handler))
    with pytest.raises(SystemExit):
        async with question.stream("x") as stream:
            await stream.final()
    with pytest.raises(SystemExit):
        async with question.stream("x"):
            await anyio.wait_all_tasks_blocked()


# -- leaving -----------------------------------------------------------------------------------------------------------


async def test_r8_leaving_the_block_ends_the_call(runtime: Runtime):
    """R8: at the next line nothing runs any more: cancelled, recorded, and its place given back."""
    model = scripted(pieces("a", hang()), "next")
    ended = []
    question = asking(model, Bulkhead(1))

    async with question.stream("x") as stream:
        async for _ in stream:
            break
        ended.append(stream._feed.call)

    (call,) = ended
    assert ["cancelled"] == [one.outcome for one in call.attempts]
    assert 0 == model.in_flight
    assert "next" == await question("x")  # the one place is free


async def test_leaving_at_once_is_fine():
    """A block that reads nothing ends its call too, whether it has begun or not."""
    model = scripted(default=hang())

    async with asking(model).stream("x"):
        pass
    async with asking(model).stream("x"):
        await checkpoint()
        await checkpoint()

    assert 0 == model.in_flight


async def test_a_left_stream_has_no_value():
    """After the block there is the value if the answer was complete, else an error that says so."""
    async with asking(scripted(pieces("a", hang()))).stream("x") as stream:
        pass

    with pytest.raises(RuntimeError, match="left before"):
        await stream.final()
    with pytest.raises(RuntimeError, match="left before"):
        async for _ in stream:
            pass


async def test_a_stream_is_used_once():
    """It is one call, like `step(...)`."""
    stream = asking(scripted(default="a")).stream("x")
    async with stream:
        await stream.final()

    with pytest.raises(RuntimeError, match="used before"):
        async with stream:
            pass


async def test_a_stream_that_has_not_begun_says_how():
    """Without the block nothing would ever end the call."""
    stream = asking(scripted("a")).stream("x")

    with pytest.raises(RuntimeError, match="async with"):
        await stream.final()
    with pytest.raises(RuntimeError, match="async with"):
        await anext(stream.events())


async def test_one_task_reads_a_stream():
    """Two readers would each get half of it."""
    async with asking(scripted(hang())).stream("x") as stream, anyio.create_task_group() as group:
        group.start_soon(stream.final)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="another task"):
            await stream.final()
        group.cancel_scope.cancel()


async def test_r8_a_cancelled_reader_ends_the_call():
    """R8: cancellation while reading leaves as itself, and the request is over when it does."""
    model = scripted(pieces("a", hang()))

    with anyio.move_on_after(1) as scope:
        async with asking(model).stream("x") as stream:
            async for _ in stream:
                pass

    assert scope.cancelled_caught
    assert 0 == model.in_flight


async def test_a_bare_loop_that_is_left_is_ended_by_its_iterator():
    """Without the block the call ends when the iterator is closed."""
    model = scripted(pieces("a", hang()))
    iterator: Any = aiter(asking(model).stream("x"))

    assert "a" == await anext(iterator)
    await iterator.aclose()

    assert 0 == model.in_flight


def test_a_bare_loop_that_is_abandoned_is_ended_with_its_loop():
    """asyncio closes what nobody holds any more; no task is left behind."""
    model = scripted(pieces("a", hang()))

    async def main():
        async for _ in asking(model).stream("x"):
            break
        gc.collect()
        for _ in range(20):
            await asyncio.sleep(0)
        return len(asyncio.all_tasks())

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        left = runner.run(main())

    assert 1 == left
    assert 0 == model.in_flight


async def test_backpressure_holds_the_provider():
    """A provider is read as fast as the answer is: not more than a handful of pieces ahead."""
    told = 0

    async def handler(request):
        nonlocal told
        for _ in range(1000):
            await request.sink(Chunk("x", 0))
            told += 1
        return "x" * 1000

    async with asking(Model("h/m", handler=handler)).stream("x") as stream:
        async for _ in stream:
            break
        await anyio.sleep(1)

        assert told < 25
        assert 1000 == len(await stream.final())


# -- time --------------------------------------------------------------------------------------------------------------


async def test_r3_the_timeout_does_not_run_while_the_reader_is_slow():
    """A reader that takes ten times the timeout has its answer."""
    model = scripted(pieces(*(after(0.1, "x") for _ in range(20))))

    async with asking(model, Timeout(2.5), Retry.off, Deadline(1000)).stream("x") as stream:
        async for _ in stream:
            await anyio.sleep(5)

    assert "x" * 20 == await stream.final()
    assert pytest.approx(2.0) == stream.result.attempts[0].latency_s


async def test_r3_a_drip_is_ended_by_the_timeout():
    """R3: pieces that come for ever do not hold the clock."""
    model = scripted(pieces(*(after(0.2, "x") for _ in range(1000))))
    started = monotonic()

    async with asking(model, Timeout(1), Retry.off).stream("x") as stream:
        with pytest.raises(ProviderTimeout, match="within 1 s"):
            await stream.final()

    assert pytest.approx(1.0) == monotonic() - started


async def test_the_first_token_has_a_limit_of_its_own():
    """A provider that does not begin is left sooner than one that is in the middle."""
    model = scripted(pieces(after(3, "x")), pieces(after(1, "a"), after(8, "b")))
    started = monotonic()

    async with asking(model, Timeout(30, first_token=2), Retry(2, wait_initial=0.001)).stream("x") as stream:
        assert "ab" == await stream.final()

    first = stream.result.attempts[0]
    assert "no first token from scripted/model within 2 s" in first.error.message
    assert pytest.approx(11, abs=0.01) == monotonic() - started


async def test_the_first_token_is_limited_for_who_does_not_stream():
    """An answer in one piece at the end comes too late as well: its first piece is its last."""
    async with asking(scripted(after(3, "x")), Timeout(30, first_token=2), Retry.off).stream("x") as stream:
        with pytest.raises(ProviderTimeout, match="no first token"):
            await stream.final()


async def test_without_a_stream_the_first_token_has_no_limit():
    """Nobody can tell when it came."""
    assert "x" == await asking(scripted(after(3, "x")), Timeout(30, first_token=2), Retry.off)("q")


@pytest.mark.parametrize("first_token", [0, -1, 61, "2m", float("nan"), True, "soon"])
def test_a_first_token_that_makes_no_sense_is_refused(first_token):
    """It is a duration, and not longer than the whole attempt."""
    with pytest.raises(DefinitionError, match="first_token"):
        Timeout(60, first_token=first_token)


async def test_the_deadline_goes_on_while_the_reader_is_slow():
    """It is one point in time for the call: a reader that sleeps past it has no answer."""
    model = scripted(pieces(*(after(0.1, "x") for _ in range(100))))

    async with asking(model, Deadline(3), Retry.off).stream("x") as stream:
        with pytest.raises(DeadlineExceeded):
            async for _ in stream:
                await anyio.sleep(2)

    assert 0 == model.in_flight


# -- laws --------------------------------------------------------------------------------------------------------------


DELAYS = st.sampled_from([0, 0, 0.1, 1.0])
TRY = st.tuples(st.lists(st.tuples(st.text("ab", min_size=1, max_size=3), DELAYS), max_size=4), st.booleans())


def told(tries: list[tuple[list[tuple[str, float]], bool]]) -> list[Any]:
    """The exact events of a script: each try is the pieces it sends, and whether it then fails."""
    events: list[Any] = []
    shown = False
    for number, (sent, fails) in enumerate(tries, 1):
        if sent and shown:
            events.append(Restarted(number, "ProviderUnavailable: cut"))
        texts = [one for one, _ in sent]
        events += [Snapshot("".join(texts[: end + 1])) for end in range(len(texts))]
        shown = shown or bool(sent)
        if not fails:
            if not sent:
                events += [Restarted(number, "another answer was taken")] if shown else []
                events += [Snapshot("")]
            return [*events, Final("".join(texts))]
    raise AssertionError(tries)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=500, deadline=None)
@given(
    tries=st.lists(TRY.filter(lambda one: one[1]), max_size=3),
    last=TRY.filter(lambda one: bool(one[0])),
    pauses=st.lists(DELAYS, min_size=1, max_size=5),
    leave_after=st.integers(1, 30),
)
def test_a_stream_tells_exactly_what_its_requests_sent(backend, tries, last, pauses, leave_after):
    """Whoever is slow, the provider or the reader: each piece once, in order, restarts said; left anywhere, nothing runs."""
    script = [*tries, (last[0], False)]
    model = scripted(
        *(
            pieces(*(after(delay, text) if delay else text for text, delay in sent), *([_cut()] if fails else []))
            for sent, fails in script
        )
    )
    question = asking(model, Retry(4, wait_initial=0.01), Bulkhead(1))

    async def main():
        seen = []
        async with question.stream("x") as stream:
            async for event in stream.events():
                seen.append(event)
                if len(seen) == leave_after:
                    break
                await anyio.sleep(pauses[len(seen) % len(pauses)])
        call = stream._feed.call
        assert 0 == model.in_flight
        assert len(model.requests) == len(call.attempts) == call.started
        return seen

    name, options = virtual_backend(backend)
    with Runtime(seed=1):
        seen = anyio.run(main, backend=name, backend_options=options)

    assert told(script)[:leave_after] == seen


def _cut() -> ProviderUnavailable:
    return ProviderUnavailable("cut")


@pytest.mark.parametrize("reads", ["snapshots", "final"])
async def test_r8_cancelled_at_every_checkpoint_nothing_is_left(reads, anyio_backend):
    """R8: for n = 1, 2, ...: cancelled at the n-th step of the stream, no request is in flight and no place is taken."""
    for steps in range(1, 60):
        model = scripted(pieces("a", after(0.1, "b"), ProviderUnavailable("x")), pieces("c", "d"))
        question = asking(model, Bulkhead(1), Retry(2, wait_initial=0.01))
        finished = await _cancelled_after(steps, question, reads)

        assert 0 == model.in_flight
        assert "ok" == await question.with_(model=scripted(default="ok"))("x")
        if finished:
            break
    else:
        pytest.fail("never came to its end")


async def _cancelled_after(steps: int, question: Any, reads: str) -> bool:
    finished = []

    async def run():
        async with question.stream("x") as stream:
            if reads == "final":
                await stream.final()
            else:
                async for _ in stream:
                    await checkpoint()
        finished.append(True)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        for _ in range(steps):
            await (anyio.sleep(0.1) if steps % 3 == 0 else checkpoint())
        group.cancel_scope.cancel()
    return bool(finished)
