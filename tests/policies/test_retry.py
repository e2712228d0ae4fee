"""Retry: which failures are tried again, how long it waits, and what it never does."""

from __future__ import annotations

import anyio
import pytest

from llmflow import (
    Deadline,
    DeadlineExceeded,
    DefinitionError,
    ProviderUnavailable,
    RateLimited,
    Repair,
    Retry,
    Runtime,
    errors,
    task,
)
from llmflow.policies._retry_bucket import RetryBucket
from llmflow.testing._scripted import after, scripted

pytestmark = pytest.mark.anyio


def gaps(model):
    """Seconds between one request and the next."""
    return [later - earlier for earlier, later in zip(model.asked_at, model.asked_at[1:], strict=False)]


def unavailable(_):
    raise ProviderUnavailable("503", status=503)


async def test_r4_requests_of_one_ask_are_at_most_the_attempts(asking):
    """R4: `Retry(attempts=3)` against a dead provider is exactly three requests."""
    model = scripted(default=unavailable)

    with pytest.raises(ProviderUnavailable) as caught:
        await asking(model, Retry(attempts=3))("x")

    assert 3 == len(model.requests)
    assert [1, 2, 3] == [one.attempt for one in model.requests]
    assert ["ProviderUnavailable"] * 3 == [one.outcome for one in caught.value.attempts]


async def test_a_failure_that_passes_is_not_seen_by_the_caller(asking):
    """Two failures and an answer are an answer."""
    model = scripted(unavailable, unavailable, "fine")

    result = await asking(model).run("x")

    assert "fine" == result.value
    assert ["ProviderUnavailable", "ProviderUnavailable", "ok"] == [one.outcome for one in result.attempts]
    assert [1, 2, 3] == [one.number for one in result.attempts]


async def test_retry_off_is_one_request(asking):
    """`Retry.off` takes retries out altogether."""
    model = scripted(unavailable)

    with pytest.raises(ProviderUnavailable):
        await asking(model, Retry.off)("x")

    assert 1 == len(model.requests)


async def test_r7_no_sleep_after_the_last_attempt(asking, now):
    """R7: the failure leaves in the instant the last attempt fails."""
    model = scripted(default=unavailable)

    with pytest.raises(ProviderUnavailable):
        await asking(model, Retry(3, wait_initial=100, wait_max=1000), Deadline(100_000))("x")

    assert model.asked_at[-1] == now()


async def test_r5_waits_are_drawn_from_zero_to_a_doubling_cap(asking):
    """R5: wait n is at most `min(wait_max, wait_initial * 2**(n-1))`."""
    model = scripted(default=unavailable)

    with pytest.raises(ProviderUnavailable):
        await asking(model, Retry(7, wait_initial=1, wait_max=10))("x")

    for gap, cap in zip(gaps(model), [1, 2, 4, 8, 10, 10], strict=True):
        assert 0 <= gap <= cap


async def test_r5_forty_callers_who_fail_together_come_back_spread(asking):
    """R5, fault 26: the spread of 40 callers is at least 20 % of the longest gap."""
    model = scripted(default=unavailable)
    ask = asking(model, Retry(2, wait_initial=1))

    async def call():
        with pytest.raises(ProviderUnavailable):
            await ask("x")

    async with anyio.create_task_group() as group:
        for _ in range(40):
            group.start_soon(call)

    first, second = model.asked_at[:40], model.asked_at[40:]
    longest = max(second) - first[0]
    assert {first[0]} == set(first)
    assert max(second) - min(second) >= 0.2 * longest
    assert len(set(second)) > 35


async def test_r5_a_seed_makes_the_jitter_repeatable(asking):
    """The same seed gives the same waits."""
    seen = []
    for _ in range(2):
        model = scripted(unavailable, unavailable, "fine")
        async with Runtime(seed=7):
            await asking(model)("x")
        seen.append(gaps(model))

    assert seen[0] == pytest.approx(seen[1])


@pytest.mark.parametrize("asked", [0.0, 0.03, 1.0, 30.0, 60.0])
async def test_r2_retry_after_is_a_floor(asked, asking):
    """R2: the gap is at least what was asked for, and at most a quarter and a second more."""
    model = scripted(lambda _: _raise(RateLimited("429", retry_after=asked)), "fine")

    await asking(model)("x")

    (gap,) = gaps(model)
    assert asked <= gap + 1e-6
    assert gap <= asked * 1.25 + 1


def _raise(error):
    raise error


