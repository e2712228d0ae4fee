"""RateLimit: at most so many in any window, first come first served, and it believes the provider."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import anyio
import pytest

from llmflow import (
    Bulkhead,
    Deadline,
    DefinitionError,
    Fallback,
    ProviderUnavailable,
    QueueFull,
    RateLimit,
    RateLimited,
    RateLimitTimeout,
    Reply,
    Retry,
    Runtime,
    Usage,
    context,
    task,
)
from llmflow.backend import monotonic
from llmflow.models import Model
from llmflow.policies._rate_limiter import Limiter
from llmflow.policies._rate_signals import reset_in
from llmflow.runtime import SystemClock
from llmflow.testing._scripted import after, hang, scripted

pytestmark = pytest.mark.anyio

near = partial(pytest.approx, abs=0.35)
"""A request counts a little longer than the window, and a line of some windows as much longer for each."""

COUNTED = {"usage": Usage(input_tokens=10, output_tokens=10)}


async def all_of(ask, words):
    """Ask all of them at the same time, in this order; return what came back."""
    outcomes = {}

    async def call(word):
        try:
            outcomes[word] = await ask(word)
        except RateLimitTimeout as error:
            outcomes[word] = error

    async with anyio.create_task_group() as group:
        for word in words:
            group.start_soon(call, word)
            await anyio.lowlevel.checkpoint()
    return outcomes


def worst_window(times, seconds):
    """The most that lie in any window of so many seconds, its end not included."""
    return max(sum(begin <= one < begin + seconds for one in times) for begin in times)


def only_limiter(runtime):
    (limiter,) = [one for one in runtime._shared.values() if isinstance(one, Limiter)]
    return limiter


def used(runtime):
    values = only_limiter(runtime).state().values
    return values.get("requests"), values.get("tokens"), values["waiting"]


def raising(error):
    def fail(_):
        raise error

    return fail


# -- the window --------------------------------------------------------------------------------------------------------


async def test_c6_at_most_n_in_any_window_first_come_first_served(asking, now):
    """C6, fault 71: 80 calls at 20 a second take three seconds, in order, never more than 20 in any second."""
    model = scripted(default="fine")
    started = now()

    await all_of(asking(model, RateLimit(20, per=1)), [f"{n:02}" for n in range(80)])

    assert started + 3 == near(now())
    assert 20 == worst_window(model.asked_at, 1.0)
    assert sorted(model.asked_at) == model.asked_at
    assert [f"About {n:02}?" for n in range(20)] == sorted(one.messages[0].content for one in model.requests[:20])


async def test_c6_a_burst_at_the_end_of_one_second_counts_in_the_next(asking, now):
    """A bucket or a fixed window would let 2n through here."""
    model = scripted(default="fine")
    ask = asking(model, RateLimit(4, per=1))
    started = now()

    await anyio.sleep(0.9)
    await all_of(ask, "abcdefgh")

    assert started + 1.9 == near(now())
    assert 4 == worst_window(model.asked_at, 1.0)


def test_a_step_that_is_bound_before_its_loop_runs_keeps_the_loops_time(asking, anyio_backend, runtime):
    """A plan or a check binds steps on the clock of the machine; the loop, here a virtual one, may have another."""
    model = scripted(default="fine")
    ask = asking(model, RateLimit(1, per=10))
    ask.bound(runtime, None)
    seen = []

    async def main():
        for word in "ab":
            seen.append(monotonic())
            await ask(word)
        seen.append(monotonic())

    name, options = anyio_backend
    anyio.run(main, backend=name, backend_options=options)

    assert [0, 0, 10] == near([at - seen[0] for at in seen])


async def test_what_waited_is_told(asking):
    """`CallScope.waited_s` has the seconds in line, and latency of attempts does not."""
    model = scripted(default="fine")
    ask = asking(model, RateLimit(1, per=10))
    await ask("x")

    result = await ask.run("y")

    assert (10, 0) == (near(model.requests[1].call.waited_s), near(result.attempts[0].latency_s))
    assert 0 == model.requests[0].call.waited_s


async def test_tokens_are_reserved_and_what_was_not_used_is_given_back(asking, now, runtime):
    """Each reserves its prompt and `max_tokens`, about 630; at 20 used, the second goes when the first is answered."""
    model = scripted(default=after(1, "fine"), **COUNTED)
    ask = asking(model, RateLimit(tokens=1000), params={"max_tokens": 600})
    started = now()

    await all_of(ask, "abc")

    assert [0, 1, 2] == near([at - started for at in model.asked_at])
    assert (None, 60, 0) == used(runtime)


async def test_tokens_leave_the_window_with_their_request(asking, now):
    """What was really used is held for the whole window."""
    model = scripted(default="fine", usage=Usage(input_tokens=300, output_tokens=400))
    ask = asking(model, RateLimit(tokens=1500, per=10), params={"max_tokens": 400})
    started = now()

    await all_of(ask, "abcd")

    assert [0, 0, 10, 10] == near([at - started for at in model.asked_at])


async def test_more_used_than_was_reserved_counts(asking, now, runtime):
    """An estimate that was too low is corrected upwards."""
    model = scripted(default="fine", usage=Usage(input_tokens=900, output_tokens=10))
    ask = asking(model, RateLimit(tokens=1000, per=10), params={"max_tokens": 20})
    await ask("x")

    assert (None, 910, 0) == used(runtime)


async def test_a_request_larger_than_the_limit_is_refused_at_once(asking, now):
    """It could never go, so it does not wait; the error says what it is made of and what to do."""
    model = scripted(default="fine")
    started = now()

    with pytest.raises(RateLimitTimeout, match=r"can never .* max_tokens=4096") as caught:
        await asking(model, RateLimit(tokens=1000))("x")

    assert (0, started, None) == (len(model.requests), now(), caught.value.retry_after)
    assert any("max_tokens" in note for note in caught.value.__notes__)
    assert caught.value.sent is False


async def test_c6_a_turn_after_the_deadline_is_refused_at_once(asking, now):
    """C6: nobody waits for nothing; `retry_after` says when it would have been."""
    model = scripted(default="fine")
    ask = asking(model, RateLimit(2, per=60), Deadline(50))
    await all_of(ask, "ab")
    await anyio.sleep(5)
    started = now()

    with pytest.raises(RateLimitTimeout, match="after its deadline") as caught:
        await ask("c")

    assert (2, started, 55) == (len(model.requests), now(), near(caught.value.retry_after))


async def test_c6_the_line_before_counts_too(asking, now):
    """The turn is that behind all who wait: of nine, the first six go within their deadline, the others fail at once."""
    model = scripted(default="fine")
    ask = asking(model, RateLimit(2, per=10), Deadline(25))
    started = now()

    outcomes = await all_of(ask, "abcdefghi")

    refused = [word for word, one in outcomes.items() if isinstance(one, RateLimitTimeout)]
    assert ["g", "h", "i"] == sorted(refused)
    assert [30, 30, 30] == near([outcomes[word].retry_after for word in "ghi"])
    assert [0, 0, 10, 10, 20, 20] == near([at - started for at in model.asked_at])


async def test_what_is_given_back_lets_in_who_would_have_been_too_late(asking):
    """Reservations are the worst case; who was told a late turn for them is told anew once they are settled."""
    model = scripted(*[after(1, "fine")] * 4, default="fine", **COUNTED)
    ask = asking(model, RateLimit(tokens=1300, per=60), Deadline(30), params={"max_tokens": 600})

    async with anyio.create_task_group() as group:
        group.start_soon(ask.with_(Deadline.off), "a")
        group.start_soon(ask.with_(Deadline.off), "b")
        await anyio.sleep(0.1)
        group.start_soon(ask.with_(Deadline.off), "c")
        group.start_soon(ask.with_(Deadline.off), "d")
        await anyio.sleep(0.1)
        with pytest.raises(RateLimitTimeout):  # all four may use all that there is
            await ask("e")
        await anyio.sleep(3)

    assert "fine" == await ask("e")


async def test_a_fallback_takes_over_at_once(asking, now):
    """RateLimitTimeout is not retried; the next model is asked."""
    model, other = scripted(default="first"), scripted(default="second")
    ask = asking(model, RateLimit(1, per=1000), Fallback(other))
    await ask("x")
    started = now()

    assert ("second", started) == (await ask("y"), now())


# -- what becomes of a request -----------------------------------------------------------------------------------------


async def test_an_error_reply_used_no_tokens_but_was_a_request(asking, runtime):
    """A provider that answers with an error does not bill it, and counts it."""
    model = scripted(ProviderUnavailable("503", status=503))

    with pytest.raises(ProviderUnavailable):
        await asking(model, RateLimit(5, 1000), Retry.off, params={"max_tokens": 100})("x")

    assert (1, 0, 0) == used(runtime)


async def test_a_broken_connection_stays_reserved_until_it_leaves_the_window(asking, runtime):
    """Nobody knows whether the provider counted it."""
    model = scripted(ProviderUnavailable("reset"))
    ask = asking(model, RateLimit(5, 1000, per=10), Retry.off, params={"max_tokens": 100})

    with pytest.raises(ProviderUnavailable):
        await ask("x")

    requests, tokens, _ = used(runtime)
    assert (1, True) == (requests, 100 < tokens < 200)
    await anyio.sleep(10.1)
    assert (0, 0, 0) == used(runtime)


async def test_what_was_never_sent_is_given_back_altogether(asking, runtime):
    """A full bulkhead inside, or an error that says so."""
    refused = ProviderUnavailable("no connection", retryable=False)
    refused.sent = False
    model = scripted(hang(), refused)
    ask = asking(model, RateLimit(5, 1000), Bulkhead(1, queue=0), params={"max_tokens": 100})

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "x")
        await anyio.sleep(1)
        before = used(runtime)
        with pytest.raises(QueueFull):
            await ask("y")
        assert before == used(runtime)
        group.cancel_scope.cancel()
    with pytest.raises(ProviderUnavailable):
        await ask("z")

    assert before == used(runtime)


async def test_a_request_cancelled_in_the_bulkhead_behind_is_given_back(asking, runtime):
    """It was let through, and never sent."""
    model = scripted(after(50, "fine"))
    ask = asking(model, RateLimit(5), Bulkhead(1))

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "x")
        await anyio.sleep(1)
        with anyio.move_on_after(5):
            await ask("y")
        assert (1, None, 0) == used(runtime)


async def test_many_that_are_never_sent_leave_nothing_behind(asking, runtime):
    """The log does not grow with what is not in the window."""
    model = scripted(hang())
    ask = asking(model, RateLimit(50, per=1000), Bulkhead(1, queue=0))

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "x")
        await anyio.sleep(1)
        for _ in range(500):
            with pytest.raises(QueueFull):
                await ask("y")
        assert 1 == len(only_limiter(runtime).pot(None, 0).window.log)
        group.cancel_scope.cancel()


# -- who shares it -----------------------------------------------------------------------------------------------------


async def test_c5_steps_that_ask_one_model_share_it(asking, now):
    """C5: it is the provider that counts, so two steps with the same limit have one."""
    model = scripted(default="fine")
    one, other = (asking(model, RateLimit(1, per=10), name=name) for name in ("a", "b"))
    started = now()

    await one("x")
    await other("x")

    assert started + 10 == near(now())


async def test_c5_models_and_connections_do_not(asking, now):
    """C5: one dead or slow model does not hold up another."""
    models = [scripted(default="fine"), scripted(default="fine")]
    started = now()

    for n, model in enumerate(models):
        await asking(model, RateLimit(1, per=10), name=f"s{n}")("x")

    assert started == now()


async def test_one_declared_on_the_runtime_and_on_the_step_is_one(asking, now):
    """A request does not pay twice."""
    model = scripted(default="fine")
    async with Runtime(policies=[RateLimit(2, per=10)]) as runtime:
        ask = asking(model, RateLimit(2, per=10))
        await ask("x")

        assert (1, None, 0) == used(runtime)


async def test_several_limits_hold_together(asking, now):
    """Five a second and eight in ten seconds: both are kept, and nobody blocks anybody for good."""
    model = scripted(default="fine")
    async with Runtime(policies=[RateLimit(8, per=10)]):
        ask = asking(model, RateLimit(5, per=1))
        with anyio.fail_after(100):
            await all_of(ask, [str(n) for n in range(24)])

    assert (5, 8) == (worst_window(model.asked_at, 1.0), worst_window(model.asked_at, 10.0 - 1e-6))


async def test_two_of_one_name_that_differ_are_refused(asking):
    """The first call says so, naming it."""
    model = scripted(default="fine")
    await asking(model, RateLimit(1, name="free tier"), name="a")("x")

    with pytest.raises(DefinitionError, match="'free tier'"):
        await asking(model, RateLimit(2, name="free tier"), name="b")("x")


async def test_each_tenant_has_its_own(asking, now, runtime):
    """`key="tenant"`: one customer's burst does not hold up the others."""
    model = scripted(default="fine")
    ask = asking(model, RateLimit(1, per=10, key="tenant"))
    started = now()

    for tenant in ("a", "b", "c"):
        with context(tenant=tenant):
            await ask("x")
    assert (started, 3) == (now(), only_limiter(runtime).state().values["keys"])
    with context(tenant="b"):
        await ask("x")

    assert started + 10 == near(now())


