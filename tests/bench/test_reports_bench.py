"""What a report over many calls costs, beside the bare sums and the bare sort in SQLite."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator

import pytest

from llmflow.stores._journal_reports import Reports
from llmflow.stores._journal_tables import JOURNAL_SCHEMA

pytestmark = pytest.mark.benchmark(timer=time.process_time)  # CPU time: the machine is shared

CALLS = 20_000
STEPS = ("triage", "draft", "summarise", "judge")


@pytest.fixture(scope="module")
def journal() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:", isolation_level=None)
    for statement in JOURNAL_SCHEMA:
        made.execute(statement)
    made.execute("BEGIN")
    made.executemany(
        "INSERT INTO calls (call_id, run_id, step, finished, latency_s, attempts, reasks, repaired, cached, waited_s, throttled)"
        " VALUES (?, 'r', ?, ?, ?, 1, 0, 0, 0, 0, 0)",
        ((f"c{n:06}", STEPS[n % 4], n * 0.6, (n * 7919 % 9973) / 1000) for n in range(CALLS)),
    )
    made.executemany(
        "INSERT INTO attempts (call_id, number, kind, run_id, step, model, started, latency_s, outcome, cost_nano)"
        " VALUES (?, 1, 'attempt', 'r', ?, 'a/b', ?, 1, 'ok', 110000)",
        ((f"c{n:06}", STEPS[n % 4], n * 0.6) for n in range(CALLS)),
    )
    made.execute("COMMIT")
    yield made
    made.close()


def by_hand(journal: sqlite3.Connection) -> None:
    """What no report can do without: both sums, and the latencies in their order."""
    journal.execute("SELECT step, count(*), sum(reasks) FROM calls GROUP BY 1").fetchall()
    journal.execute("SELECT step, count(*), sum(cost_nano) FROM attempts GROUP BY 1").fetchall()
    for _ in journal.execute("SELECT latency_s FROM calls ORDER BY step, latency_s"):
        pass


def stats(journal: sqlite3.Connection) -> None:
    Reports(journal, 0.0).stats()


def cost(journal: sqlite3.Connection) -> None:
    Reports(journal, 0.0).cost("day")


@pytest.mark.parametrize("report", [by_hand, stats, cost], ids=["floor-by-hand", "stats-by-step", "cost-by-day"])
def test_a_report_of_many_calls(benchmark, journal, report: Callable[[sqlite3.Connection], None]) -> None:
    """One round is 20,000 calls; a million takes fifty times as long."""
    benchmark.pedantic(report, args=(journal,), rounds=10, warmup_rounds=1)
