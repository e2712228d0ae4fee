"""Policies of third parties: they do what ours do, and what breaks in them is said to be theirs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest

from llmflow import (
    Answer,
    Ask,
    Band,
    DefinitionError,
    Message,
    PluginCallError,
    PluginDefinitionError,
    ProviderUnavailable,
    Reply,
    Request,
    Runtime,
    hookimpl,
    prompt,
    step,
)
from llmflow.testing._scripted import scripted

pytestmark = pytest.mark.anyio


def policy(band: Band, layer: Any) -> Any:
    """Make a policy from a band and `async (proceed, message) -> outcome`."""

    class Foreign:
        def wrap(self, proceed, site):
            async def foreign(message):
                return await layer(proceed, message)

            return foreign

    Foreign.band = band
    return Foreign()


def plugin(*policies: Any) -> Any:
    """Make a plugin that contributes these policies to every step."""

    class Acme:
        @hookimpl
        def llmflow_policies(self, step: str) -> Any:
            return policies

    return Acme()


async def call(model: Any, *policies: Any, returns: Any = str) -> Any:
    """Call a step under the policies of a plugin."""

    def question(word):
        return prompt(f"About {word}?")

    question.__annotations__ = {"word": str, "return": returns}
    async with Runtime(plugins=[plugin(*policies)]):
        return await step(model)(question)("x")


BANDS = [Band.OBSERVE, Band.before(Band.REPAIR), Band.after(Band.RETRY), Band.after(Band.TIMEOUT)]
every_band = pytest.mark.parametrize("band", BANDS, ids=lambda band: band.name)


@every_band
async def test_d5_a_policy_that_fails_fails_the_call_with_its_plugin_named(band):
    """D5, fault 84: PluginCallError, with the distribution, the step and the cause."""

    async def broken(proceed, message):
        raise KeyError("internal")

    with pytest.raises(PluginCallError, match="Foreign") as caught:
        await call(scripted(default="fine"), policy(band, broken))

    assert ("Acme", "question", KeyError) == (caught.value.plugin, caught.value.step, type(caught.value.__cause__))
    assert caught.value.run_id


@every_band
async def test_d5_a_policy_that_fails_after_the_answer_came(band):
    """The answer was paid for; the attempt is on the error."""

    async def broken(proceed, message):
        await proceed(message)
        raise KeyError("internal")

    with pytest.raises(PluginCallError) as caught:
        await call(scripted(default="fine"), policy(band, broken))

    assert 1 == len(caught.value.attempts)


@every_band
@pytest.mark.parametrize("junk", [None, "text", 7, {}], ids=repr)
async def test_d5_a_policy_that_returns_junk_fails_the_call(band, junk):
    """V5: an AttributeError further out would name nobody."""

    async def forgetful(proceed, message):
        await proceed(message)
        return junk

    with pytest.raises(PluginCallError, match=f"returned {type(junk).__name__}, expected"):
        await call(scripted(default="fine"), policy(band, forgetful))


@every_band
@pytest.mark.parametrize(
    "inner", [KeyError("oops"), ProviderUnavailable("503", retryable=False)], ids=lambda exc: type(exc).__name__
)
async def test_d5_errors_from_further_in_pass_through_unchanged(band, inner):
    """What a policy lets through is not its fault."""

    async def transparent(proceed, message):
        return await proceed(message)

    with pytest.raises(type(inner)) as caught:
        await call(scripted(inner), policy(band, transparent))

    assert caught.value is inner


@every_band
async def test_a_policy_may_raise_an_error_of_llmflow(band):
    """A plugin may refuse a request as llmflow itself does."""
    from llmflow import QueueFull

    async def refuse(proceed, message):
        raise QueueFull("closed on Sundays")

    with pytest.raises(QueueFull, match="closed on Sundays"):
        await call(scripted(), policy(band, refuse))


async def test_a_failing_wrap_is_reported_when_the_step_is_bound():
    """As a definition error with the plugin named, before any request."""

    class Broken:
        band: ClassVar[Band] = Band.OBSERVE

        def wrap(self, proceed, site):
            raise TypeError("no such option")

    model = scripted("fine")
    with pytest.raises(PluginDefinitionError, match="no such option") as caught:
        await call(model, Broken())

    assert ("Acme", []) == (caught.value.plugin, model.requests)


async def test_a_wrap_that_returns_nothing_is_reported_when_the_step_is_bound():
    """Not at the first call as "'NoneType' object is not callable"."""

    class Forgetful:
        band: ClassVar[Band] = Band.OBSERVE

        def wrap(self, proceed, site):
            return None

    with pytest.raises(DefinitionError, match="wrap"):
        await call(scripted("fine"), Forgetful())


async def test_call_policies_see_asks_and_answers():
    """And may change both with `dataclasses.replace`."""
    seen = []

    async def shout(proceed, ask):
        seen.append(type(ask))
        answer = await proceed(replace(ask, messages=(*ask.messages, Message("user", "Loud!"))))
        seen.append(type(answer))
        return replace(answer, value=answer.value.upper())

    model = scripted("fine")

    assert "FINE" == await call(model, policy(Band.before(Band.REPAIR), shout))
    assert ([Ask, Answer], "Loud!") == (seen, model.requests[0].messages[-1].content)


async def test_request_policies_see_requests_and_replies():
    """Once for each physical request when they stand inside of Retry."""
    seen = []

    async def watch(proceed, request):
        seen.append((type(request), request.attempt))
        reply = await proceed(request)
        seen.append(type(reply))
        return replace(reply, text="changed")

    model = scripted(ProviderUnavailable("503"), "fine")

    assert "changed" == await call(model, policy(Band.after(Band.RETRY), watch))
    assert [(Request, 1), (Request, 2), Reply] == seen


async def test_layers_run_in_the_order_of_their_bands():
    """Outermost first, whatever order they were declared in."""
    order = []

    def noting(name):
        async def note(proceed, message):
            order.append(name)
            return await proceed(message)

        return note

    names = {
        "timeout": Band.TIMEOUT,
        "retry": Band.RETRY,
        "observe": Band.OBSERVE,
        "repair": Band.REPAIR,
        "rate": Band.RATE,
    }
    policies = []
    for name, band in names.items():
        one = policy(band, noting(name))
        type(one).__name__ = name
        policies.append(one)

    await call(scripted("fine"), *policies)

    assert ["observe", "repair", "retry", "rate", "timeout"] == order


async def test_an_authors_own_policy_is_not_a_plugin():
    """What the user's own code raises leaves unchanged."""
    mistake = KeyError("mine")

    async def broken(proceed, message):
        raise mistake

    @step(scripted(default="fine"), policy(Band.OBSERVE, broken))
    def question(word: str) -> str:
        return prompt(word)

    async with Runtime():
        with pytest.raises(KeyError) as caught:
            await question("x")

    assert caught.value is mistake


async def test_the_deadline_holds_for_policies_that_wait_for_anything():
    """A plugin that sleeps for a day is ended by the step's deadline."""
    import anyio

    from llmflow import Deadline, DeadlineExceeded

    async def asleep(proceed, message):
        await anyio.sleep(86_400)

    @step(scripted(default="fine"), Deadline(0.05), policy(Band.before(Band.RETRY), asleep))
    def question(word: str) -> str:
        return prompt(word)

    async with Runtime():
        with pytest.raises(DeadlineExceeded):
            await question("x")
