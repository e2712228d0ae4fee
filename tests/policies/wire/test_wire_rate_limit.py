"""RateLimit and the retry bucket over real connections: what the provider sees, and what it says."""

from __future__ import annotations

import time

import anyio
import pytest

from llmflow import Model, ProviderUnavailable, RateLimit, RateLimited, Retry, Runtime, hookimpl
from llmflow.backend import monotonic
from llmflow.policies import _rate_line
from llmflow.policies._rate_limiter import Limiter
from llmflow.policies._rate_window import Entry
from llmflow.testing._http_responses import answer, status

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("closing")]

GOOD = '{"category": "bug", "score": 0.5}'


@pytest.fixture
def waited():
    """How long each call waited in its limits."""
    return []


@pytest.fixture
def runtime(monkeypatch, waited):
    """A runtime on the real clock: limits are about real time."""

    class Watch:
        @hookimpl
        def llmflow_call_finished(self, event):
            waited.append(event.waited_s)

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Runtime(seed=1, plugins=[Watch()]) as made:
        yield made


async def all_of(ask, count):
    async with anyio.create_task_group() as group:
        for n in range(count):
            group.start_soon(ask, f"{n:02}")


def worst_window(times, seconds):
    return max(sum(begin <= one < begin + seconds for one in times) for begin in times)


@pytest.fixture
def admitted(monkeypatch):
    """When the limiter let each request through, in order; what a busy machine does with it afterwards takes its time."""
    entries = []

    class Kept(Entry):
        def __init__(self, tokens):
            super().__init__(tokens)
            entries.append(self)

    monkeypatch.setattr(_rate_line, "Entry", Kept)
    return lambda: sorted(one.leaves - 1 for one in entries if hasattr(one, "number"))


async def test_fault_71_the_server_sees_at_most_20_in_any_second(server, model, asking, naps, admitted):
    """C6, fault 71: 80 calls at 20/s: all are served; never more than 20 in any second, here and at the server.

    The time that a busy machine needs to send a request is not the limiter's: where some took longer than others, the
    window at the server is shorter by that.
    """
    server.default = answer(GOOD)
    await all_of(asking(model, name="warm_up"), 20)  # so that connections are open and their cost is not measured
    started = time.monotonic()

    async with naps() as counted:
        await all_of(asking(model, RateLimit(20, per=1)), 80)

    assert time.monotonic() - started >= 3
    assert counted.seconds < 6
    left, arrived = admitted(), sorted(one.received for one in server.requests[20:])
    delays = [there - here for here, there in zip(left, arrived, strict=True)]
    assert 80 == len(arrived)
    assert worst_window(left, 1.0 - 1e-9) <= 20
    assert worst_window(arrived, 1.0 - (max(delays) - min(delays)) - 1e-9) <= 20


async def test_headers_of_a_reply_are_believed(server, model, asking, waited):
    """What others used up is waited for, on both backends and both ways to the wire."""
    headers = {"X-RateLimit-Remaining-Requests": "1", "X-RateLimit-Reset-Requests": "300ms", "X-Other": "secret"}
    server.enqueue(answer(GOOD, headers=headers))
    server.default = answer(GOOD)
    ask = asking(model, RateLimit(1000))

    for _ in range(3):
        await ask("x")

    first, _, third = (one.received for one in server.requests)
    assert third - first + 0.05 >= 0.3
    assert 0 == waited[1]


async def test_retry_after_of_one_holds_up_all(server, model, asking):
    """One request tells all: nobody sends before the 0.4 s are over."""
    server.enqueue(status(429, headers={"retry-after-ms": "400"}))
    server.default = answer(GOOD)
    ask = asking(model, RateLimit(1000))

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "first")
        await anyio.to_thread.run_sync(server.wait_requests, 1)
        await anyio.sleep(0.1)
        for n in range(5):
            group.start_soon(ask, str(n))

    refused, *others = (one.received for one in server.requests)
    assert 6 == len(others)
    assert min(others) - refused >= 0.39


async def test_an_error_carries_what_its_headers_say_about_limits(server, model, asking):
    """`ProviderError.headers` has them, and nothing else of the reply."""
    server.default = status(
        429, headers={"X-RateLimit-Remaining-Tokens": "7", "Retry-After": "9", "Set-Cookie": "secret"}
    )

    with pytest.raises(RateLimited) as caught:
        await asking(model, Retry.off)("x")

    assert {"x-ratelimit-remaining-tokens": "7", "retry-after": "9"} == caught.value.headers


@pytest.mark.parametrize("provider", ["openai", "anthropic", "google"])
async def test_replies_of_every_provider_carry_them(provider, server, asking, runtime):
    """The limiter learns the same way from each."""
    pytest.importorskip({"google": "google.genai"}.get(provider, provider))
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "40s"}
    server.default = answer(GOOD, headers=headers)
    address = server.base_url.removesuffix("/v1") if provider != "openai" else server.base_url
    model = Model(f"{provider}/m", base_url=address, api_key="sk-test-0123456789abcdefghij")

    started = monotonic()
    await asking(model, RateLimit(1000))("x")

    (limiter,) = [one for one in runtime._shared.values() if isinstance(one, Limiter)]
    assert 0 == limiter.signals.requests_left
    assert started + 40 <= limiter.signals.requests_until <= limiter.monotonic() + 40


@pytest.mark.parametrize("at_once", [1, 40])
async def test_r6_a_dead_provider_sees_at_most_300_requests_for_200_calls(at_once, server, model, asking):
    """R6, fault 25: counted where it matters, at the provider."""
    server.default = status(503)
    ask = asking(model, Retry(3, wait_initial=0.001))

    async def calls():
        for _ in range(200 // at_once):
            with pytest.raises(ProviderUnavailable):
                await ask("x")

    async with anyio.create_task_group() as group:
        for _ in range(at_once):
            group.start_soon(calls)

    assert 240 <= len(server.requests) <= 300
