"""Files with a journal in them, filled by SQL: what reports are tested on."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from llmflow.stores._database import VERSION
from llmflow.stores._journal_tables import JOURNAL_SCHEMA
from llmflow.stores._tables import SCHEMA

OLD, NEW = "1a2b3c4d5e6f", "6f5e4d3c2b1a"
"""Two versions of the prompt of `triage`."""
DRAFT = "0d0d0d0d0d0d"
MINI, HAIKU, FREE = "openai/gpt-5-mini", "anthropic/claude-haiku-4-5", "local/smollm2"
HOUR, DAY = 3600.0, 86400.0

_RUN = {"target": "support", "kind": "flow", "status": "ok"}
_NODE = {"kind": "step", "status": "ok", "latency_s": 1.0, "content": "whole"}
_CALL = {
    "step": "triage", "model": MINI, "latency_s": 1.0, "attempts": 1, "reasks": 0, "repaired": 0, "cached": 0,
    "waited_s": 0.0, "throttled": 0,
}  # fmt: skip
_ATTEMPT = {
    "number": 1, "kind": "attempt", "step": "triage", "model": MINI, "latency_s": 1.0, "outcome": "ok",
}  # fmt: skip


class Rows:
    """Writes rows; what a test does not say has a value that is nothing special."""

    def __init__(self, path: Path | str = ":memory:", *, version: int = VERSION, journal: bool = True) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        for statement in (*SCHEMA, *(JOURNAL_SCHEMA if journal else ())):
            self.connection.execute(statement)
        self.connection.execute(f"PRAGMA user_version = {version}")
        self._made = 0

    @classmethod
    def of_version_2(cls, path: Path | str) -> Rows:
        """A file that no newer llmflow has written to yet."""
        made = cls(path, version=2)
        made.connection.execute("DROP VIEW run_costs")
        made.connection.execute("DROP INDEX runs_of_replays")
        made.connection.execute("DROP INDEX nodes_failed")
        for column in ("reserved_tokens", "sent"):
            made.connection.execute(f"ALTER TABLE attempts DROP COLUMN {column}")
        made.connection.execute("CREATE VIEW run_costs AS SELECT run_id, sum(cost_nano) AS cost_usd FROM attempts")
        return made

    def _add(self, table: str, row: dict[str, object]) -> None:
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        self.connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))

    def run(self, run_id: str, started: float, **row: object) -> None:
        """A run that took two seconds, unless it still runs."""
        row = {**_RUN, **row}
        if row["status"] != "running":
            row = {"finished": started + 2, "latency_s": 2.0, **row}
        self._add("runs", {"run_id": run_id, "started": started, **row})

    def node(self, run_id: str, key: str, started: float, **row: object) -> None:
        name = key.rpartition("/")[2].partition("[")[0]
        self._add("nodes", {"run_id": run_id, "key": key, "name": name, "started": started, **_NODE, **row})

    def call(self, run_id: str, finished: float, **row: object) -> str:
        self._made += 1
        call_id = f"call{self._made:06}"
        self._add("calls", {"call_id": call_id, "run_id": run_id, "finished": finished, **_CALL, **row})
        return call_id

    def attempt(self, run_id: str, call_id: str, started: float, **row: object) -> None:
        self._add("attempts", {"run_id": run_id, "call_id": call_id, "started": started, **_ATTEMPT, **row})

    def prompt(self, step: str, version: str, first_seen: float, label: str | None = None) -> None:
        parts = json.dumps({"template": "Classify: {{ message }}"})
        self._add(
            "prompts", {"step": step, "version": version, "label": label, "parts": parts, "first_seen": first_seen}
        )

    def step(self, run_id: str, key: str, started: float, requests=({},), *, node: bool = True, **row: object) -> None:
        """A step with its node, its call, and its attempts one after the other."""
        step = key.rpartition("/")[2].partition("[")[0]
        version = row.get("prompt_version")
        shared = {name: row[name] for name in ("prompt_version", "tenant", "model") if name in row}
        latency = sum(one.get("latency_s") or 1.0 for one in requests)
        error = row.get("error")
        call = {"attempts": len(requests), **row, "step": step, "node": key, "latency_s": latency}
        call_id = self.call(run_id, started + latency, **{k: v for k, v in call.items() if k != "message"})
        at = started
        for number, one in enumerate(requests, 1):
            self.attempt(run_id, call_id, at, **{"number": number, "step": step, "node": key, **shared, **one})
            at += one.get("latency_s") or 1.0
        if node:
            self.node(
                run_id, key, started, latency_s=latency, status="failed" if error else "ok", model=row.get("model", MINI),
                prompt_version=version, error=error, message=row.get("message"),
                inputs='{"message": "I was charged twice"}', output=None if error else '{"category": "billing"}',
            )  # fmt: skip

    def close(self) -> None:
        self.connection.close()


PAID = {"input_tokens": 120, "output_tokens": 40, "cost_nano": 110_000, "reserved_nano": 900_000}
"""An attempt that went well and whose price is known."""
LIMITED = {"outcome": "RateLimited", "status": 429, "latency_s": 0.2, "cost_nano": 0}
DOWN = {"outcome": "ProviderUnavailable", "status": 503, "latency_s": 0.5, "cost_nano": 0}


def fill(path: Path, now: float) -> None:
    """Write a journal of five runs: one that retried, one that failed, a map, one that died and one that runs."""
    rows = Rows(path)
    rows.connection.execute("BEGIN")
    rows.prompt("triage", OLD, now - 9 * DAY, "production")
    rows.prompt("triage", NEW, now - DAY, "canary")
    _retried(rows, now - 2 * DAY)
    _failed(rows, now - DAY)
    _mapped(rows, now - 2 * HOUR)
    _died(rows, now - HOUR)
    _running(rows, now - 10)
    rows.connection.execute("COMMIT")
    rows.close()


def _retried(rows: Rows, at: float) -> None:
    rows.run("order-41", at, tenant="acme", tags='{"team": "support"}', latency_s=2.2, finished=at + 2.2, resumed=1)
    rows.step("order-41", "support/triage", at, (LIMITED, PAID), prompt_version=OLD, tenant="acme")
    rows.step("order-41", "support/draft", at + 1.2, (PAID,), prompt_version=DRAFT, tenant="acme", model=HAIKU)
    rows.node("order-41", "support", at, kind="flow", latency_s=2.2)


def _failed(rows: Rows, at: float) -> None:
    message = "step 'draft': the provider is down"
    rows.run("order-42", at, status="failed", error="ProviderUnavailable", message=message, tenant="globex")
    rows.step(
        "order-42", "support/triage", at, (PAID,), prompt_version=NEW, label="canary", tenant="globex", repaired=1
    )
    rows.step(
        "order-42", "support/draft", at + 1, (DOWN, DOWN, {**DOWN, "hedge": 1}), prompt_version=DRAFT, tenant="globex",
        error="ProviderUnavailable", message=message,
    )  # fmt: skip


def _mapped(rows: Rows, at: float) -> None:
    """200 items; each 50th fails, each 10th has its answer from a cache, and every item takes a little longer."""
    rows.run("mailbox", at, target="triage", kind="map", finished=at + 60, latency_s=60.0)
    for item in range(200):
        started, key = at + item * 0.25, f"triage[{item:012x}]"
        took = 1 + item / 100
        if item % 50 == 49:
            rows.step(
                "mailbox", key, started, ({**DOWN, "latency_s": took},), prompt_version=NEW, error="ProviderUnavailable"
            )
        elif item % 10 == 0:
            hit = {
                "number": 0,
                "kind": "hit",
                "cost_nano": 0,
                "saved_nano": 110_000 if item else None,
                "latency_s": 0.001,
            }
            rows.step("mailbox", key, started, (hit,), prompt_version=NEW, attempts=0, cached=1)
        else:
            rows.step(
                "mailbox", key, started, ({**PAID, "latency_s": took},), prompt_version=NEW, reasks=int(item == 1)
            )


def _died(rows: Rows, at: float) -> None:
    rows.run("died", at, status="running", owner="elsewhere:1:1", lease=at + 60)
    rows.step("died", "support/triage", at, (PAID,), prompt_version=OLD)
    lost = {
        "node": "support/draft",
        "step": "draft",
        "outcome": "uncertain",
        "latency_s": None,
        "prompt_version": DRAFT,
    }
    for number, most in enumerate((900_000, 600_000), 1):  # as whoever finds the run writes them
        charged = {"cost_nano": most, "reserved_nano": most, "number": number, "hedge": number - 1}
        rows.attempt("died", "lost", at + 1, **lost, **charged)


def _running(rows: Rows, at: float) -> None:
    rows.run("alive", at, status="running", owner="elsewhere:1:1", lease=at + HOUR)
    rows.step("alive", "support/triage", at, ({"cost_nano": None},), prompt_version=NEW, model=FREE)
    rows.attempt(
        "alive", "pending", at + 1, node="support/draft", step="draft", outcome=None, latency_s=None, reserved_nano=700_000
    )  # fmt: skip
