"""Every physical request is a row, every answer that took none is a row, and the totals are exact."""

from __future__ import annotations

import threading
from dataclasses import replace
from decimal import Context, Decimal, localcontext

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmflow
from llmflow import (
    BadRequest,
    Cache,
    DefinitionError,
    Hedge,
    Ledger,
    LedgerRow,
    Price,
    ProviderError,
    ProviderUnavailable,
    Reply,
    Retry,
    Runtime,
    Usage,
    prompt,
    step,
)
from llmflow.events import AttemptFinished, CacheHit
from llmflow.observers import Total, _ledger
from llmflow.testing._scripted import after, hang, scripted
from llmflow.testing._time import virtual_backend

pytestmark = pytest.mark.anyio

PRICE = Price(input=1.0, output=2.0, cached_input=0.1)
USAGE = Usage(input_tokens=100, cached_tokens=40, output_tokens=10, reasoning_tokens=4)
COST = 60_000 + 4_000 + 20_000


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    """Both backends, on virtual time."""
    return virtual_backend(request.param)


def asking(model, *policies, name="ask"):
    @step(model, *policies, name=name)
    def ask(word: str) -> int:
        return prompt(word)

    return ask


def attempt(**fields) -> AttemptFinished:
    known = {
        "run_id": "run",
        "call_id": "call",
        "step": "triage",
        "model": "acme/large",
        "number": 1,
        "outcome": "ok",
        "latency_s": 0.5,
        "usage": USAGE,
        "cost_usd": Decimal("0.000084"),
        "prompt_version": "v1:abc",
        "tenant": "acme",
    }
    return AttemptFinished(**(known | fields))


def hit(**fields) -> CacheHit:
    known = {
        "run_id": "run",
        "call_id": "call",
        "step": "triage",
        "model": "acme/large",
        "kind": "hit",
        "saved_usd": Decimal("0.000084"),
        "prompt_version": "v1:abc",
        "tenant": "acme",
    }
    return CacheHit(**(known | fields))


def listened(*events, now=0.0, **options) -> Ledger:
    ledger = Ledger(lambda: now, **options)
    for event in events:
        tell(ledger, event)
    return ledger


def tell(ledger: Ledger, event) -> None:
    if isinstance(event, CacheHit):
        ledger.llmflow_cache_hit(event)
    else:
        ledger.llmflow_attempt_finished(event)


async def test_a_good_call_is_one_row():
    """With everything that is known of it."""
    model = scripted("4", usage=USAGE, price=PRICE)
    ask = asking(model)

    async with Runtime() as runtime:
        with llmflow.context(tenant="acme", tags={"team": "support"}):
            result = await ask.run("x")
        (row,) = runtime.ledger.rows()

    assert (
        LedgerRow(
            time=row.time,
            kind="attempt",
            run_id=result.run_id,
            call_id=row.call_id,
            step="ask",
            model="scripted/model",
            number=1,
            input_tokens=100,
            cached_tokens=40,
            output_tokens=10,
            reasoning_tokens=4,
            cost_nano=COST,
            latency_s=row.latency_s,
            prompt_version=result.prompt_version,
            tenant="acme",
            tags={"team": "support"},
        )
        == row
    )
    assert Decimal("0.000084") == row.cost_usd == result.cost_usd


async def test_every_attempt_of_a_hard_call_is_a_row():
    """B4: one that failed, one whose answer did not fit, and the one that did; each is paid for as it was billed."""
    model = scripted(ProviderUnavailable("busy", status=503), "junk", "4", usage=USAGE, price=PRICE)

    async with Runtime() as runtime:
        result = await asking(model, Retry(2, wait_initial=0)).run("x")
        rows = runtime.ledger.rows()

    assert [("ProviderUnavailable", 0), ("ok", COST), ("ok", COST)] == [(row.outcome, row.cost_nano) for row in rows]
    assert [1, 2, 3] == [row.number for row in rows]
    assert 503 == rows[0].status
    assert result.cost_usd == runtime.ledger.total().cost_usd == Decimal("0.000168")


async def test_a_cancelled_attempt_is_a_row_of_unknown_cost():
    """It may have been answered and billed; nobody can tell."""
    async with Runtime() as runtime:
        with anyio.move_on_after(1):
            await asking(scripted(hang(), price=PRICE))("x")
        (row,) = runtime.ledger.rows()

    assert ("cancelled", None, None) == (row.outcome, row.cost_nano, row.cost_usd)
    assert 1 == runtime.ledger.total().unpriced


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ProviderUnavailable("busy", status=503), 0),
        (BadRequest("no such field", status=400), 0),
        (ProviderUnavailable("200 with 'text/html' is no JSON object", status=200), None),
        (ProviderUnavailable("the connection broke"), None),
    ],
)
async def test_only_what_a_provider_refused_is_known_to_be_free(error, expected):
    """What it took in and answered in a way that nobody can read may have been billed."""
    async with Runtime() as runtime:
        with pytest.raises(ProviderError):
            await asking(scripted(error, price=PRICE), Retry.off)("x")
        (row,) = runtime.ledger.rows()

    assert expected == row.cost_nano