async def test_pots_of_keys_that_nobody_uses_are_dropped(asking, runtime):
    """A key for each customer, or each request, is no leak."""
    model = scripted(default="fine")
    ask = asking(model, RateLimit(1, per=10, key=lambda request: request.messages[0].content))

    for n in range(500):
        await ask(str(n))
        await anyio.sleep(1)

    assert len(only_limiter(runtime)._pots) <= 64


async def test_a_limit_on_tasks_of_one_name_is_shared(now):
    """A name says that two tasks reach the same service."""
    crm = RateLimit(1, per=10, name="crm")

    @task(crm)
    async def read() -> int:
        return 1

    @task(crm)
    async def write() -> int:
        return 2

    started = now()

    assert (1, 2) == (await read(), await write())
    assert started + 10 == near(now())


async def test_a_task_has_no_tokens_to_count():
    """Said when it is bound, and not found out in production."""

    @task(RateLimit(tokens=10))
    async def read() -> int:
        return 1

    with pytest.raises(DefinitionError, match="'read'.*no tokens"):
        await read()


# -- what the provider says --------------------------------------------------------------------------------------------


async def test_c6_after_a_429_nobody_sends_until_retry_after(asking, now):
    """One request tells all: those in line, those to come, and its own retry."""
    model = scripted(raising(RateLimited("429", retry_after=30)), default="fine")
    ask = asking(model, RateLimit(100, per=1))
    started = now()

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "first")
        await anyio.sleep(1)
        for n in range(10):
            group.start_soon(ask, str(n))

    assert 12 == len(model.requests)
    assert all(at >= started + 30 for at in model.asked_at[1:])