async def test_r2_retry_after_of_an_hour_is_not_waited_for(asking, now):
    """R2, fault 17: one request, no sleep, and the delay is on the error."""
    model = scripted(lambda _: _raise(RateLimited("429", retry_after=3600)))
    started = now()

    with pytest.raises(RateLimited) as caught:
        await asking(model)("x")

    assert (1, started, 3600) == (len(model.requests), now(), caught.value.retry_after)


async def test_r2_retry_after_beyond_the_deadline_is_not_waited_for(asking, now):
    """R2: a delay that the deadline does not leave fails at once, as what it is."""
    model = scripted(lambda _: _raise(RateLimited("429", retry_after=30)))
    started = now()

    with pytest.raises(RateLimited):
        await asking(model, Deadline(20))("x")

    assert (1, started) == (len(model.requests), now())


async def test_r2_retry_after_max_is_an_option(asking):
    """A longer patience can be said."""
    model = scripted(lambda _: _raise(RateLimited("429", retry_after=120)), "fine")

    await asking(model, Retry(retry_after_max="5m"))("x")

    assert gaps(model)[0] >= 120


@pytest.mark.parametrize("nonsense", [float("inf"), float("nan"), -5.0])
async def test_r2_a_delay_that_is_no_delay_is_ignored(nonsense, asking):
    """R2: what no clock can wait for gives way to the policy's own backoff."""
    model = scripted(lambda _: _raise(RateLimited("429", retry_after=nonsense)), "fine")

    await asking(model, Retry(wait_initial=0.5))("x")

    assert 0 <= gaps(model)[0] <= 0.5


async def test_a_wait_that_would_outlast_the_deadline_is_not_begun(asking, now):
    """The failure leaves at once instead of after a pointless sleep."""
    model = scripted(default=unavailable)
    started = now()

    with pytest.raises(ProviderUnavailable):
        await asking(model, Retry(50, wait_initial=1, wait_max=1), Deadline(5))("x")

    assert now() - started < 5
    assert len(model.requests) > 4


async def test_thousands_of_attempts_do_not_overflow(asking):
    """The doubling of the wait stops where floats end."""
    model = scripted(default=unavailable)

    with pytest.raises(ProviderUnavailable):
        await asking(model, Retry(1100, wait_initial=0.001, wait_max=0.01, throttle=False))(
            "x"
        )  # far more than a bucket holds

    assert 1100 == len(model.requests)


async def test_v2_a_failure_during_a_reask_is_retried_and_uses_up_no_reask(asking):
    """V2, fault 31: transport faults and invalid answers have budgets of their own."""
    model = scripted("junk", unavailable, unavailable, "junk", unavailable, "7")

    result = await asking(model, Repair(2), Retry(3), returns=int).run("x")

    assert (7, 6) == (result.value, len(model.requests))
    assert [1, 1, 2, 3, 1, 2] == [one.attempt for one in model.requests]


async def test_on_adds_failures_by_class(asking):
    """`on=` widens what is retried, to the author's own errors too."""
    model = scripted(KeyError("gone"), errors.BadRequest("400"), "fine")

    assert "fine" == await asking(model, Retry(on=(KeyError, errors.BadRequest)))("x")


async def test_on_adds_failures_by_function(asking):
    """`on=` may be a function of the exception."""
    model = scripted(ValueError("flaky"), ValueError("solid"))

    with pytest.raises(ValueError, match="solid"):
        await asking(model, Retry(on=lambda exc: "flaky" in str(exc)))("x")

    assert 2 == len(model.requests)


async def test_the_users_own_error_is_not_retried_and_leaves_unchanged(asking):
    """What a handler raises by mistake is not taken for the provider's failure."""
    mistake = KeyError("oops")
    model = scripted(mistake)

    with pytest.raises(KeyError) as caught:
        await asking(model)("x")

    assert caught.value is mistake
    assert ["raised in a call of step 'question'"] == caught.value.__notes__
    assert 1 == len(model.requests)


async def test_a_slow_failure_leaves_less_for_the_next_try(asking, now):
    """Tries, waits and answers together keep to the deadline."""
    model = scripted(default=after(4, unavailable))
    started = now()

    with pytest.raises((DeadlineExceeded, ProviderUnavailable)):
        await asking(model, Retry(10, wait_initial=0.1), Deadline(10))("x")

    assert now() - started <= 10 + 1e-6
    assert 3 == len(model.requests)


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"attempts": True},
        {"attempts": 2.5},
        {"wait_initial": -1},
        {"wait_initial": float("nan")},
        {"wait_max": float("inf")},
        {"wait_max": "soon"},
        {"wait_initial": True},
        {"retry_after_max": -1},
        {"on": "all"},
        {"on": int},
        {"on": (KeyError, "x")},
        {"on": (KeyError, lambda exc: True)},
        {"throttle": 1},
    ],
    ids=lambda options: "-".join(options),
)
def test_absurd_options_are_refused_where_they_are_written(options):
    """Fault 87: a DefinitionError, which is a ValueError, at the line of the mistake."""
    with pytest.raises(DefinitionError) as caught:
        Retry(**options)

    assert isinstance(caught.value, ValueError)
    assert next(iter(options)) in str(caught.value)


