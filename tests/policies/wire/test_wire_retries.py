"""How many requests really arrive, and when, for everything a provider can answer."""

from __future__ import annotations

import time
from email.utils import formatdate

import anyio
import pytest

from llmflow import (
    AuthenticationFailed,
    BadRequest,
    ContentFiltered,
    ContextTooLong,
    Deadline,
    DeadlineExceeded,
    Fallback,
    InvalidOutput,
    Model,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExceeded,
    RateLimited,
    Refused,
    Repair,
    Retry,
    Timeout,
    Truncated,
)
from llmflow.testing import _http_faults as faults
from llmflow.testing._http_responses import answer, status
from llmflow.testing._loopback import LoopbackServer

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("closing")]

GOOD = '{"category": "bug", "score": 0.5}'


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504, 529])
async def test_r4_transient_statuses_are_three_requests(code, server, model, asking):
    """R1 and R4, faults 15, 21 and 24: one retry layer, exactly `attempts` requests."""
    server.default = status(code)

    with pytest.raises((ProviderUnavailable, RateLimited)) as caught:
        await asking(model)("x")

    assert (3, code, 3) == (len(server.requests), caught.value.status, len(caught.value.attempts))


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 413, 422])
async def test_r1_everything_else_is_one_request(code, server, model, asking, clock):
    """R1, fault 23: exactly one request and no sleep."""
    server.default = status(code)

    with pytest.raises((BadRequest, AuthenticationFailed)) as caught:
        await asking(model)("x")

    assert (1, code, []) == (len(server.requests), caught.value.status, clock.slept)


async def test_r1_a_prompt_that_is_too_long_is_one_request(server, model, asking):
    """Fault 23: an error class of its own."""
    server.default = status(400, message="maximum context length is 8192 tokens", error_code="context_length_exceeded")

    with pytest.raises(ContextTooLong):
        await asking(model)("x")

    assert 1 == len(server.requests)


@pytest.mark.parametrize(
    "fault",
    [
        faults.close_without_reply(),
        faults.reset_in_body(),
        faults.short_body(),
        faults.unfinished_chunks(),
        faults.not_http(),
        faults.bad_encoding("gzip"),
        faults.html(),
        faults.invalid_json(),
        faults.empty_body(),
        faults.error_in_200(),
        faults.deeply_nested(),
    ],
    ids=lambda fault: getattr(fault, "name", ""),
)
async def test_r1_a_reply_that_is_none_is_tried_again(fault, server, model, asking):
    """R1, faults 2-5, 10, 11, 13, 14: the second request gets the answer, and no part of the first is in it."""
    server.enqueue(fault, answer(GOOD))

    result = await asking(model).run("x")

    assert ("bug", 2) == (result.value.category, len(server.requests))
    assert ["ProviderUnavailable", "ok"] == [one.outcome for one in result.attempts]


async def test_connection_refused_is_tried_three_times(asking, clock):
    """Fault 1: bounded, typed, with the cause kept."""
    with pytest.raises(ProviderUnavailable) as caught:
        await asking(Model("openai/gpt-x", base_url=faults.refused_url(), api_key="k"))("x")

    assert 3 == len(caught.value.attempts)
    assert caught.value.__cause__ is not None
    assert sum(clock.slept) <= 1.5


async def test_r9_quota_is_one_request_and_then_the_fallback(server, model, asking, clock):
    """R9, fault 20: `insufficient_quota` is permanent."""
    with LoopbackServer(answer(GOOD)) as other:
        server.default = faults.insufficient_quota()
        fallback = Model("openai/gpt-y", base_url=other.base_url, api_key="k")

        result = await asking(model, Fallback(fallback)).run("x")

        assert (1, 1, "openai/gpt-y", []) == (len(server.requests), len(other.requests), result.model, clock.slept)


async def test_r9_quota_without_a_fallback_is_one_request(server, model, asking):
    """The failure leaves as itself."""
    server.default = faults.insufficient_quota()

    with pytest.raises(QuotaExceeded) as caught:
        await asking(model)("x")

    assert (1, False) == (len(server.requests), caught.value.retryable)


async def test_fault_22_should_retry_false_is_obeyed(server, model, asking):
    """The provider knows best."""
    server.default = status(500, headers={"x-should-retry": "false"})

    with pytest.raises(ProviderUnavailable):
        await asking(model)("x")

    assert 1 == len(server.requests)


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "30"}, 1.5),
        ({"retry-after": "60"}, 60),
    ],
    ids=str,
)
async def test_r2_retry_after_is_a_floor_in_every_form(code, headers, seconds, server, model, asking, clock):
    """R2, fault 16: gap >= value and <= value * 1.25 + 1, on 429 and on 503."""
    server.enqueue(status(code, headers=headers), answer(GOOD))

    await asking(model)("x")

    (slept,) = clock.slept
    assert seconds <= slept <= seconds * 1.25 + 1


async def test_r2_retry_after_as_a_date(server, model, asking, clock):
    """R2: an HTTP date counts from now; it has whole seconds."""
    server.enqueue(faults.rate_limited(formatdate(time.time() + 30, usegmt=True)), answer(GOOD))

    await asking(model)("x")

    (slept,) = clock.slept
    assert 28 <= slept <= 30 * 1.25 + 1


@pytest.mark.parametrize("value", ["inf", "nan", "-5", "soon", "", "1e3", "Thu, 99 Foo 2024"], ids=ascii)
async def test_r2_garbage_is_ignored(value, server, model, asking, clock):
    """R2, fault 18: the policy's own backoff."""
    server.enqueue(faults.rate_limited(value), answer(GOOD))

    await asking(model, Retry(wait_initial=0.5))("x")

    (slept,) = clock.slept
    assert 0 <= slept <= 0.5