async def test_a_429_fails_those_at_once_who_cannot_wait_that_long(asking, now):
    """Who stands in line and would miss its deadline is told, so that it can go elsewhere."""
    model = scripted("fine", raising(RateLimited("429", retry_after=100)), default="fine")
    ask = asking(model, RateLimit(1, per=10), Deadline(60), Retry.off)
    started = now()
    ended = []

    async def call(word):
        try:
            await ask(word)
        except (RateLimited, RateLimitTimeout) as error:
            ended.append((now() - started, type(error)))

    async with anyio.create_task_group() as group:
        for word in "abcd":
            group.start_soon(call, word)
            await anyio.sleep(0.001)

    assert [(10, RateLimited), (10, RateLimitTimeout), (10, RateLimitTimeout)] == [
        (near(at), kind) for at, kind in ended
    ]


async def test_a_429_that_says_nothing_is_a_pause_that_grows(asking, now):
    """Half a second, then twice as long each time, and short again after an answer."""
    refusal = raising(RateLimited("429"))
    model = scripted(refusal, refusal, refusal, "fine", refusal, "fine")
    ask = asking(model, RateLimit(100, per=1), Retry(10, wait_initial=0))
    started = now()

    await ask("x")
    await ask("x")

    assert [0, 0.5, 1.5, 3.5, 3.5, 4] == pytest.approx([at - started for at in model.asked_at])


