"""Single flight by itself: who leads, who waits, and who must not."""

from __future__ import annotations

import asyncio
import threading

import pytest

from llmflow import Cache, Kept, Model, ProviderUnavailable, Runtime, hookimpl, prompt, step
from llmflow.context import blocked_loop
from llmflow.policies._flights import Flights, Landed, copied
from llmflow.testing import scripted

pytestmark = pytest.mark.anyio


async def test_one_leads_and_the_others_wait():
    """The second who comes gets a seat; after the landing the next leads again."""
    flights = Flights()
    flight, seat = flights.board("k")
    same, waiting = flights.board("k")
    refused = flights.lead("k")
    flights.land(flight, Landed("x", None, None))
    await waiting.wait()

    assert (None, flight, None, "x") == (seat, same, refused, waiting.landed.text)
    assert flights.lead("k") is not flight


async def test_who_blocks_a_loop_goes_alone_when_another_loop_takes_over():
    """A `.sync()` call that waited on its own loop must not wait for the heir's."""
    flights = Flights()
    flight, _ = flights.board("k")
    heirs = []
    thread = threading.Thread(target=lambda: asyncio.run(board_elsewhere()))

    async def board_elsewhere():
        heirs.append(flights.board("k")[1])

    thread.start()
    thread.join()
    token = blocked_loop.set(object())
    _, blocked = flights.board("k")
    blocked_loop.reset(token)
    _, free = flights.board("k")
    flights.crash(flight, ProviderUnavailable("503"), 1)
    await blocked.wait()

    assert (True, False, None) == (heirs[0].leads, blocked.leads, blocked.landed)
    assert [free] == list(flight.waiting)


async def test_a_seat_whose_loop_is_gone_is_passed_over():
    """Nobody would ever lead; the next in line does."""
    flights = Flights()
    flight, _ = flights.board("k")

    async def wait_and_stop():
        seat = flights.board("k")[1]
        waiting = asyncio.ensure_future(seat.wait())
        await asyncio.sleep(0)
        waiting.cancel()  # without leaving the seat, as a task does that is thrown away with its loop

    thread = threading.Thread(target=lambda: asyncio.run(wait_and_stop()))
    thread.start()
    thread.join()
    _, seat = flights.board("k")
    flights.crash(flight, ProviderUnavailable("503"), 1)

    assert (True, 0) == (seat.leads, len(flight.waiting))


async def test_an_heir_that_leaves_hands_on():
    """It was chosen and cancelled in the same moment; one who left already does not hand on twice."""
    flights = Flights()
    flight, _ = flights.board("k")
    first, second = flights.board("k")[1], flights.board("k")[1]
    flights.crash(flight, ProviderUnavailable("503"), 1)
    flights.leave(flight, first)
    flights.leave(flight, first)

    assert (False, True) == (first.leads, second.leads)
    flights.leave(flight, second)
    assert flights.lead("k") is not None


def test_a_copy_has_notes_of_its_own():
    """What one call adds to its failure is not in another's."""
    error = ProviderUnavailable("503", status=503)
    error.add_note("common")
    copy = copied(error)
    copy.add_note("mine")

    assert (["common"], ["common", "mine"]) == (error.__notes__, copy.__notes__)
    assert ("503", 503, ProviderUnavailable) == (copy.message, copy.status, type(copy))


class LateStore:
    """A store in which the answer appears between two looks, as when another thread has just kept it."""

    def __init__(self, entry):
        self.looks = 0
        self.entry = entry

    async def get(self, key, /):
        self.looks += 1
        return Kept(self.entry, 1.0) if self.looks > 1 else None

    async def put(self, key, entry, /, *, seconds):
        """Keep nothing."""

    async def aclose(self):
        """Nothing is open."""


def runtime_with(store):
    class Plugin:
        @hookimpl
        def llmflow_store(self, url):
            return store if url == "late://" else None

    return Runtime(plugins=[Plugin()], cache="late://")


ENTRY = b'{"v":1,"text":"kept","by":"m","cost_nano":1000000000}'


async def test_an_answer_that_was_kept_in_between_is_found(asking):
    """K1: between the look and the lead another thread's flight may have landed; nobody asks again."""
    model = scripted()
    with runtime_with(LateStore(ENTRY)):
        result = await asking(model, Cache("1h")).run("x")

    assert ("kept", True, 1, 0) == (result.value, result.cached, result.saved_usd, len(model.requests))


async def test_a_check_that_breaks_ends_only_its_own_call(asking):
    """What the author's code raises while an entry is validated is the call's failure, and no flight is left over."""

    def broken(value, inputs):
        raise KeyError("oops")

    with runtime_with(LateStore(ENTRY)) as runtime:
        with pytest.raises(KeyError):
            await asking(scripted(), Cache("1h"), checks=[broken])("x")
        (state,) = [one for one in runtime.stats().states if one.name == "single flight"]

    assert {"in_flight": 0, "waiting": 0} == dict(state.values)


# -- connections of providers that say nothing about them --------------------------------------------------------------


def test_a_provider_without_an_identity_is_known_by_address_and_key():
    """A plugin's provider need not say more; its models are told apart by what they were given."""

    class Provider:
        def connect(self, model, output, /):
            raise AssertionError("nothing is sent")

        async def aclose(self):
            """Nothing is open."""

    class Plugin:
        @hookimpl
        def llmflow_provider(self, name):
            return Provider() if name == "acme" else None

    models = [
        Model("acme/m"),
        Model("acme/m", api_key="sk-1"),
        Model("acme/m", api_key="sk-2"),
        Model("acme/m", account="a"),
    ]
    with Runtime(plugins=[Plugin()]) as runtime:
        said = [runtime.identity(one) for one in models]

    assert 4 == len(set(said))
    assert "sk-" not in "".join(said)


def test_a_store_that_nobody_supplies_is_refused():
    """The message names the argument."""
    from llmflow import DefinitionError

    with pytest.raises(DefinitionError, match=r"Runtime\(journal='odd://x'\)"):
        Runtime(journal="odd://x")
    with pytest.raises(DefinitionError, match=r"Runtime\(shared='sqlite:///x.db'\)"):
        Runtime(shared="sqlite:///x.db")
    with pytest.raises(DefinitionError, match=r"Runtime\(store='odd://x'\)"):
        Runtime(store="odd://x", cache="memory://", journal="memory://")


def test_a_store_that_only_closes_in_a_loop_is_left_to_it():
    """`close()` of a runtime does what it can without a loop."""

    @step(scripted("fine"), Cache("1h"))
    def question(word: str) -> str:
        return prompt(word)

    runtime = runtime_with(LateStore(ENTRY)).install()
    try:
        assert "kept" == question.sync("x")
    finally:
        runtime.close()
