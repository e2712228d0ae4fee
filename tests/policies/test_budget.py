"""Budget: nothing is sent that cannot be paid for, and whatever becomes of a request is settled once."""

from __future__ import annotations

import asyncio
import gc
import threading
from decimal import Decimal
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import llmflow
from llmflow import (
    BadRequest,
    Band,
    Budget,
    BudgetExceeded,
    BudgetTooSmallWarning,
    Bulkhead,
    Deadline,
    DeadlineExceeded,
    DefinitionError,
    Fallback,
    FallbackExhausted,
    Hedge,
    InvalidOutput,
    Model,
    Price,
    ProviderTimeout,
    ProviderUnavailable,
    QueueFull,
    Repair,
    Reply,
    Retry,
    Runtime,
    Timeout,
    UnpricedModelWarning,
    Usage,
    flow,
    gather,
    hookimpl,
    prompt,
    step,
)
from llmflow.backend import monotonic
from llmflow.messages import Sent
from llmflow.policies._fund import Fund
from llmflow.testing._scripted import after, hang, pieces, scripted

pytestmark = pytest.mark.anyio

CENT = Price(input=0, output=2.5)
"""With `max_tokens=4000` a request costs a cent at worst."""
WHOLE = Usage(input_tokens=10, output_tokens=4000)
HALF = Usage(input_tokens=10, output_tokens=2000)
DAY = 86_400.0


def paid(*replies, usage=WHOLE, **options):
    """A model whose requests cost a cent at worst, and with `usage=WHOLE` a cent."""
    return scripted(*replies, price=CENT, usage=usage, **options)


@pytest.fixture
def asking(asking) -> Any:
    """Steps whose answers have 4,000 tokens at most."""

    def make(*arguments, **options):
        return asking(*arguments, **{"params": {"max_tokens": 4000}, **options})

    return make


def state(runtime, name=None):
    """Return what the budget of this name, or the only one, says about itself."""
    found = [one for one in runtime.stats().states if one.kind == "budget" and name in (None, one.name)]
    assert len(found) == 1, found
    return found[0].values


def spent(runtime, name=None):
    values = state(runtime, name)
    assert 0 == values["waiting"] == values["usd_reserved"]
    return values["usd_settled"]


async def all_of(ask, count, word="x"):
    """Make so many calls at once; return the answers and the refusals."""
    answers, refused = [], []

    async def call():
        try:
            answers.append(await ask(word))
        except BudgetExceeded as error:
            refused.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(call)
    return answers, refused


class WallClock:
    """A clock whose date a test sets."""

    def __init__(self, now: float) -> None:
        self.now = now

    def monotonic(self) -> float:
        return monotonic()

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float, /) -> None:
        await anyio.sleep(seconds)


# -- never more than the cap -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("usage", "requests"), [(WHOLE, 10), (HALF, 19)])
async def test_b1_a_thousand_calls_do_not_overspend_ten_cents(usage, requests, asking, runtime):
    """Fault 63: 1,000 concurrent calls of up to $0.01 against $0.10; those that cost less leave room for more."""
    model = paid(default=after(1, "fine"), usage=usage)
    ask = asking(model, Budget("0.10", per="total"), Bulkhead(1000))

    answers, refused = await all_of(ask, 1000)

    assert (requests, requests, 1000 - requests) == (len(model.requests), len(answers), len(refused))
    assert model.peak <= 10
    assert all(error.attempts == () for error in refused)
    assert spent(runtime) <= Decimal("0.10")


async def test_b2_reasks_are_charged(asking, runtime):
    """Twenty callers whose answers are never valid: at most ten requests of a cent, whatever they would re-ask."""
    model = paid(default="not a number")
    ask = asking(model, Budget("0.10", per="total"), Repair(5), returns=int)
    failed = []

    async def call():
        try:
            await ask("x")
        except (BudgetExceeded, InvalidOutput) as error:
            failed.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(call)

    assert (10, 20) == (len(model.requests), len(failed))


async def test_b2_a_cap_per_call_stops_endless_reasks(asking):
    """Fault 64: one call with a hundred re-asks ends when its own dollars do."""
    model = paid(default="not a number")

    with pytest.raises(BudgetExceeded):
        await asking(model, Budget("0.03", per="call"), Repair(100), returns=int)("x")

    assert 3 == len(model.requests)


async def test_b2_retries_and_fallbacks_are_charged(asking, runtime):
    """A retry after a broken connection pays again, and so does the next model."""
    first = paid(default=lambda _: _raise(ProviderUnavailable("connection broke")))
    second = paid("fine", name="scripted/second")

    await asking(first, Fallback(second), Budget("1", per="total"), Retry(3, wait_initial=0.01))("x")

    assert Decimal("0.04") == spent(runtime)


async def test_b3_a_model_without_a_price_is_refused_when_bound(asking):
    """B3: dollars of unknown requests cannot be capped; the error names step, model and the ways out."""
    model = scripted(default="fine")

    with pytest.raises(DefinitionError, match=r"step 'pricey'.*'scripted/model'") as caught:
        await asking(model, Budget("0.10"), name="pricey")("x")

    assert [] == model.requests
    assert all(way in caught.value.__notes__[0] for way in ("Runtime(prices=", "Model(", "on_unpriced='allow'"))