async def test_a_volley_of_429_is_one_reason_to_pause(asking, now):
    """Twenty that were under way together say one thing, not twenty."""
    model = scripted(*[after(1, raising(RateLimited("429")))] * 20, default="fine")
    ask = asking(model, RateLimit(100, per=1), Retry(2, wait_initial=0))
    started = now()

    await all_of(ask, [str(n) for n in range(20)])

    assert started + 1.5 == pytest.approx(now(), abs=0.01)


@pytest.mark.parametrize("nonsense", [float("inf"), float("nan"), -5.0])
async def test_a_retry_after_that_is_none_is_a_short_pause(nonsense, asking, now):
    """Fault 18: what no clock can wait for does not close anything for ever."""
    model = scripted(raising(RateLimited("429", retry_after=nonsense)), "fine")
    started = now()

    await asking(model, RateLimit(100), Retry(2, wait_initial=0))("x")

    assert started + 0.5 == pytest.approx(now())


def said(**headers):
    return Reply(text="fine", headers={name.replace("_", "-"): value for name, value in headers.items()})


async def test_the_provider_is_believed_when_it_has_less_left(asking, now):
    """Others use the account too: two left for six seconds are two for six seconds."""
    model = scripted(said(x_ratelimit_remaining_requests="2", x_ratelimit_reset_requests="6s"), default="fine")
    ask = asking(model, RateLimit(100, per=60))
    started = now()

    await ask("a")
    await all_of(ask, "bcdef")

    assert [0, 0, 0, 6, 6, 6] == pytest.approx([at - started for at in model.asked_at])


