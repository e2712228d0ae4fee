"""What a journal in a file costs a call: in the thread of the caller and in that of the writer, CPU of both counted."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
import uuid

import pytest
from pydantic import BaseModel

from llmflow import Model, Price, Reply, Runtime, Usage, flow, prompt, step
from llmflow.stores._journal_tables import JOURNAL_SCHEMA

pytestmark = pytest.mark.benchmark(timer=time.process_time)  # CPU time of all threads: the machine is shared

CALLS = 1000
BATCH = 10
"""How many calls of the floor share a transaction: about as many as come while the journal lets them gather."""
USAGE = Usage(input_tokens=100, output_tokens=20)
ANSWER = '{"category":"bug","urgent":true,"score":0.5}'


class Ticket(BaseModel):
    category: str
    urgent: bool
    score: float


async def fake(request: object) -> Reply:
    return Reply(text=ANSWER, usage=USAGE, model="fake/model")


@step(Model("fake/model", handler=fake, price=Price(input=1.0, output=1.0)))
def triage(message: str) -> Ticket:
    return prompt(f"Classify {message}")


@flow
async def triage_in_a_flow(message: str) -> Ticket:
    return await triage(message)


_RUN = (
    "INSERT INTO runs (run_id, target, kind, status, started, finished, latency_s, input_hash) "
    "VALUES (?, 'triage', 'step', 'ok', ?, ?, ?, 'hash')"
)
_NODE = (
    "INSERT INTO nodes (run_id, key, name, kind, status, started, latency_s, model, prompt_version, input_hash, inputs,"
    " output, content) VALUES (?, 'triage', 'triage', 'step', 'ok', ?, ?, 'fake/model', 'v', 'hash', ?, ?, 'whole')"
)
_CALL = (
    "INSERT INTO calls (call_id, run_id, step, finished, latency_s, attempts, reasks, repaired, cached, waited_s, throttled)"
    " VALUES (?, ?, 'triage', ?, ?, 1, 0, 0, 0, 0, 0)"
)
_ATTEMPT = (
    "INSERT INTO attempts (call_id, number, kind, run_id, step, model, started, latency_s, outcome, cost_nano)"
    " VALUES (?, 1, 'attempt', ?, 'triage', 'fake/model', ?, ?, 'ok', 120000)"
)


def test_the_floor_by_hand(benchmark, tmp_path):
    """The same four rows by hand: ten calls in a transaction, WAL, synchronous NORMAL."""
    connection = sqlite3.connect(tmp_path / "floor.db", isolation_level=None)
    for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL", *JOURNAL_SCHEMA):
        connection.execute(statement)

    def rows() -> None:
        for _ in range(CALLS // BATCH):
            connection.execute("BEGIN IMMEDIATE")
            for _ in range(BATCH):
                name, now = uuid.uuid4().hex, time.time()
                inputs = json.dumps({"message": "it crashes"})
                connection.execute(_ATTEMPT, (name, name, now, 0.1))
                connection.execute(_CALL, (name, name, now, 0.1))
                connection.execute(_NODE, (name, now, 0.1, inputs, ANSWER))
                connection.execute(_RUN, (name, now, now, 0.1))
            connection.execute("COMMIT")

    measure(benchmark, rows)
    connection.close()


@pytest.mark.parametrize("where", ["memory", "file"])
@pytest.mark.parametrize("unit", [triage, triage_in_a_flow], ids=["step", "flow-of-one"])
def test_calls_without_an_id(benchmark, tmp_path, unit, where):
    """The floor is `memory`: what a call costs whose journal becomes rows only when somebody looks."""
    run(benchmark, tmp_path, where, lambda number: unit)


@pytest.mark.parametrize("where", ["memory", "file"])
def test_runs_with_an_id(benchmark, tmp_path, where):
    """Each call claims a run, waits for its request to be on disk before it is sent, and for its end."""
    run(benchmark, tmp_path, where, lambda number: triage.with_(run_id=f"run-{number}"))


def test_a_map_with_an_id(benchmark, tmp_path):
    """One run of many items, 16 at a time: they share the transactions."""
    numbers = iter(range(10**9))

    async def calls() -> None:
        await triage.with_(run_id=f"map-{next(numbers)}").map([f"it crashes {number}" for number in range(CALLS)])

    with Runtime(journal=f"sqlite:///{tmp_path}/journal.db") as runtime, asyncio.Runner() as runner:
        runner.run(calls())
        measure(benchmark, lambda: (runner.run(calls()), runtime.journal.close()))


def run(benchmark, tmp_path, where, unit):
    url = "memory://" if where == "memory" else f"sqlite:///{tmp_path}/journal.db"
    numbers = iter(range(10**9))

    async def calls() -> None:
        for _ in range(CALLS):
            await unit(next(numbers))("it crashes")

    with Runtime(journal=url) as runtime, asyncio.Runner() as runner:
        runner.run(calls())  # binds the step, and makes the file

        def whole() -> None:
            runner.run(calls())
            if where == "file":
                runtime.journal.close()  # what was handed to the thread is part of the price

        measure(benchmark, whole)


def measure(benchmark, function):
    """One round is 1,000 calls, so read ms as µs; the goal is 60 µs a call over the same call in memory."""
    benchmark.extra_info["calls per round"] = CALLS
    benchmark(function)
