"""All policies on at once: whatever ends a call, and wherever, everything it held is given back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from decimal import Decimal
from typing import Any, Literal

import anyio
import pytest
from pydantic import BaseModel

from llmflow import (
    Budget,
    Bulkhead,
    Cache,
    CircuitBreaker,
    Deadline,
    Fallback,
    Hedge,
    Model,
    Price,
    ProviderUnavailable,
    RateLimit,
    RateLimited,
    Repair,
    Reply,
    Retry,
    Runtime,
    Step,
    Timeout,
    Usage,
    prompt,
    step,
)

pytestmark = pytest.mark.anyio

GOOD = '{"category":"bug","score":0.5}'
USAGE = Usage(input_tokens=20, output_tokens=10)
PRICE = Price(input=1, output=2)


class Ticket(BaseModel):
    category: Literal["bug", "billing"]
    score: float


class Provider:
    """Fails, answers nonsense, is slow and then answers, in this order for each question."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}
        self.sent = 0

    async def __call__(self, request: Any) -> Reply:
        question = request.messages[-1].content if not request.turns else "again"
        self.asked[question] = count = self.asked.get(question, 0) + 1
        self.sent += 1
        await anyio.sleep(0.01)
        if question != "again" and count == 1:
            raise ProviderUnavailable("503", status=503)
        if question != "again" and count == 2:
            raise RateLimited("429", status=429, retry_after=0.5)
        await anyio.sleep(3 if self.sent % 3 == 0 else 0.01)
        text = GOOD if question == "again" or count > 3 else "I would rather not say."
        return Reply(text=text, usage=USAGE)


class Interrupted:
    """Awaits something and calls `interrupt` at the n-th time that it suspends."""

    def __init__(self, awaited: Awaitable[Any], n: int, interrupt: Callable[[], object]) -> None:
        self._awaited = awaited
        self._left = n
        self._interrupt = interrupt
        self.done = False

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._awaited.__await__()
        send: Callable[[Any], Any] = inner.send
        value: Any = None
        while True:
            try:
                trap = send(value)
            except StopIteration as stop:
                self.done = True
                return stop.value
            self._left -= 1
            if self._left == 0:
                self._interrupt()
            try:
                value = yield trap
                send = inner.send
            except BaseException as exc:  # noqa: BLE001  # whatever is thrown in goes to where it belongs
                value = exc
                send = inner.throw


def every_policy(main: Model, spare: Model) -> tuple[Any, ...]:
    return (
        Retry(4, wait_initial=0.2),
        Repair(2),
        Timeout(10),
        Deadline(100),
        Fallback(spare),
        Cache("1h"),
        Budget(usd="1", calls=100, per="total"),
        RateLimit(requests=2, tokens=100_000, per=1),
        CircuitBreaker(min_calls=50),
        Hedge(after=1),
        Bulkhead(2),
    )


def step_under_every_policy(provider: Provider) -> Step[[str], Ticket]:
    main = Model("fake/main", handler=provider, price=PRICE)
    spare = Model("fake/spare", handler=provider, price=PRICE)

    @step(main, *every_policy(main, spare))
    def triage(message: str) -> Ticket:
        return prompt(f"Classify {message}")

    return triage


def held(runtime: Runtime) -> dict[str, object]:
    """Return what policies say is still held: reservations, places, waiters, probes, flights."""
    names = (
        "reserved",
        "reserved_usd",
        "reserved_tokens",
        "reserved_calls",
        "waiting",
        "in_use",
        "probing",
        "in_flight",
    )
    return {
        f"{state.kind} {state.name} {name}": value
        for state in runtime.stats().states
        for name, value in state.values.items()
        if name in names and value
    }


async def test_r8_a_call_cancelled_at_any_await_gives_everything_back(runtime: Runtime) -> None:
    """R8, B4, C3, K1: cancel at the first, second, third... suspension until a call gets through uncancelled."""
    triage = step_under_every_policy(Provider())

    reached = 0
    for n in range(1, 400):
        with anyio.CancelScope() as scope:
            call = Interrupted(triage(f"message {n}"), n, scope.cancel)
            await call

        assert {} == held(runtime), f"after a cancellation at suspension {n}"
        if call.done:
            reached = n
            break

    assert reached >= 8  # the more awaits are met, the more is proved
    assert Ticket(category="bug", score=0.5) == await triage("the last one")


async def test_r8_a_call_cancelled_in_a_crowd_gives_its_turn_to_the_others(runtime: Runtime) -> None:
    """Wherever one call is cancelled, those that stand in the same queues and flights get their answers."""
    triage = step_under_every_policy(Provider())

    for n in range(1, 12):
        values: list[Ticket] = []

        async def ask(message: str, values: list[Ticket] = values) -> None:
            values.append(await triage(message))

        async with anyio.create_task_group() as group:
            for number in (0, 0, 1):  # two of them ask what the cancelled one asks
                group.start_soon(ask, f"crowd {n} {number}")
            with anyio.CancelScope() as scope:
                await Interrupted(triage(f"crowd {n} 0"), n, scope.cancel)

        assert ([Ticket(category="bug", score=0.5)] * 3, {}) == (values, held(runtime))


async def test_r8_many_calls_cancelled_together_give_everything_back(runtime: Runtime) -> None:
    """Cancelled as a crowd, with queues in front of every limit."""
    triage = step_under_every_policy(Provider())

    for seconds in (0.005, 0.3, 0.9, 1.7, 2.5):
        with anyio.move_on_after(seconds):
            await triage.map([f"{seconds} {number % 7}" for number in range(30)], concurrency=30)

        assert {} == held(runtime)

    assert Ticket(category="bug", score=0.5) == await triage("the last one")


async def test_every_request_is_paid_recorded_and_counted_once(runtime: Runtime) -> None:
    """The record, the budget and the ledger agree on what a call of many requests took."""
    provider = Provider()
    triage = step_under_every_policy(provider)

    result = await triage.run("once")
    again = await triage.run("once")

    assert provider.sent == len(result.attempts)
    assert (Decimal(0), True, 0) == (again.cost_usd, again.cached, len(again.attempts))
    assert provider.sent == len([row for row in runtime.ledger.rows() if row.kind == "attempt"])