async def test_the_provider_is_not_believed_when_it_has_more(asking, now):
    """What was declared is never raised."""
    model = scripted(default=said(x_ratelimit_remaining_requests="1000", x_ratelimit_reset_requests="1s"))
    started = now()

    await all_of(asking(model, RateLimit(2, per=10)), "abc")

    assert started + 10 == near(now())


async def test_what_was_sent_since_is_taken_off_what_the_provider_has_left(asking, now):
    """The reply to the first of three says 3 left, and knows nothing of the other two: one more may go."""
    slow = after(1, said(x_ratelimit_remaining_requests="3", x_ratelimit_reset_requests="20s"))
    model = scripted(slow, default=after(2, "fine"))
    ask = asking(model, RateLimit(100, per=60))
    started = now()

    async with anyio.create_task_group() as group:
        for word in "abc":
            group.start_soon(ask, word)
        await anyio.sleep(1.5)
        for word in "de":
            group.start_soon(ask, word)

    assert [0, 0, 0, 1.5, 21] == pytest.approx([at - started for at in model.asked_at])


async def test_a_later_reply_corrects_an_earlier_one(asking, now):
    """Belief follows the newest request, and one that overtook it is not news."""
    model = scripted(
        after(3, said(x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests="50s")),
        after(1, said(x_ratelimit_remaining_requests="1", x_ratelimit_reset_requests="9s")),
        default="fine",
    )
    ask = asking(model, RateLimit(100, per=60))
    started = now()

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "a")
        await anyio.sleep(0.1)
        group.start_soon(ask, "b")
        await anyio.sleep(3)
        for word in "cd":
            group.start_soon(ask, word)

    assert [0, 0.1, 3.1, 10.1] == pytest.approx([at - started for at in model.asked_at])