async def test_b3_an_unpriced_model_that_is_allowed_counts_nothing_and_is_told_once(asking, runtime):
    """`on_unpriced="allow"`: the warning comes once for each model, the other caps hold."""
    model = scripted(default="fine", usage=WHOLE)
    budget = Budget("0.10", calls=2, per="total", name="b", on_unpriced="allow")

    with pytest.warns(UnpricedModelWarning, match="'scripted/model'"):
        await asking(model, budget, name="one")("x")
    await asking(model, budget, name="two")("x")
    with pytest.raises(BudgetExceeded):
        await asking(model, budget, name="two")("x")

    assert (Decimal(0), 2) == (spent(runtime), state(runtime)["calls_settled"])


async def test_a_budget_in_tokens_needs_no_price(asking, runtime):
    """Tokens of prompts and answers together."""
    model = scripted(default="fine", usage=Usage(input_tokens=50, output_tokens=100))
    ask = asking(model, Budget(tokens=4400, per="total"))

    answers = [await ask("x") for _ in range(3)]
    with pytest.raises(BudgetExceeded, match=r"may take up to 4,0\d\d tokens, 3,950 of 4,400 are left"):
        await ask("x")

    assert (3, 450, 0) == (len(answers), state(runtime)["tokens_settled"], state(runtime)["tokens_reserved"])


async def test_a_budget_in_calls_counts_requests(asking):
    """Each try is one."""
    model = scripted(default=lambda _: _raise(ProviderUnavailable("503", status=503)))

    with pytest.raises(BudgetExceeded, match="this request is one more, 0 of 2 calls are left") as caught:
        await asking(model, Budget(calls=2), Retry(5))("x")

    assert (2, 2) == (len(model.requests), len(caught.value.attempts))


async def test_max_tokens_is_reserved_and_its_lack_is_not_the_default(asking):
    """A step that allows longer answers reserves more; options of the model that say otherwise count too."""
    model = paid(default="fine")
    model.options = {"max_output_tokens": 8000, "n": 2}

    with pytest.warns(BudgetTooSmallWarning, match="may cost \\$0.04"), pytest.raises(BudgetExceeded):
        await asking(model, Budget("0.03"))("x")


# -- what is said ------------------------------------------------------------------------------------------------------


async def test_the_refusal_says_who_what_and_how_much(asking):
    """The message, the attributes and the hint; nothing was sent."""
    model = paid(default="fine")
    ask = asking(model, Budget("0.016", per="total", name="monthly"))
    await ask("x")

    with pytest.raises(BudgetExceeded) as caught:
        await ask("x")

    error = caught.value
    assert "budget 'monthly' (in total): this request may cost up to $0.01, $0.006 of $0.016 is left" == error.message
    assert ("monthly", "usd", Decimal("0.01"), Decimal("0.006")) == (
        error.budget, error.unit, error.asked, error.left,
    )  # fmt: skip
    assert (False, (), 1) == (error.sent, error.attempts, len(model.requests))
    assert any("max_tokens" in note for note in error.__notes__)


async def test_a_budget_that_can_never_pay_warns_when_bound(asking):
    """Not even an empty prompt fits: said before the first call, naming step, budget, model and sums."""
    model = paid(default="fine")

    with (
        pytest.warns(BudgetTooSmallWarning, match=r"step 'small': budget 'step:small' \(per run\) of \$0.005 .*\$0.01"),
        pytest.raises(BudgetExceeded),
    ):
        await asking(model, Budget("0.005"), name="small")("x")
    with pytest.warns(BudgetTooSmallWarning, match=r"of 100 tokens .*may have 4,000"), pytest.raises(BudgetExceeded):
        await asking(model, Budget(tokens=100), name="smaller")("x")


async def test_a_fallback_that_can_be_paid_for_is_asked(asking):
    """BudgetExceeded goes on to a model whose worst case fits; when none does the last error holds each."""
    dear = scripted("dear", price=Price(input=0, output=25), name="scripted/dear", usage=WHOLE)
    cheap = paid(default="cheap", name="scripted/cheap")
    ask = asking(dear, Fallback(cheap), Budget("0.11", per="total"))
    assert "dear" == await ask("x")
    assert "cheap" == await ask("x")

    with pytest.raises(FallbackExhausted) as caught:
        await ask("x")

    assert [BudgetExceeded] * 2 == [type(cause) for cause in caught.value.causes]
    assert (1, 1) == (len(dear.requests), len(cheap.requests))


async def test_a_refusal_is_neither_retried_nor_asked_again(asking):
    """The error table: no retry, no re-ask."""
    model = paid(default="1")
    ask = asking(model, Budget("0.01", per="total"), Retry(5), Repair(5), returns=int)
    await ask("x")

    with pytest.raises(BudgetExceeded):
        await ask("x")

    assert 1 == len(model.requests)


# -- what is charged ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "cents"),
    [
        (HALF, "0.005"),
        (Usage(input_tokens=0, output_tokens=0), "0"),
        (None, "0.01"),
        (Usage(input_tokens=10), "0.01"),
        (Usage(input_tokens=-10, output_tokens=5), "0.01"),
        (Usage(input_tokens=10, output_tokens=-5), "0.01"),
        (Usage(input_tokens=10, output_tokens=5, cached_tokens=100), "0.01"),
        (Usage(input_tokens="many", output_tokens=5), "0.01"),  # type: ignore[arg-type]
        (Usage(input_tokens=10, output_tokens=8000), "0.02"),
    ],
    ids=str,
)
async def test_v6_what_the_provider_counted_is_charged_and_junk_is_the_reservation(usage, cents, asking, runtime):
    """Fault 40: no usage, half of one, or nonsense costs the worst case, and is never a refund."""
    await asking(paid("fine", usage=usage), Budget("1", per="total"))("x")

    assert Decimal(cents) == spent(runtime)


