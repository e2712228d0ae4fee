"""Laws of reports: percentiles are those of the definition, sums are those of the rows, unknown is never nothing."""

from __future__ import annotations

import math
import tracemalloc
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from llmflow.stores._journal_reports import Reports
from llmflow.stores._report_groups import Window
from llmflow.stores._report_records import Spend
from llmflow.stores._report_tree import tree_of

from .journal_rows import Rows

NAMES = st.sampled_from(["triage", "draft"])
ERRORS = st.sampled_from([None, None, "RateLimited", "InvalidOutput"])
SECONDS = st.floats(0, 1e6, allow_nan=False)
NANO = st.none() | st.integers(0, 10**15)
CALLS = st.lists(st.tuples(NAMES, st.none() | st.just("acme"), SECONDS, SECONDS, ERRORS))
ATTEMPTS = st.lists(
    st.tuples(
        NAMES,
        SECONDS,
        st.sampled_from(["attempt", "attempt", "attempt", "hit", "stale", "coalesced"]),
        st.sampled_from(["ok", "RateLimited", "cancelled", "uncertain", None]),
        NANO,
        NANO,
        st.none() | st.integers(0, 10**6),
        st.booleans(),
    )
)


def naive(latencies, percent):
    """The smallest value that so many percent of all do not exceed."""
    ranked = sorted(latencies)
    return next((one for place, one in enumerate(ranked, 1) if place * 100 >= percent * len(ranked)), None)


@given(calls=CALLS, since=SECONDS)
def test_percentiles_and_counts_are_those_of_the_rows(calls, since):
    """By any key and over any window."""
    rows = Rows()
    for step, tenant, finished, latency, error in calls:
        rows.call("r", finished, step=step, tenant=tenant, latency_s=latency, error=error)
    for by, place in (("step", 0), ("tenant", 1)):
        for one in Reports(rows.connection, 0.0).stats(by, Window(since=since)):
            mine = [call for call in calls if (call[place],) == one.key and call[2] >= since]
            expected = tuple(naive([call[3] for call in mine], percent) for percent in (50, 95, 99))

            assert expected == (one.latency.p50, one.latency.p95, one.latency.p99)
            assert (len(mine), Counter(call[4] for call in mine if call[4])) == (one.calls, one.errors)
            assert one.calls == one.valid + one.failed
    rows.close()


@given(attempts=ATTEMPTS)
def test_sums_are_those_of_the_rows(attempts):
    """Every request is in exactly one group, and its money is known, open or counted as unknown: never nothing."""
    rows = Rows()
    rows.run("r", 0.0)
    for number, (step, started, kind, outcome, cost, reserved, tokens, sent) in enumerate(attempts):
        paid = outcome if kind == "attempt" else "ok"
        rows.attempt(
            "r", f"c{number}", started, step=step, kind=kind, outcome=paid, cost_nano=cost, reserved_nano=reserved,
            input_tokens=tokens, sent=sent,
        )  # fmt: skip
    found = Reports(rows.connection, 0.0)
    run = found.run("r")
    whole = sum((one.spend for one in run.attempts()), Spend())
    for by in ("step", "model", "day", "tenant", "prompt"):
        groups = found.cost(by)

        assert whole == sum((one.spend for one in groups), Spend())
        assert len(attempts) == sum(one.requests + one.hits for one in groups)
        assert sum(one[6] or 0 for one in attempts) == sum(one.input_tokens or 0 for one in groups)
    requests = [one for one in attempts if one[2] == "attempt"]
    known = [one[4] for one in requests if one[3] not in (None, "uncertain") and one[4] is not None]
    ended = [one for one in requests if one[3] not in (None, "uncertain")]

    nothing = [one for one in ended if one[4] is None and not one[7]]
    unknown = [one for one in requests if one[3] in (None, "uncertain") or (one[4] is None and one[7])]
    most = [one[5] if one[4] is None else one[4] for one in unknown]

    assert whole == run.summary.spend
    assert len(ended) - len(known) - len(nothing) == whole.unpriced
    assert len(requests) == len(ended) + whole.uncertain + whole.in_flight
    assert (sum(one or 0 for one in most), most.count(None)) == (whole.open_nano, whole.unbounded)
    assert (None in most) == (whole.most_usd is None)
    assert whole.most_usd is None or whole.known_usd <= whole.most_usd
    assert sum(known) + sum(one[4] or 0 for one in attempts if one[2] != "attempt") == whole.known_nano
    assert whole == sum((one.taken.spend for one in tree_of(run)), Spend())
    said = rows.connection.execute("SELECT cost_usd, at_most_usd, unpriced, uncertain, in_flight FROM run_costs")
    usd = whole.known_nano / 1e9
    most_usd = None if whole.most_usd is None else (whole.known_nano + whole.open_nano) / 1e9

    assert (usd, most_usd, whole.unpriced, whole.uncertain, whole.in_flight) == said.fetchone()
    rows.close()


@given(st.lists(SECONDS, min_size=1))
def test_no_percentile_is_made_up(latencies):
    """Each is one of the latencies, and they rise."""
    rows = Rows()
    for latency in latencies:
        rows.call("r", 1.0, latency_s=latency)
    (one,) = Reports(rows.connection, 0.0).stats()

    assert {one.latency.p50, one.latency.p95, one.latency.p99} <= set(latencies)
    assert one.latency.p50 <= one.latency.p95 <= one.latency.p99 <= math.inf
    rows.close()


def test_memory_does_not_grow_with_the_number_of_calls():
    """A report of 30,000 calls, and the tree of a map of as many, hold none of them but those that are shown."""
    rows = Rows()
    rows.run("r", 0.0)
    rows.connection.execute("BEGIN")
    for number in range(30_000):
        rows.attempt("r", rows.call("r", 1.0 + number, node=f"m[{number:05}]"), 1.0 + number, node=f"m[{number:05}]")
    found = Reports(rows.connection, 0.0)
    tracemalloc.start()
    try:
        (one,) = found.stats()
        _, sums = tracemalloc.get_traced_memory()
        (items,) = tree_of(found.run("r"))
        _, tree = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (30_000, 30_000) == (one.calls, items.number)
    assert 200_000 > sums
    assert 3_000_000 > tree  # a latency of each item, twice while they are ranked
    rows.close()