async def test_tokens_of_the_provider_are_believed(asking, now):
    """`anthropic-ratelimit-*`, with a date as the end."""
    reply = Reply(
        text="fine",
        usage=Usage(input_tokens=10, output_tokens=10),
        headers={
            "anthropic-ratelimit-tokens-remaining": "50",
            "anthropic-ratelimit-tokens-reset": "2026-01-01T00:00:20Z",
        },
    )

    class Clock(SystemClock):
        def time(self):
            return 1767225600.0  # 2026-01-01T00:00:00Z

    model = scripted(reply, default="fine")
    async with Runtime(clock=Clock()):
        ask = asking(model, RateLimit(tokens=100_000), params={"max_tokens": 100})
        started = now()
        await ask("a")
        await ask("b")

    assert [0, 20] == pytest.approx([at - started for at in model.asked_at])


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ratelimit-remaining-requests": "-1"},
        {"x-ratelimit-remaining-requests": "none"},
        {"x-ratelimit-remaining-requests": "1_0"},
        {"x-ratelimit-remaining-requests": "9" * 400},
        {"x-ratelimit-remaining-requests": "٣"},
        {"x-ratelimit-remaining-requests": ""},
        {"x-ratelimit-limit-requests": "1"},
        {"x-ratelimit-reset-requests": "6m0s"},
    ],
    ids=str,
)
async def test_junk_in_headers_is_ignored(headers, asking, now):
    """Nothing is learned from what is no number."""
    model = scripted(default=Reply(text="fine", headers=headers))
    ask = asking(model, RateLimit(100))
    started = now()

    await all_of(ask, "abcdef")

    assert started == now()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("120ms", 0.12),
        ("1h2m3.5s", 3600),
        ("20m3.5s", 1203.5),
        ("17", 17),
        ("0.25", 0.25),
        ("1767225630", 30),
        ("1767225630000", 30),
        ("2026-01-01T00:00:40Z", 40),
        ("2026-01-01T01:00:40+01:00", 40),
        ("2026-01-01T00:00:40", 40),
        ("86400", 3600),
        ("0s", 0),
    ],
)
def test_when_a_limit_is_reset_is_read_in_every_form(text, seconds):
    """OpenAI, Anthropic and the gateways each have their own; more than an hour is not believed."""
    assert seconds == pytest.approx(reset_in(text, 1767225600.0))


@pytest.mark.parametrize(
    "text", [None, "", "soon", "-1", "-1s", "1x", "s", "nan", "inf", "1e9", "2020-01-01T00:00:00Z", "1" * 99]
)
def test_when_a_limit_is_reset_is_not_read_from_junk(text):
    """Then it is a window from now."""
    assert reset_in(text, 1767225600.0) is None


# -- waiting, leaving, hedging -----------------------------------------------------------------------------------------


async def test_r8_a_waiter_that_is_cancelled_leaves_the_line(asking, runtime, now):
    """R8: its turn goes to the next."""
    model = scripted(default="fine")
    ask = asking(model, RateLimit(1, per=10))
    started = now()
    await ask("x")

    async with anyio.create_task_group() as group:
        with anyio.move_on_after(5):
            await ask("cancelled")
        assert (1, None, 0) == used(runtime)
        group.start_soon(ask, "y")

    assert [0, 10] == near([at - started for at in model.asked_at])


async def test_r8_cancelled_in_the_instant_of_its_turn_it_passes_it_on(asking, runtime, now):
    """R8: the instant in which a turn could be lost."""
    model = scripted(default="fine")
    ask = asking(model, RateLimit(1, per=1))
    answers = []

    async def call(limit):
        with anyio.move_on_after(limit):
            answers.append(await ask("x"))

    async with anyio.create_task_group() as group:
        for limit in (100, 1.05, 100, 2.1, 100):  # a request counts for 1.05 s
            group.start_soon(call, limit)

    await anyio.sleep(1.1)
    assert len(answers) >= 3
    assert (0, None, 0) == used(runtime)