@pytest.mark.parametrize(
    ("failure", "cents", "calls"),
    [
        (BadRequest("400", status=400), "0", 1),
        (ProviderUnavailable("503", status=503, retryable=False), "0", 1),
        (ProviderUnavailable("connection broke", retryable=False), "0.01", 1),
        (KeyError("a handler's own"), "0.01", 1),
    ],
    ids=lambda value: str(value),
)
async def test_an_error_reply_is_free_and_a_lost_one_costs_the_reservation(failure, cents, calls, asking, runtime):
    """What is answered with a status is not billed; what broke may have been."""
    with pytest.raises(type(failure)):
        await asking(paid(failure), Budget("1", calls=10, per="total"))("x")

    assert (Decimal(cents), calls) == (spent(runtime), state(runtime)["calls_settled"])


async def test_what_never_reached_the_provider_costs_nothing(asking, runtime):
    """An error that says so, and a refusal further in."""
    unreached = ProviderUnavailable("no connection", retryable=False)
    unreached.sent = False
    with pytest.raises(ProviderUnavailable):
        await asking(paid(unreached), Budget("1", calls=9, per="total", name="b"), name="one")("x")
    model = paid(default=hang())
    ask = asking(model, Budget("1", calls=9, per="total", name="b"), Bulkhead(1, queue=0), name="two")

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "x")
        await anyio.sleep(0.1)
        with pytest.raises(QueueFull):
            await ask("x")
        values = state(runtime)
        group.cancel_scope.cancel()

    assert (Decimal(0), 0) == (values["usd_settled"], values["calls_settled"])
    assert (Decimal("0.01"), 1) == (values["usd_reserved"], values["calls_reserved"])


async def test_a_request_cancelled_in_flight_is_charged_and_one_in_line_is_not(asking, runtime):
    """Fault 59: the provider may bill what it had begun; what waited in the bulkhead it never saw."""
    ask = asking(paid(default=hang()), Budget("1", calls=9, per="total"), Bulkhead(1))

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "x")
        await anyio.sleep(0.1)
        group.start_soon(ask, "x")
        await anyio.sleep(0.1)
        assert 2 == state(runtime)["calls_reserved"]
        group.cancel_scope.cancel()

    assert (Decimal("0.01"), 1) == (spent(runtime), state(runtime)["calls_settled"])


async def test_a_timeout_costs_the_reservation(asking, runtime):
    """The answer may have been on its way."""
    with pytest.raises(ProviderTimeout):
        await asking(paid(default=hang()), Budget("1", per="total"), Timeout(5), Retry.off)("x")

    assert Decimal("0.01") == spent(runtime)


async def test_whether_a_hedge_was_sent_is_its_own_affair(asking, runtime):
    """Two requests of one call run side by side; each is charged by what became of itself."""

    class Twice:
        band = Band.HEDGE

        def wrap(self, proceed, site, /):
            async def twice(request):
                from dataclasses import replace

                refused = []

                async def second():
                    try:
                        await proceed(replace(request, sent=Sent(), hedge=True))
                    except QueueFull as error:
                        refused.append(error)

                async with anyio.create_task_group() as group:
                    group.start_soon(second)
                    reply = await proceed(replace(request, sent=Sent()))
                assert len(refused) == 1
                return reply

            return twice

    ask = asking(paid(default=after(1, "fine"), usage=HALF), Twice(), Budget("1", per="total"), Bulkhead(1, queue=0))

    assert "fine" == await ask("x")
    assert Decimal("0.005") == spent(runtime)


async def test_the_loser_of_a_hedge_costs_the_reservation(asking, runtime):
    """B2: both were sent; the one that was overtaken may be billed."""
    model = paid(after(9, "slow"), "fast", usage=HALF)

    assert "fast" == await asking(model, Hedge(after=1), Budget("1", calls=9, per="total"))("x")
    assert (Decimal("0.015"), 2) == (spent(runtime), state(runtime)["calls_settled"])


async def test_a_hedge_that_cannot_be_paid_for_is_not_sent(asking, runtime):
    """The first request goes on alone."""
    model = paid(after(9, "slow"), "fast", usage=HALF)

    assert "slow" == await asking(model, Hedge(after=1), Budget("0.015", per="total"))("x")
    assert (1, Decimal("0.005")) == (len(model.requests), spent(runtime))


async def test_a_stream_that_is_left_half_way_costs_the_reservation(asking, runtime):
    """The provider may have written, and billed, the rest."""
    model = paid(default=pieces("one ", after(1, "two "), after(1, "three")), usage=HALF)
    ask = asking(model, Budget("1", per="total"))

    async with ask.stream("x") as whole:
        async for _ in whole:
            pass
    assert Decimal("0.005") == spent(runtime)
    async with ask.stream("x") as left:
        async for _ in left:
            break
    assert Decimal("0.015") == spent(runtime)