async def test_r2_a_header_that_is_not_ascii_is_ignored(server, model, asking, clock):
    """R2: HTTP carries any byte in a header; the reply is still what its status says."""
    server.enqueue(faults.rate_limited("\xe9t\xe9"), answer(GOOD))

    await asking(model)("x")

    assert 2 == len(server.requests)


@pytest.mark.parametrize("value", ["3600", "61"])
async def test_r2_a_long_retry_after_is_one_request(value, server, model, asking, clock):
    """R2, fault 17: no sleep, the delay on the error."""
    server.default = faults.rate_limited(value)

    with pytest.raises(RateLimited) as caught:
        await asking(model)("x")

    assert (1, [], float(value)) == (len(server.requests), clock.slept, caught.value.retry_after)


async def test_r2_a_date_in_an_hour_is_one_request(server, model, asking, clock):
    """The same for a date."""
    server.default = faults.rate_limited(formatdate(time.time() + 3600, usegmt=True))

    with pytest.raises(RateLimited) as caught:
        await asking(model)("x")

    assert (1, []) == (len(server.requests), clock.slept)
    assert 3500 < caught.value.retry_after <= 3600


async def test_r2_a_long_retry_after_goes_to_the_fallback_at_once(server, model, asking, clock):
    """R9: primary requests = 1."""
    with LoopbackServer(answer(GOOD)) as other:
        server.default = faults.rate_limited("3600")

        await asking(model, Fallback(Model("openai/gpt-y", base_url=other.base_url, api_key="k")))("x")

        assert (1, 1, []) == (len(server.requests), len(other.requests), clock.slept)


@pytest.mark.parametrize(
    "fault", [faults.drip(0.02), faults.never_answer(), faults.stall_in_body()], ids=lambda fault: fault.name
)
async def test_r3_however_the_time_is_spent_the_attempt_ends_at_its_timeout(
    fault, server, model, asking, naps, closed_by_client
):
    """R3, faults 7-9: overrun <= 0.25 s, also against one byte at a time; the socket is closed within a second."""
    server.default = fault
    ask = asking(model, Timeout(0.3), Retry.off)

    while not server.requests:  # on a machine that stood still the time was up before the request was sent
        started = time.monotonic()
        async with naps() as counted:
            with pytest.raises(ProviderTimeout):
                await ask("x")

        assert time.monotonic() - started >= 0.3
        assert counted.seconds <= 0.55
    await closed_by_client(server.requests[0])


async def test_r3_the_deadline_ends_many_slow_attempts(server, model, asking, naps):
    """R3: overrun of the deadline <= 0.5 s."""
    server.default = faults.drip(0.02)

    async with naps() as counted:
        with pytest.raises((DeadlineExceeded, ProviderTimeout)):
            await asking(model, Timeout(0.2), Retry(50, wait_initial=0), Deadline(0.7))("x")

    assert counted.seconds <= 1.2


async def test_r8_a_cancelled_request_closes_its_socket(server, model, asking, closed_by_client):
    """R8, fault 59: within a second, and nothing is sent again."""
    server.default = faults.never_answer()
    async with anyio.create_task_group() as group:
        group.start_soon(asking(model), "x")
        await anyio.to_thread.run_sync(server.wait_requests, 1)
        group.cancel_scope.cancel()

    await closed_by_client(server.requests[0])
    assert 1 == len(server.requests)


async def test_fault_61_an_outer_timeout_closes_the_socket_and_stays_itself(server, model, asking, closed_by_client):
    """The TimeoutError of the scope around, not one of ours."""
    server.default = faults.stall_in_body()
    ask = asking(model)

    while not server.requests:  # as above
        with pytest.raises(TimeoutError) as caught:
            with anyio.fail_after(0.2):
                await ask("x")

        assert TimeoutError is type(caught.value)
    await closed_by_client(server.requests[0])


@pytest.mark.parametrize(
    ("reason", "kind"), [("length", Truncated), ("refusal", Refused), ("content_filter", ContentFiltered)]
)
async def test_v4_answers_that_end_early_are_one_request(reason, kind, server, model, asking):
    """V4, faults 41 and 42."""
    server.default = answer('{"category": "bu', finish_reason=reason)

    with pytest.raises(kind) as caught:
        await asking(model)("x")

    assert 1 == len(server.requests)
    assert '{"category": "bu' == caught.value.text


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_v1_numbers_that_are_none_are_asked_for_again(number, server, model, asking):
    """V1, fault 33: rejected, and told to the model."""
    server.enqueue(answer(f'{{"category": "bug", "score": {number}}}'), answer(GOOD))

    result = await asking(model).run("x")

    assert (0.5, 2, True) == (result.value.score, len(server.requests), result.repaired)
    assert len(server.requests[1].json["messages"]) > len(server.requests[0].json["messages"])


@pytest.mark.parametrize("reasks", [0, 1, 3])
async def test_v2_reasks_are_counted_exactly(reasks, server, model, asking):
    """V2: 1+n requests on the wire, transport faults beside them."""
    server.default = answer('{"category": "spam", "score": 1}')
    server.enqueue(status(503), answer('{"category": "spam", "score": 1}'))

    with pytest.raises(InvalidOutput):
        await asking(model, Repair(reasks))("x")

    assert 1 + 1 + reasks == len(server.requests)


async def test_v3_a_fenced_answer_is_one_request(server, model, asking):
    """V3, fault 32."""
    server.default = answer(f"```json\n{GOOD}\n```")

    result = await asking(model).run("x")

    assert (1, True) == (len(server.requests), result.repaired)