async def test_an_answer_of_a_cache_is_a_row_that_costs_nothing():
    """It says what it saved."""
    ask = asking(scripted("4", usage=USAGE, price=PRICE), Cache("1h"))

    async with Runtime() as runtime:
        await ask("x")
        await ask("x")
        first, second = runtime.ledger.rows()

    assert ("attempt", COST, None) == (first.kind, first.cost_nano, first.saved_nano)
    assert ("hit", 0, COST) == (second.kind, second.cost_nano, second.saved_nano)
    assert (0, None) == (second.number, second.input_tokens)
    assert Decimal("0.000084") == second.saved_usd


async def test_many_who_ask_the_same_are_one_attempt_and_coalesced_rows():
    """One asks, the others wait for it."""
    ask = asking(scripted(after(1, "4"), usage=USAGE, price=PRICE), Cache("1h"))

    async with Runtime() as runtime:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(ask, "x")
        kinds = sorted(row.kind for row in runtime.ledger.rows())

    assert ["attempt", "coalesced", "coalesced"] == kinds


@pytest.mark.parametrize("junk", [Usage(input_tokens=-5, output_tokens=-5), Usage(input_tokens="5"), {"tokens": 3}])
async def test_v6_junk_of_a_handler_is_unknown(junk):
    """V6: the answer is kept, the cost is unknown, no sum goes down and none breaks."""
    model = scripted(Reply(text="4", usage=junk), price=PRICE)

    async with Runtime() as runtime:
        result = await asking(model).run("x")
        total, stats = runtime.ledger.total(), runtime.stats().steps["ask"]

    assert (4, None, None) == (result.value, result.usage, result.cost_usd)
    assert (1, 0, 0) == (total.unpriced, total.input_tokens, stats.input_tokens)


async def test_v6_what_is_not_junk_of_a_handler_is_kept():
    """V6: one count that cannot be does not take the others with it."""
    model = scripted(Reply(text="4", usage=Usage(input_tokens=7, output_tokens=-1)))

    async with Runtime():
        result = await asking(model).run("x")

    assert Usage(input_tokens=7) == result.usage


def test_a_hedge_says_so():
    """Both of a pair are rows."""
    first, second = listened(attempt(outcome="cancelled"), attempt(number=2, hedge=True, first_token_s=0.2)).rows()

    assert (False, True, 0.2) == (first.hedge, second.hedge, second.first_token_s)


def test_tags_of_a_hit_are_those_around_it():
    """As with a request."""
    ledger = Ledger()
    with llmflow.context(tags={"team": "support"}):
        tell(ledger, hit())

    assert {"team": "support"} == ledger.rows()[0].tags


def test_old_rows_are_dropped_and_totals_are_not():
    """Memory is bounded, money is exact."""
    ledger = listened(*(attempt(number=number) for number in range(1, 26)), limit=10)

    assert list(range(16, 26)) == [row.number for row in ledger.rows()]
    assert (25, Decimal("0.0021")) == (ledger.total().attempts, ledger.total().cost_usd)


@pytest.mark.parametrize("limit", [0, -1, True, 2.5])
def test_a_limit_is_a_number_of_rows(limit):
    """A wrong one is refused where it is written."""
    with pytest.raises(DefinitionError, match="limit is"):
        Ledger(limit=limit)


def test_what_waits_to_be_counted_is_bounded():
    """Also when only a cache answers."""
    ledger = listened(*(hit() for _ in range(3 * _ledger.BATCH)))

    assert len(ledger._events) < _ledger.BATCH
    assert 3 * _ledger.BATCH == ledger.total().hits


def test_totals_by_everything():
    """Each row is in one group of each kind."""
    ledger = listened(
        attempt(),
        attempt(step="sort", model="acme/small", tenant=None, prompt_version=None, cost_usd=None, outcome="BadRequest"),
        hit(),
        now=1_795_000_000.0,
    )
    paid = Total(
        attempts=1,
        hits=1,
        input_tokens=100,
        cached_tokens=40,
        output_tokens=10,
        reasoning_tokens=4,
        cost_usd=Decimal("0.000084"),
        saved_usd=Decimal("0.000084"),
    )
    unknown = replace(paid, hits=0, failed=1, unpriced=1, cost_usd=Decimal(0), saved_usd=Decimal(0))

    assert {"triage": paid, "sort": unknown} == ledger.total(by="step")
    assert {"acme/large": paid, "acme/small": unknown} == ledger.total(by="model")
    assert {"acme": paid, "": unknown} == ledger.total(by="tenant")
    assert {"v1:abc": paid, "": unknown} == ledger.total(by="prompt")
    assert {"2026-11-18": ledger.total()} == ledger.total(by="day")
    assert (2, 1, 1) == (ledger.total().attempts, ledger.total().failed, ledger.total().hits)