async def test_a_hedge_does_not_wait(asking, runtime):
    """It is refused when it does not fit now, though it would later, and nobody is told."""

    class AsHedge:
        band = Band.HEDGE

        def wrap(self, proceed, site, /):
            async def hedge(request):
                from dataclasses import replace

                return await proceed(replace(request, hedge=True))

            return hedge

    model, budget = paid(default=after(1, "fine"), usage=HALF), Budget("0.015", per="total", name="b")
    ask, hedge = asking(model, budget, name="one"), asking(model, budget, AsHedge(), name="two")

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "x")
        await anyio.sleep(0.1)
        with pytest.raises(BudgetExceeded, match="a hedge does not wait"):
            await hedge("x")
        group.start_soon(ask, "x")  # waits
        await anyio.sleep(0.1)
        with pytest.raises(BudgetExceeded, match="a hedge does not wait"):
            await hedge("x")

    assert 2 == len(model.requests)


async def test_cancelled_at_every_await_nothing_stays_reserved(asking, runtime):
    """R8: whatever the instant, afterwards nothing is held, nobody waits, and what was sent is counted once."""

    async def answer(_):
        for _ in range(3):
            await checkpoint()
        return "fine"

    model = paid(default=answer, usage=HALF)
    ask = asking(model, Budget("10", calls=1000, per="total"), Budget("10", calls=1000, per="day"), Bulkhead(1))

    for awaits in range(40):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(ask, "x")
            for _ in range(awaits):
                await checkpoint()
            group.cancel_scope.cancel()

    values = [one.values for one in runtime.stats().states if one.kind == "budget"]
    assert [(0, 0, len(model.requests))] * 2 == [
        (one["calls_reserved"], one["waiting"], one["calls_settled"]) for one in values
    ]
    assert len(model.requests) > 40


async def test_cancelled_at_every_await_while_waiting_for_a_budget(asking, runtime):
    """One request at a time fits: who is cancelled in the line, or in the instant it is let in, holds nothing up."""
    model = paid(default=after(1, "fine"), usage=Usage(input_tokens=0, output_tokens=0))
    ask = asking(model, Budget("0.01", per="total"))

    for awaits in range(25):
        async with anyio.create_task_group() as group:
            group.start_soon(ask, "x")
            await anyio.sleep(0.9999)
            for _ in range(4):
                group.start_soon(ask, "x")
            await anyio.sleep(0.0001)
            for _ in range(awaits):
                await checkpoint()
            group.cancel_scope.cancel()
        values = state(runtime)
        assert (0, 0) == (values["usd_reserved"], values["waiting"])
        if values["usd_settled"] == Decimal("0.01"):  # one was cancelled in flight, and charged
            ask = asking(model, Budget("0.01", per="total"), name=f"s{awaits}")
            runtime._shared.clear()


async def test_a_listener_that_breaks_changes_no_account(asking):
    """B4: settled once though every hook of a plugin raises."""

    class Broken:
        @hookimpl
        def llmflow_attempt_started(self, event):
            raise RuntimeError("broken")

        llmflow_attempt_finished = llmflow_budget_refused = hookimpl(lambda self, event: 1 / 0)

    async with Runtime(plugins=[Broken()]) as runtime:
        ask = asking(paid(default="fine"), Budget("0.01", per="total"))
        await ask("x")
        with pytest.raises(BudgetExceeded):
            await ask("x")

        assert Decimal("0.01") == spent(runtime)


async def test_a_policy_that_breaks_further_in_gives_nothing_away(asking, runtime):
    """B4: an exception before the request is sent costs nothing, one after it the reservation."""

    class Breaks:
        band = Band.RATE

        def __init__(self, *, late: bool) -> None:
            self.late = late

        def wrap(self, proceed, site, /):
            async def breaks(request):
                if self.late:
                    await proceed(request)
                raise ZeroDivisionError

            return breaks

    budget = Budget("1", per="total", name="b")
    for late, cents in ((False, "0"), (True, "0.01")):
        with pytest.raises(ZeroDivisionError):
            await asking(paid("fine", usage=HALF), budget, Breaks(late=late), name=f"late-{late}")("x")
        assert Decimal(cents) == spent(runtime)


async def test_a_policy_that_returns_no_reply_is_charged_the_reservation(asking, runtime):
    """B4: what fails while the usage is read is settled too."""

    class Wrong:
        band = Band.RATE

        def wrap(self, proceed, site, /):
            async def wrong(request):
                await proceed(request)
                return "not a reply"

            return wrong

    with pytest.raises(AttributeError):
        await asking(paid("fine", usage=HALF), Budget("1", per="total"), Wrong())("x")

    assert Decimal("0.01") == spent(runtime)


def test_a_coroutine_that_is_thrown_away_is_settled(runtime):
    """The garbage collector closes it, perhaps in the middle of another request's accounting."""
    model = paid(default=hang())

    @step(model, Budget("1", per="total"), params={"max_tokens": 4000})
    def ask(word: str) -> str:
        return prompt(word)

    loop = asyncio.new_event_loop()
    task = loop.create_task(_awaited(ask))
    loop.run_until_complete(asyncio.sleep(0.01))
    task._log_destroy_pending = False
    coroutine = task.get_coro()
    assert Decimal("0.01") == state(runtime)["usd_reserved"]

    coroutine.close()
    del task
    gc.collect()
    loop.close()

    assert Decimal("0.01") == spent(runtime)