def only_bucket(runtime):
    (bucket,) = [one for one in runtime._shared.values() if isinstance(one, RetryBucket)]
    return bucket


async def _all_fail(ask, count):
    async def call():
        with pytest.raises(ProviderUnavailable) as caught:
            await ask("x")
        failures.append(caught.value)

    failures = []
    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(call)
    return failures


async def test_r6_a_dead_provider_gets_at_most_half_more_when_asked_in_turn(asking, runtime):
    """R6, fault 25: what fails pays for no retries, so 100 calls one after the other are 140 requests, and 200 are 240."""
    model = scripted(default=unavailable)
    ask = asking(model, Retry(3, wait_initial=0.01))
    sent = []

    for _ in range(2):
        for _ in range(100):
            with pytest.raises(ProviderUnavailable):
                await ask("x")
        sent.append(len(model.requests))

    assert [140, 240] == sent


async def test_r6_a_dead_provider_gets_at_most_half_more_when_asked_at_once(asking, runtime):
    """R6, fault 25: 200 calls at the same time are at most 300 requests, and each that was not retried says so."""
    model = scripted(default=unavailable)

    failures = await _all_fail(asking(model, Retry(3, wait_initial=0.01)), 200)

    assert 240 == len(model.requests)
    told = [one for one in failures if any("throttle=False" in note for note in getattr(one, "__notes__", ()))]
    assert only_bucket(runtime).throttled == len(told) >= 160
    (state,) = [one for one in runtime.stats().states if one.kind == "retries"]
    assert ("scripted/model", len(told)) == (state.name, state.values["throttled"])


async def test_r6_a_hiccup_of_forty_callers_is_retried_for_each(asking):
    """R5 with R6: who fails once together with many others is still retried."""
    model = scripted(*[unavailable] * 40, default="fine")
    ask = asking(model, Retry(2, wait_initial=0.5))
    answers = []

    async def call():
        answers.append(await ask("x"))

    async with anyio.create_task_group() as group:
        for _ in range(40):
            group.start_soon(call)

    assert (["fine"] * 40, 80) == (answers, len(model.requests))


async def test_r6_asks_that_go_well_fill_the_bucket_again(asking, runtime):
    """Five answers pay for one retry, up to what the bucket holds."""
    model = scripted(default=unavailable)
    ask = asking(model, Retry(3, wait_initial=0.01))
    await _all_fail(ask, 60)
    assert only_bucket(runtime).state().values["left"] < 1
    model.default = "fine"

    for _ in range(50):
        await ask("x")

    assert 10 <= only_bucket(runtime).state().values["left"] < 11


async def test_r6_throttle_false_asks_as_often_as_it_says(asking):
    """The limit can be lifted where it is known to be wrong."""
    model = scripted(default=unavailable)

    await _all_fail(asking(model, Retry(3, wait_initial=0.01, throttle=False)), 100)

    assert 300 == len(model.requests)


async def test_r6_one_dead_provider_does_not_throttle_another(asking):
    """Buckets are counted per connection and model."""
    dead, flaky = scripted(default=unavailable), scripted(unavailable, unavailable, "fine")
    await _all_fail(asking(dead, Retry(3, wait_initial=0.01)), 60)

    assert "fine" == await asking(flaky, Retry(3, wait_initial=0.01), name="other")("x")


async def test_r6_a_bucket_can_be_reset(asking, runtime):
    """An operator who knows that the provider is back need not wait for asks to fill it."""
    model = scripted(default=unavailable)
    ask = asking(model, Retry(3, wait_initial=0.01))
    await _all_fail(ask, 60)
    only_bucket(runtime).reset()

    with pytest.raises(ProviderUnavailable) as caught:
        await ask("x")

    assert 3 == len(caught.value.attempts)


def test_r6_a_task_is_not_throttled(runtime):
    """What a task reaches is not known to be one service, so its tries are its own."""
    tries = []

    @task(Retry(100, wait_initial=0, on=OSError))
    def fetch() -> str:
        tries.append(1)
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011  # any is the body's own
        fetch.sync()

    assert 100 == len(tries)