async def test_r8_cancelled_at_every_moment_it_leaves_nothing_behind(asking, now):
    """R8: in line for the first limit, for the second, in the bulkhead, in the request: what is held was really sent."""
    finished = False
    for nth in range(1, 60):
        async with Runtime(policies=[RateLimit(1, per=3, name="outer")]) as runtime:
            model = scripted(default=after(0.7, "fine"))
            ask = asking(model, RateLimit(1, per=2, name="inner"), Bulkhead(1))
            group_done = []
            async with anyio.create_task_group() as group:
                group.start_soon(ask, "first")
                await anyio.sleep(0.01)
                with anyio.move_on_after(nth * 0.13):
                    await ask("second")
                    group_done.append(True)
            for limiter in (one for one in runtime._shared.values() if isinstance(one, Limiter)):
                pot = limiter.pot(None, now())
                sent = [at for at in model.asked_at if at + limiter.window > now()]
                assert 0 == pot.waiting
                assert len(sent) <= pot.window.held(now())[0] <= len(model.requests)
            await anyio.sleep(10)
            assert len(group_done) + 1 <= len(model.requests) <= 2
            finished = bool(group_done)
        if finished:
            break

    assert finished
    assert nth > 20


async def test_a_turn_that_comes_later_than_told_ends_with_the_deadline(now):
    """Another one used more than it had reserved, so the turn moves; then it ends when the deadline does."""
    limiter = make_limiter(tokens=10, per=1.0)
    pot = limiter.pot(None, now())
    assert pot.take_nowait(now(), 5)
    await anyio.sleep(0.5)
    other = pot.take_nowait(now(), 2)
    deadline = now() + 0.7

    async def use_more():
        await anyio.sleep(0.1)
        limiter.answered(pot, other, 9, None)

    async with anyio.create_task_group() as group:
        group.start_soon(use_more)
        with pytest.raises(RateLimitTimeout, match="the deadline passed while waiting"):
            await pot.take(8, deadline, hedge=False)

    assert (deadline, 0) == (pytest.approx(now()), pot.waiting)


async def test_one_who_is_told_too_early_a_turn_stays_in_line(now):
    """The same without a deadline: it goes as soon as it really fits, and those behind it keep their order."""
    limiter = make_limiter(tokens=10, per=1.0)
    pot = limiter.pot(None, now())
    started = now()
    assert pot.take_nowait(now(), 5)
    await anyio.sleep(0.5)
    other = pot.take_nowait(now(), 2)
    went = []

    async def wait(name, tokens):
        await pot.take(tokens, float("inf"), hedge=False)
        went.append((name, pytest.approx(now() - started, abs=0.06)))

    async with anyio.create_task_group() as group:
        for name, tokens in (("a", 8), ("b", 2), ("c", 9)):
            group.start_soon(wait, name, tokens)
            await anyio.sleep(0.01)
        limiter.answered(pot, other, 10, None)

    assert [("a", 1.5), ("b", 1.5), ("c", 2.5)] == went


async def test_a_hedge_is_let_through_at_once_or_refused(asking, now):
    """A second request beside a slow one must not wait in the line of first ones."""
    limiter = make_limiter(requests=1, per=10)
    pot = limiter.pot(None, now())
    assert pot.take_nowait(now(), 0)

    with pytest.raises(RateLimitTimeout, match="second request") as caught:
        await pot.take(0, float("inf"), hedge=True)

    assert 10 == pytest.approx(caught.value.retry_after)


async def test_sync_in_a_running_loop_waits_for_time_alone(asking, now):
    """`.sync()` in a loop's own thread waits in a thread of its own; nothing that loop holds is waited for."""
    model = scripted(default="fine")
    ask = asking(model, RateLimit(1, per=0.2))

    assert ["fine", "fine"] == [ask.sync("x"), ask.sync("y")]


async def test_c5_a_limit_can_be_reset(asking, runtime, now):
    """C5: forgotten is what was sent and what the provider said; who waits goes at once."""
    model = scripted(raising(RateLimited("429", retry_after=50)), default="fine")
    ask = asking(model, RateLimit(1, per=100), Retry.off)
    with pytest.raises(RateLimited):
        await ask("x")
    started = now()

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "y")
        await anyio.sleep(5)
        only_limiter(runtime).reset()

    assert started + 5 == pytest.approx(now())