async def _awaited(ask):
    return await ask("x")


# -- waiting -----------------------------------------------------------------------------------------------------------


async def test_who_fits_only_later_waits_first_come_first_served(asking, runtime):
    """Requests of one pot are served in the order they came, and the wait is recorded with the call."""
    order = []
    model = paid(default=lambda request: order.append(request.messages[0].content) or after(1, "fine"), usage=HALF)
    ask = asking(model, Budget("0.07", per="total"))

    async with anyio.create_task_group() as group:
        for n in range(13):
            group.start_soon(ask, f"{n:02}")
            await anyio.sleep(0.001)

    assert sorted(order) == order
    assert (13, Decimal("0.065")) == (len(order), spent(runtime))


async def test_the_wait_is_recorded(asking):
    """`CallFinished.waited_s`, and so the statistics, know how long a budget held a call up."""
    waits = []

    class Watch:
        @hookimpl
        def llmflow_call_finished(self, event):
            waits.append(round(event.waited_s, 3))

    async with Runtime(plugins=[Watch()]):
        ask = asking(paid(default=after(2, "fine"), usage=HALF), Budget("0.015", per="total"))
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(ask, "x")

    assert [0, 2] == waits


async def test_a_small_hedge_does_not_pass_those_who_wait(asking):
    """It would fit, but it would take from who came before it."""

    class AsHedge:
        band = Band.HEDGE

        def wrap(self, proceed, site, /):
            from dataclasses import replace

            return lambda request: proceed(replace(request, hedge=True))

    model, budget = paid(default=after(1, "fine"), usage=HALF), Budget("0.015", per="total", name="b")
    ask, hedge = (
        asking(model, budget, name="one"),
        asking(model, budget, AsHedge(), name="two", params={"max_tokens": 9}),
    )

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "x")
        await anyio.sleep(0.1)
        group.start_soon(ask, "x")  # waits
        await anyio.sleep(0.1)
        with pytest.raises(BudgetExceeded, match="others wait for it already") as caught:
            await hedge("x")
        group.cancel_scope.cancel()

    assert ("b", None) == (caught.value.budget, caught.value.unit)


async def test_one_that_can_never_fit_does_not_wait(asking, now):
    """Refused at once though others are under way: what they may give back is not enough."""
    model = paid(default=after(5, "fine"), usage=HALF)
    budget = Budget("0.012", per="total", name="b")
    small, large = asking(model, budget, name="small"), asking(model, budget, name="large", params={"max_tokens": 4801})
    with pytest.warns(BudgetTooSmallWarning), pytest.raises(BudgetExceeded):
        await large("x")

    async with anyio.create_task_group() as group:
        group.start_soon(small, "x")
        await anyio.sleep(0.1)
        started = now()
        with pytest.raises(BudgetExceeded, match=r"\$0.0120025, \$0.012 of \$0.012 is left"):
            await large("x")
        assert started == now()


async def test_who_waits_is_refused_as_soon_as_it_cannot_fit_any_more(asking, now):
    """The cent it waited for is spent: it learns so in that instant."""
    model = paid(default=after(3, "fine"))
    ask = asking(model, Budget("0.01", per="total"))
    started = now()

    answers, refused = await all_of(ask, 5)

    assert (["fine"], 4, started + 3) == (answers, len(refused), pytest.approx(now()))


async def test_the_wait_ends_with_the_deadline(asking, now, runtime):
    """In front of a fallback it ends with the model's share, as the wait in a bulkhead does."""
    busy, free = paid(default=hang()), scripted(default="free", price=Price(input=0, output=0), name="scripted/free")
    budget = Budget("0.01", per="total", name="b")
    holds, ask = (
        asking(busy, budget, Deadline.off, Timeout(1000)),
        asking(busy, budget, Fallback(free), Deadline(20), name="s"),
    )

    async with anyio.create_task_group() as group:
        group.start_soon(holds, "x")
        await anyio.sleep(0.1)
        started = now()
        assert "free" == await ask("x")
        assert started + 10 == pytest.approx(now())
        assert 0 == state(runtime)["waiting"]
        group.cancel_scope.cancel()


async def test_a_wait_for_the_whole_deadline_says_what_for(asking):
    """The call's own error is its deadline; behind it stands what it waited for, and that nothing was sent."""
    ask = asking(paid(default=hang()), Budget("0.01", per="total"), Timeout(100), Deadline(100))

    async with anyio.create_task_group() as group:
        group.start_soon(ask.with_(Deadline.off, Timeout(1000)), "x")
        await anyio.sleep(0.1)
        with pytest.raises(DeadlineExceeded) as caught:
            await ask("x")
        group.cancel_scope.cancel()

    cause = caught.value.__cause__
    assert isinstance(cause, ProviderTimeout)
    assert "waited for what others had reserved in a budget" in cause.message
    assert (False, True, ()) == (cause.sent, cause.cut, caught.value.attempts)