def test_days_are_those_of_utc():
    """A second before midnight is yesterday."""
    ledger = Ledger(iter([86_399.9, 86_400.0]).__next__)
    tell(ledger, attempt())
    tell(ledger, attempt())

    assert ["1970-01-01", "1970-01-02"] == list(ledger.total(by="day"))


def test_an_unknown_group_is_refused():
    """Naming those there are."""
    with pytest.raises(DefinitionError, match="by is 'colour', expected one of 'step', 'model'"):
        Ledger().total(by="colour")


def test_tenants_without_end_are_counted_together(monkeypatch):
    """A service with a tenant for each user does not fill the memory."""
    monkeypatch.setattr(_ledger, "GROUPS", 2)
    ledger = listened(*(attempt(tenant=f"user-{number}") for number in range(5)), attempt(tenant="user-0"))

    assert {"user-0": 2, "user-1": 1, "(others)": 3} == {
        name: one.attempts for name, one in ledger.total(by="tenant").items()
    }


def test_b4_a_million_rows_do_not_drift():
    """B4: a million charges, to the nano-dollar, whatever decimal context the program has."""
    ledger, event = Ledger(), attempt(cost_usd=Decimal("0.000000123"))
    with localcontext(Context(prec=2)):
        for _ in range(1_000_000):
            ledger.llmflow_attempt_finished(event)
        total = ledger.total()

    assert (1_000_000, Decimal("0.123")) == (total.attempts, total.cost_usd)


def test_threads_that_write_at_once_lose_nothing():
    """A hook takes no lock, and counting goes on beside it."""
    ledger, event = Ledger(limit=100), attempt(cost_usd=Decimal("0.001"))
    start = threading.Barrier(5)

    def write() -> None:
        start.wait()
        for _ in range(2000):
            ledger.llmflow_attempt_finished(event)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for one in threads:
        one.start()
    start.wait()
    seen = [ledger.total().attempts for _ in range(50)]
    for one in threads:
        one.join()

    assert seen == sorted(seen)
    assert (8000, Decimal(8), 100) == (ledger.total().attempts, ledger.total().cost_usd, len(ledger.rows()))


happened = st.lists(
    st.one_of(
        st.builds(
            attempt,
            step=st.sampled_from("ab"),
            tenant=st.sampled_from([None, "x", "y"]),
            outcome=st.sampled_from(["ok", "cancelled"]),
            usage=st.none() | st.builds(Usage, input_tokens=st.none() | st.integers(0, 9)),
            cost_usd=st.none() | st.integers(0, 10**12).map(lambda nano: Decimal(nano).scaleb(-9)),
        ),
        st.builds(
            hit,
            step=st.sampled_from("ab"),
            tenant=st.sampled_from([None, "x", "y"]),
            saved_usd=st.none() | st.integers(0, 10**12).map(lambda nano: Decimal(nano).scaleb(-9)),
        ),
        st.just("count"),
    ),
    max_size=40,
)


@given(happened)
@settings(max_examples=300)
def test_totals_are_the_sums_of_the_rows(events):
    """Whenever they are asked for, and by whatever they are grouped."""
    ledger = Ledger(lambda: 0.0)
    for event in events:
        if event == "count":
            ledger.total()
        else:
            tell(ledger, event)
    rows = ledger.rows()

    for by in ("step", "tenant", "day"):
        totals = ledger.total(by=by).values()
        assert sum(row.cost_nano or 0 for row in rows) == sum(int(one.cost_usd.scaleb(9)) for one in totals)
        assert sum(row.saved_nano or 0 for row in rows) == sum(int(one.saved_usd.scaleb(9)) for one in totals)
        assert sum(row.input_tokens or 0 for row in rows) == sum(one.input_tokens for one in totals)
        assert sum(row.kind == "hit" for row in rows) == sum(one.hits for one in totals)
        assert sum(row.cost_nano is None for row in rows) == sum(one.unpriced for one in totals)
    for step_name, one in ledger.total(by="step").items():
        assert sum(row.step == step_name and row.kind == "attempt" for row in rows) == one.attempts


async def test_both_of_a_hedged_pair_are_rows():
    """The loser is cancelled, and may have been billed all the same."""
    model = scripted(default=after(1, "4"), usage=USAGE, price=PRICE)
    ask = asking(model, Hedge(after=0.5))
    model.enqueue(hang())

    async with Runtime() as runtime:
        await ask("x")
        rows = {row.hedge: row for row in runtime.ledger.rows()}

    assert ("ok", COST) == (rows[True].outcome, rows[True].cost_nano)
    assert ("cancelled", None) == (rows[False].outcome, rows[False].cost_nano)