async def test_c5_an_operator_resets_the_limits_of_a_model(asking, runtime, now):
    """C5: by name, by connection, or all; the buckets of retries with them."""
    model, other = scripted(default="fine", name="acme/a"), scripted(default="fine", name="acme/b")
    for one in (model, other):
        await asking(one, RateLimit(1, per=100), name=one.model)("x")
    started = now()

    assert [0, 0, 2, 2, 4] == [
        runtime.reset_limits(which)
        for which in ("acme/c", Model("acme/a", base_url="http://elsewhere"), "acme/a", other, None)
    ]
    await asking(model, RateLimit(1, per=100), name="a")("x")
    assert started == now()


async def test_c5_its_state_is_in_the_statistics(asking, runtime):
    """C5: what is used, who waits, for how long it is closed."""
    model = scripted("fine", raising(RateLimited("429", retry_after=30, status=429)), default="fine", **COUNTED)
    ask = asking(model, RateLimit(10, 5000, name="openai"), Retry.off, params={"max_tokens": 100})
    await ask("x")
    with pytest.raises(RateLimited):
        await ask("y")

    (state,) = [one for one in runtime.stats().states if one.kind == "rate_limit"]
    assert "openai" == state.name
    assert {
        "waiting": 0,
        "requests": 2,
        "requests_limit": 10,
        "tokens": 20,
        "tokens_limit": 5000,
        "per_s": 60.0,
        "closed_for_s": 30.0,
    } == state.values


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"requests": 0},
        {"requests": True},
        {"requests": 1.5},
        {"tokens": -1},
        {"requests": 1, "per": 0},
        {"requests": 1, "per": float("inf")},
        {"requests": 1, "key": "user"},
        {"requests": 1, "name": ""},
    ],
    ids=str,
)
def test_absurd_options_are_refused(options):
    """Fault 87: at the line of the mistake."""
    with pytest.raises(DefinitionError, match=f"RateLimit: .*{([*options] or ['requests'])[-1]}"):
        RateLimit(**options)


# -- threads and loops -------------------------------------------------------------------------------------------------


def make_limiter(requests=None, tokens=None, per=1.0):
    return Limiter(
        name=None, model=Model("a/b", handler=print), requests=requests, tokens=tokens, per=per, clock=SystemClock()
    )


def test_threads_and_their_loops_share_a_window():
    """Six loops in six threads, on both backends and real time: never more than 10 in any 0.2 s, and all are served."""
    limiter, lock, let_through = make_limiter(requests=10, per=0.2), threading.Lock(), []

    async def work():
        pot = limiter.pot(None, limiter.monotonic())
        for _ in range(7):
            entry = pot.take_nowait(limiter.monotonic(), 0) or await pot.take(0, float("inf"), hedge=False)
            with lock:
                let_through.append(entry.leaves)

    threads = [
        threading.Thread(target=anyio.run, args=(work,), kwargs={"backend": name}) for name in ("asyncio", "trio") * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert (42, 10) == (len(let_through), worst_window(let_through, 0.2 - 1e-9))


def test_a_waiter_whose_loop_has_died_does_not_hold_up_the_others():
    """The head of the line is gone without a word; who comes after it is let through all the same."""
    limiter = make_limiter(requests=1, per=0.1)
    pot = limiter.pot(None, limiter.monotonic())
    assert pot.take_nowait(limiter.monotonic(), 0)
    loop = asyncio.new_event_loop()
    dead = loop.create_task(pot.take(0, float("inf"), hedge=False))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    async def wait():
        with anyio.fail_after(60):
            return await pot.take(0, float("inf"), hedge=False)

    assert anyio.run(wait)
    dead.get_coro().close()
    dead._log_destroy_pending = False
    assert 0 == pot.waiting