async def test_two_budgets_do_not_deadlock_each_other(asking, runtime):
    """Steps that declare the same two in both orders: each holds both or none."""
    model = paid(default=after(1, "fine"), usage=Usage(input_tokens=1, output_tokens=0))
    a, b = Budget("0.01", per="total", name="a"), Budget("0.01", per="total", name="b")
    one, other = asking(model, a, b, name="one"), asking(model, b, a, name="other")

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(one, "x")
            group.start_soon(other, "x")

    assert (20, 1) == (len(model.requests), model.peak)
    assert [Decimal(0)] * 2 == [spent(runtime, "a"), spent(runtime, "b")]


async def test_requests_without_a_common_pot_do_not_wait_for_each_other(asking):
    """The line of one tenant holds up nobody else."""
    model = paid(default=after(1, "fine"), usage=HALF)
    ask = asking(model, Budget("0.015", per="total", key="tenant"))
    served = []

    async def call(tenant):
        with llmflow.context(tenant=tenant):
            await ask("x")
        served.append((tenant, round(anyio.current_time() - started)))

    started = anyio.current_time()
    async with anyio.create_task_group() as group:
        for tenant in ("a", "a", "b"):
            group.start_soon(call, tenant)

    assert [("a", 1), ("a", 2), ("b", 1)] == sorted(served)


async def test_sync_in_a_running_loop_does_not_wait_for_what_that_loop_holds(asking):
    """It would wait for ever; it fails at once and names `await`."""
    ask = asking(paid(default=after(1, "fine"), usage=HALF), Budget("0.015", per="total"))

    async with anyio.create_task_group() as group:
        group.start_soon(ask, "x")
        await anyio.sleep(0.1)
        with pytest.raises(BudgetExceeded) as caught:
            ask.sync("x")

    assert any("await" in note for note in caught.value.__notes__)


async def test_sync_in_a_running_loop_is_told_when_nothing_is_left(asking):
    """Then `await` would not help, and is not named."""
    ask = asking(paid(default="fine"), Budget("0.01", per="total"))
    await ask("x")

    with pytest.raises(BudgetExceeded, match=r"\$0.00 of \$0.01 is left") as caught:
        ask.sync("x")

    assert not any("await" in note for note in caught.value.__notes__)


# -- which pot ---------------------------------------------------------------------------------------------------------


async def test_all_budgets_on_the_way_hold_together(asking):
    """Step, flow and runtime: the tightest decides, and a request that one refuses reserves on none."""
    model = paid(default="fine")
    async with Runtime(policies=[Budget("0.05", per="total", name="all")]) as runtime:
        ask = asking(model, Budget("0.02", per="total"), name="inner")

        @flow(Budget("0.03", per="total"))
        async def outer(word: str) -> str:
            return await ask(word)

        await outer("x")
        await outer("x")
        with pytest.raises(BudgetExceeded, match="'step:inner'"):
            await outer("x")

        assert [Decimal("0.02")] * 3 == [spent(runtime, name) for name in ("all", "step:inner", "flow:outer")]


async def test_budgets_of_plugins_are_reserved_together_with_the_others(asking):
    """A budget that a plugin contributes cannot deadlock with one of the step: they are one layer."""

    class Contributes:
        @hookimpl
        def llmflow_policies(self, step):
            return [Budget("0.01", per="total", name="a" if step == "one" else "b")]

    model = paid(default=after(1, "fine"), usage=Usage(input_tokens=1, output_tokens=0))
    async with Runtime(plugins=[Contributes()]) as runtime:
        one = asking(model, Budget("0.01", per="total", name="b"), name="one")
        other = asking(model, Budget("0.01", per="total", name="a"), name="other")
        async with anyio.create_task_group() as group:
            for ask in (one, other) * 5:
                group.start_soon(ask, "x")

        assert (10, Decimal(0), Decimal(0)) == (len(model.requests), spent(runtime, "a"), spent(runtime, "b"))


async def test_one_budget_met_twice_is_paid_once(asking):
    """The same name on step and runtime is one pot."""
    shared = Budget("0.10", per="total", name="shared")
    async with Runtime(policies=[shared]) as runtime:
        await asking(paid("fine"), shared)("x")

        assert Decimal("0.01") == spent(runtime)


async def test_every_period_at_once(asking, runtime):
    """Pots of the call, the run, the day and for ever are reserved together; those of runs are not in the statistics."""
    budgets = [Budget("0.02", calls=9, per=per) for per in ("call", "run", "day", "month", "total")]
    ask = asking(paid(default="fine"), *budgets)

    assert ["fine", "fine"] == [await ask("x"), await ask("x")]
    states = [one.values for one in runtime.stats().states if one.kind == "budget"]
    assert [("day", 2), ("month", 2), ("total", 2)] == sorted((one["per"], one["calls_settled"]) for one in states)


async def test_a_budget_in_calls_alone_counts_nothing_else(asking, runtime):
    """No price, no estimate."""
    ask = asking(scripted(default="fine"), Budget(calls=2, per="total"))

    assert ["fine", "fine"] == [await ask("x"), await ask("x")]
    assert {"per": "total", "waiting": 0, "calls": 2, "calls_settled": 2, "calls_reserved": 0} == state(runtime)


