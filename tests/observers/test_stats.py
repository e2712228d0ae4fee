"""Statistics know money by tenant, what caches saved, and what calls waited for."""

from __future__ import annotations

import json
from decimal import Context, Decimal, localcontext

from llmflow import Usage
from llmflow.events import AttemptFinished, CallFinished
from llmflow.observers import Latency, StatsObserver, TenantStats, _stats


def call(**fields) -> CallFinished:
    known = {
        "run_id": "run",
        "call_id": "call",
        "step": "triage",
        "latency_s": 0.5,
        "attempts": 1,
        "reasks": 0,
        "usage": Usage(input_tokens=10, output_tokens=5),
        "cost_usd": Decimal("0.003"),
    }
    return CallFinished(**(known | fields))


def attempt(**fields) -> AttemptFinished:
    known = {"run_id": "run", "call_id": "call", "step": "triage", "model": "acme/large", "number": 1, "outcome": "ok"}
    return AttemptFinished(**(known | {"latency_s": 0.5} | fields))


def counted(*events) -> _stats.Stats:
    observer = StatsObserver()
    for event in events:
        if isinstance(event, CallFinished):
            observer.llmflow_call_finished(event)
        else:
            observer.llmflow_attempt_finished(event)
    return observer.snapshot()


def test_hits_and_what_they_saved_are_counted_by_step():
    """A hit whose answer had an unknown cost is a hit all the same."""
    hit = {"cached": True, "cost_usd": Decimal(0), "attempts": 0}
    step = counted(call(), call(**hit, saved_usd=Decimal("0.003")), call(**hit), call(saved_usd=Decimal(9))).steps[
        "triage"
    ]

    assert (4, 2, Decimal("0.003")) == (step.calls, step.hits, step.saved_usd)


def test_b4_what_is_known_of_a_call_with_an_unknown_part_is_in_every_sum():
    """B4: beside a loser of a hedge whose cost nobody knows, the winner is paid for, and steps, tenants and models agree."""
    paid = Decimal("0.003")
    stats = counted(
        attempt(tenant="acme", cost_usd=paid),
        attempt(tenant="acme", cost_usd=None, outcome="cancelled", hedge=True),
        call(tenant="acme", cost_usd=None, attempts=2),
    )
    step, tenant, model = stats.steps["triage"], stats.tenants["acme"], stats.models["acme/large"]

    assert paid == step.cost_usd == tenant.cost_usd == model.cost_usd
    assert 1 == step.unpriced == tenant.unpriced == model.unpriced


def test_waits_and_retries_that_were_not_made_are_counted_by_step():
    """They are why a call took long, or gave up."""
    step = counted(call(waited_s=0.5, throttled=1), call(waited_s=0.25)).steps["triage"]

    assert (0.75, 1) == (step.waited_s, step.throttled)


def test_money_is_counted_by_tenant():
    """Calls for nobody in particular are in no tenant's."""
    tenants = counted(
        attempt(tenant="acme", cost_usd=Decimal("0.003")),
        attempt(cost_usd=Decimal("0.003")),
        call(tenant="acme"),
        call(tenant="acme", cached=True, cost_usd=Decimal(0), saved_usd=Decimal("0.003")),
        call(tenant="zeta", cost_usd=None),
        call(),
    ).tenants

    assert {
        "acme": TenantStats(calls=2, hits=1, cost_usd=Decimal("0.003"), saved_usd=Decimal("0.003")),
        "zeta": TenantStats(calls=1, unpriced=1),
    } == tenants


def test_tenants_without_end_are_counted_together(monkeypatch):
    """A service with a tenant for each user does not fill the memory."""
    monkeypatch.setattr(_stats, "TENANTS", 2)
    tenants = counted(*(call(tenant=f"user-{number % 5}") for number in range(10))).tenants

    assert {"user-0": 2, "user-1": 2, "(others)": 6} == {name: one.calls for name, one in tenants.items()}


def test_first_tokens_and_hedges_are_counted_by_model():
    """What was not streamed has no first token, and no part in the percentiles."""
    model = counted(attempt(first_token_s=0.1), attempt(first_token_s=0.3, hedge=True), attempt()).models["acme/large"]

    assert (3, 1, Latency(0.1, 0.3, 0.3)) == (model.attempts, model.hedges, model.first_token_s)


def test_b4_sums_are_exact_in_any_decimal_context():
    """B4: a program that computes with two digits still has every nano-dollar counted."""
    with localcontext(Context(prec=2)):
        stats = counted(*[attempt(cost_usd=Decimal("0.000000123"), tenant="acme")] * 1001)

    assert Decimal("0.000123123") == stats.steps["triage"].cost_usd == stats.tenants["acme"].cost_usd


def test_a_snapshot_is_fit_for_json():
    """Decimals as text."""
    request = attempt(first_token_s=0.5, tenant="acme", cost_usd=Decimal("0.003"))
    plain = json.loads(json.dumps(counted(request, call(tenant="acme")).to_dict()))

    assert "0.003" == plain["tenants"]["acme"]["cost_usd"]
    assert 0.5 == plain["models"]["acme/large"]["first_token_s"]["p50"]
