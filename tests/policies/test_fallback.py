"""Fallback: the next model, in order, once, with every cause kept."""

from __future__ import annotations

import pytest

from llmflow import (
    AuthenticationFailed,
    BadRequest,
    DefinitionError,
    Fallback,
    FallbackExhausted,
    ProviderUnavailable,
    QuotaExceeded,
    RateLimited,
    Retry,
)
from llmflow.testing._scripted import scripted

pytestmark = pytest.mark.anyio


def named(number, entry):
    return scripted(default=entry, name=f"scripted/{number}")


@pytest.mark.parametrize(
    "error",
    [QuotaExceeded("quota"), RateLimited("429", retry_after=3600), AuthenticationFailed("401")],
    ids=lambda error: type(error).__name__,
)
async def test_r9_what_waiting_does_not_help_is_left_after_one_request(error, asking, now):
    """R9: primary requests = 1, and the fallback is asked in the same instant."""
    primary, fallback = scripted(error), scripted("fine")
    started = now()

    result = await asking(primary, Fallback(fallback)).run("x")

    assert ("fine", "scripted/model", 1, 1, started) == (
        result.value,
        result.model,
        len(primary.requests),
        len(fallback.requests),
        now(),
    )


async def test_r9_models_are_asked_in_the_order_they_are_named(asking):
    """Each gets its own attempts before the next."""
    asked = []

    def failing(name):
        def fail(request):
            asked.append(name)
            raise ProviderUnavailable("503")

        return fail

    models = [scripted(default=failing(name), name=f"scripted/{name}") for name in "abc"]

    with pytest.raises(FallbackExhausted):
        await asking(models[0], Fallback(*models[1:]), Retry(2, wait_initial=0))("x")

    assert ["a", "a", "b", "b", "c", "c"] == asked


async def test_r9_all_failed_is_one_error_with_every_cause(asking):
    """R9: the causes in order, all attempts, and the last cause as `__cause__`."""
    causes = [
        QuotaExceeded("no credit"),
        AuthenticationFailed("no key"),
        ProviderUnavailable("down", retryable=False, status=503),
    ]
    models = [named(n, cause) for n, cause in enumerate(causes)]

    with pytest.raises(FallbackExhausted) as caught:
        await asking(models[0], Fallback(*models[1:]))("x")

    error = caught.value
    assert tuple(causes) == error.causes
    assert causes[-1] is error.__cause__
    assert (503, 3, False, "question") == (error.status, len(error.attempts), error.retryable, error.step)
    assert all(word in str(error) for word in ("no credit", "no key", "down"))


async def test_an_error_that_is_not_passed_on_ends_the_search(asking):
    """A wrong request fails with every model: it leaves as itself and nobody else is asked."""
    models = [named(0, QuotaExceeded("quota")), named(1, BadRequest("400")), named(2, "not asked")]

    with pytest.raises(BadRequest) as caught:
        await asking(models[0], Fallback(*models[1:]))("x")

    assert [1, 1, 0] == [len(model.requests) for model in models]
    assert 2 == len(caught.value.attempts)


async def test_the_users_own_error_is_not_passed_on(asking):
    """Unless `on=` says so."""
    models = [named(0, KeyError("oops")), named(1, "fine")]

    with pytest.raises(KeyError):
        await asking(models[0], Fallback(models[1]))("x")

    assert "fine" == await asking(models[0], Fallback(models[1], on=KeyError))("x")


async def test_on_adds_an_error_that_is_otherwise_not_passed_on(asking):
    """`on=BadRequest` for providers that disagree about what is wrong."""
    models = [named(0, BadRequest("400")), named(1, "fine")]

    assert "fine" == await asking(models[0], Fallback(models[1], on=BadRequest))("x")


async def test_every_model_gets_the_same_question(asking):
    """The messages and the parameters hold on every route."""
    models = [named(0, QuotaExceeded("quota")), named(1, "fine")]

    await asking(models[0], Fallback(models[1]), params={"temperature": 0.5})("x")

    (one,), (other,) = models[0].requests, models[1].requests
    assert (one.messages, one.params) == (other.messages, other.params)
    assert {"max_tokens": 4096, "temperature": 0.5} == one.params


async def test_turns_of_one_models_reask_do_not_go_to_the_next(asking):
    """A re-ask is in one provider's own form and about one model's answer."""
    models = [named(0, "junk"), named(1, "4")]

    await asking(models[0], Fallback(models[1]), returns=int)("x")

    assert () == models[1].requests[0].turns


async def test_a_model_may_be_its_own_fallback(asking):
    """Naming the same model again is another round of attempts."""
    model = scripted(default=ProviderUnavailable("503"))

    with pytest.raises(FallbackExhausted):
        await asking(model, Fallback(model), Retry(2, wait_initial=0))("x")

    assert 4 == len(model.requests)


async def test_one_step_may_have_a_model_in_two_places(asking):
    """The next call begins with the first model again."""
    primary, fallback = scripted(QuotaExceeded("quota"), "back"), scripted("meanwhile")
    ask = asking(primary, Fallback(fallback))

    assert ["meanwhile", "back"] == [await ask("x"), await ask("x")]


def test_a_fallback_names_at_least_one_model():
    """Fault 87."""
    with pytest.raises(DefinitionError, match="names no model"):
        Fallback()


@pytest.mark.parametrize("wrong", [None, 3, "gpt-5-mini", "openai/", ""], ids=repr)
def test_a_fallback_takes_models(wrong):
    """What is no model is refused where it is written."""
    with pytest.raises(DefinitionError):
        Fallback(wrong)