async def test_a_run_is_the_outermost_call(asking):
    """Steps of one run share its pot, the next run has another; a bare step is a run of one."""
    model = paid(default="fine")
    ask = asking(model)

    @flow(Budget("0.02"))
    async def twice(word: str) -> str:
        first, second = await gather(ask(word), ask(word))
        return first

    @flow(Budget("0.02"))
    async def thrice(word: str) -> str:
        first, second, third = await gather(ask(word), ask(word), ask(word))
        return first

    for _ in range(3):
        await twice("x")
    with pytest.raises(BudgetExceeded, match=r"'flow:thrice' \(per run\)"):
        await thrice("x")
    alone = ask.with_(Budget("0.01"))
    for _ in range(3):
        await alone("x")

    assert 6 + 2 + 3 == len(model.requests)


async def test_all_items_of_a_map_belong_to_one_run(asking):
    """And with `per="call"` each item has its own."""
    model = paid(default="fine")

    outcomes = await asking(model, Budget("0.03")).map(["x"] * 10, on_error="collect")
    assert 3 == sum(one.ok for one in outcomes) == len(model.requests)

    outcomes = await asking(model, Budget("0.01", per="call")).map(["x"] * 10, on_error="collect")
    assert all(one.ok for one in outcomes)


async def test_keys_have_pots_of_their_own(asking, runtime):
    """`"tenant"` is that of the context; calls without one share a pot."""
    ask = asking(paid(default="fine"), Budget("0.01", per="total", key="tenant"))
    for tenant in ("a", "b", None):
        with llmflow.context(tenant=tenant):
            await ask("x")

    with llmflow.context(tenant="b"), pytest.raises(BudgetExceeded, match=r"\(in total, key 'b'\)"):
        await ask("x")

    assert (3, Decimal("0.03")) == (state(runtime)["keys"], spent(runtime))


@pytest.mark.parametrize("per", ["call", "run", "day", "month", "total"])
async def test_a_key_may_be_a_function_of_the_request(per, asking):
    """For every period."""
    ask = asking(paid(default="fine"), Budget("0.01", per=per, key=lambda request: request.messages[0].content))

    assert ["fine", "fine"] == [await ask("one"), await ask("other")]


async def test_a_key_that_is_no_text_is_refused(asking):
    """Naming the budget, the value and the step; nothing was sent."""
    model = paid(default="fine")
    budget = Budget("0.01", per="total", name="b", key=lambda _: 5)  # type: ignore[arg-type, return-value]

    with pytest.raises(DefinitionError, match=r"'b': key returned 5 for step 's'"):
        await asking(model, budget, name="s")("x")

    assert [] == model.requests


async def test_keys_are_bounded(asking, monkeypatch, runtime):
    """To forget a key would let it spend again, so one too many is refused; days that are over are forgotten."""
    monkeypatch.setattr("llmflow.policies._fund.MOST_KEYS", 20)
    monkeypatch.setattr("llmflow.policies._fund._FIRST_SWEEP", 5)
    by_word = {"key": lambda request: request.messages[0].content}
    clock = WallClock(10 * DAY)
    async with Runtime(clock=clock) as runtime:
        total = asking(paid(default="fine"), Budget("1", per="total", name="t", **by_word), name="t")
        for n in range(20):
            await total(str(n))
        with pytest.raises(BudgetExceeded, match="keeps 20 keys already, and 'About 20"):
            await total("20")

        (fund,) = [one for one in runtime._shared.values() if isinstance(one, Fund)]
        assert fund._add("About 1?") is fund._add("About 1?")  # two threads that meet a key at the same time

        daily = asking(paid(default="fine"), Budget("1", per="day", name="d", **by_word), name="d")
        for n in range(100):
            clock.now += DAY / 4
            await daily(str(n))

        assert state(runtime, "d")["keys"] <= 20


@pytest.mark.parametrize(
    ("per", "last", "first", "next_end"),
    [
        ("day", "2026-11-23T23:59:59+00:00", "2026-11-24T00:00:00+00:00", "2026-11-24T23:59:59+00:00"),
        ("month", "2026-12-31T23:59:59+00:00", "2027-01-01T00:00:00+00:00", "2027-01-31T23:59:59+00:00"),
        ("month", "2028-02-29T23:59:59+00:00", "2028-03-01T00:00:00+00:00", "2028-03-31T23:59:59+00:00"),
    ],
)
async def test_days_and_months_begin_at_midnight_utc(per, last, first, next_end, asking):
    """Spent to the last second, fresh in the next, and spent again till the end of that one."""
    clock = WallClock(_seconds(last))
    async with Runtime(clock=clock) as runtime:
        ask = asking(paid(default="fine"), Budget("0.01", per=per))
        for moment in (last, first):
            clock.now = _seconds(moment)
            await ask("x")
            with pytest.raises(BudgetExceeded, match=f"per {per}"):
                await ask("x")
        clock.now = _seconds(next_end)
        with pytest.raises(BudgetExceeded):
            await ask("x")
        clock.now += 1

        assert Decimal(0) == spent(runtime)


async def test_a_clock_set_back_gives_no_second_budget(asking):
    """The day that is spent stays spent when the machine's clock goes back over midnight, and when it is midnight again."""
    clock = WallClock(100 * DAY + 5)
    async with Runtime(clock=clock):
        ask = asking(paid(default="fine"), Budget("0.01", per="day"))
        await ask("x")
        for moment in (100 * DAY - 5, 100 * DAY + 5, 101 * DAY - 1):
            clock.now = moment
            with pytest.raises(BudgetExceeded):
                await ask("x")
        clock.now = 101 * DAY

        assert "fine" == await ask("x")


async def test_a_clock_that_was_wrong_by_days_does_not_end_a_budget_for_days(asking):
    """Set back by more than a day, the spent budget begins anew at the next midnight, not when the wrong day is over."""
    clock = WallClock(100 * DAY + 5)
    async with Runtime(clock=clock):
        ask = asking(paid(default="fine"), Budget("0.01", per="day"))
        await ask("x")
        clock.now = 50 * DAY + 5
        with pytest.raises(BudgetExceeded):
            await ask("x")
        clock.now = 51 * DAY

        assert "fine" == await ask("x")


async def test_who_waits_over_midnight_is_served_by_the_new_day(asking):
    """What was under way is charged to the day it ends in; the one in line then has the rest of that."""
    clock = WallClock(100 * DAY - 1)
    async with Runtime(clock=clock) as runtime:
        ask = asking(paid(default=after(5, "fine")), Budget("0.02", per="day"))
        await ask("x")
        async with anyio.create_task_group() as group:
            group.start_soon(ask, "x")
            await anyio.sleep(0.1)
            with pytest.raises(BudgetExceeded):
                await ask.with_(params={"max_tokens": 4001})("x")
            group.start_soon(ask, "x")
            await anyio.sleep(0.1)
            assert 1 == state(runtime)["waiting"]
            clock.now += 2

        assert Decimal("0.02") == spent(runtime)


async def test_threads_and_their_loops_share_a_budget(runtime):
    """Eight threads, asyncio and trio: $0.10 is ten requests, however they meet."""
    model = paid(default=lambda _: after(0.001, "fine"))

    @step(model, Budget("0.10", per="total"), params={"max_tokens": 4000})
    def ask(word: str) -> str:
        return prompt(word)

    refused = []

    async def work():
        for _ in range(5):
            try:
                await ask("x")
            except BudgetExceeded as error:
                refused.append(error)

    threads = [
        threading.Thread(target=anyio.run, args=(work,), kwargs={"backend": name}) for name in ("asyncio", "trio") * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        await anyio.to_thread.run_sync(thread.join, 30)

    assert (10, 30, Decimal("0.10")) == (len(model.requests), len(refused), spent(runtime))


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "caps nothing"),
        ({"usd": 0}, "usd is 0"),
        ({"usd": -1}, "usd is -1"),
        ({"usd": "a dollar"}, "usd is 'a dollar'"),
        ({"usd": "nan"}, "usd is 'nan'"),
        ({"usd": "Infinity"}, "usd is 'Infinity'"),
        ({"usd": 1e13}, "usd is"),
        ({"usd": "0.0000000001"}, "usd is '0.0000000001'"),
        ({"usd": True}, "usd is True"),
        ({"usd": [1]}, r"usd is \[1\]"),
        ({"tokens": 0}, "tokens is 0"),
        ({"tokens": 1.5}, "tokens is 1.5"),
        ({"calls": -1}, "calls is -1"),
        ({"calls": True}, "calls is True"),
        ({"calls": 1, "per": "week"}, "per is 'week'"),
        ({"calls": 1, "key": "customer"}, "key is 'customer'"),
        ({"calls": 1, "name": ""}, "name is ''"),
        ({"calls": 1, "on_unpriced": "warn"}, "on_unpriced is 'warn'"),
    ],
    ids=str,
)
def test_absurd_options_are_refused(options, said):
    """Fault 87: where they are written, naming the option and the value."""
    with pytest.raises(DefinitionError, match=f"Budget.*{said}"):
        Budget(**options)


@pytest.mark.parametrize("usd", ["0.10", 0.1, Decimal("0.1"), "0.1000"])
def test_dollars_are_read_as_they_are_written(usd):
    """A float is the decimal it was written as; equal amounts are equal budgets."""
    assert Budget("0.1") == Budget(usd)
    assert Decimal("0.1") == Budget(usd).usd


async def test_two_that_are_called_the_same_and_differ_are_refused(asking):
    """The first call says so, naming the budget; the same amount written otherwise is the same."""
    model = paid(default="fine")
    await asking(model, Budget("0.10", name="b"), name="one")("x")
    await asking(model, Budget(0.1, name="b"), name="two")("x")

    with pytest.raises(DefinitionError, match="two budgets are called 'b' and differ"):
        await asking(model, Budget("0.20", name="b"), name="three")("x")


async def test_without_a_name_each_place_of_declaration_has_its_own(asking):
    """And one that is declared anew with other options is another one."""
    model = paid(default="fine")
    one, other = (asking(model, Budget("0.01", per="total"), name=name) for name in ("one", "other"))

    assert ["fine"] * 3 == [await one("x"), await other("x"), await one.with_(Budget("0.02", per="total"))("x")]


async def test_a_free_model_costs_nothing_and_says_so_with_its_price(asking, runtime):
    """`Price(input=0, output=0)`: nothing is not unknown."""
    model = Model("local/tiny", handler=_fine, price=Price(input=0, output=0))

    await asking(model, Budget("0.01", per="total"))("x")

    assert Decimal(0) == spent(runtime)


async def _fine(_):
    return Reply(text="fine", usage=WHOLE)


def _raise(error):
    raise error


def _seconds(moment):
    from datetime import datetime

    return datetime.fromisoformat(moment).timestamp()
