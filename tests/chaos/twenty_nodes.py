"""A flow of more than twenty nodes, killed at every statement that its journal sends to SQLite; see test_journal_kills.py.

`python twenty_nodes.py FOLDER POINT...` runs the flow in a forked child for each point, kills it there, and lets another
child take the run up. It prints one line of JSON for each point.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Literal

from anyio.lowlevel import checkpoint
from pydantic import BaseModel

from llmflow import (
    BadRequest,
    Deadline,
    Model,
    Price,
    Reply,
    Runtime,
    Usage,
    flow,
    gather,
    hookimpl,
    or_else,
    prompt,
    step,
    switch,
    task,
    when,
)
from llmflow.runtime import SystemClock
from llmflow.stores._journal import SqliteJournal

RUN = "order-42"
LOG: int = -1
"""Where requests and tasks are counted: what is in there survives the process, whenever it ends."""


def note(what: str) -> None:
    if LOG >= 0:
        os.write(LOG, what.encode() + b"\n")


class Ticket(BaseModel):
    category: Literal["bug", "billing", "other"]
    urgent: bool


async def answer(request):
    """Answer from the prompt alone, after a while, so that requests of parallel nodes are in flight together."""
    note(f"ask {request.call.node}")
    text = request.messages[-1].content
    for _ in range(len(text) % 5 + 1):
        await checkpoint()
    if "fragile" in text:
        raise BadRequest("no such thing", status=400)
    said = '{"category": "bug", "urgent": true}' if "Classify" in text else f"<{text[-30:]}>"
    return Reply(text=said, usage=Usage(input_tokens=100 + len(text), output_tokens=10 + len(said)), model=model)


model = Model("fake/one", handler=answer, price=Price(input=1.0, output=3.0))


@task
async def fetch(text: str) -> str:
    note("task fetch")
    return f"{text}!"


@task
async def split(text: str) -> list[str]:
    note("task split")
    await checkpoint()
    return [f"{text}-{number}" for number in range(5)]


@task
async def join(parts: list[str]) -> str:
    note("task join")
    return "|".join(parts)


@step(model)
def triage(text: str) -> Ticket:
    return prompt(f"Classify {text}")


@step(model)
def ask(text: str, kind: str) -> str:
    return prompt(f"{kind}: {text}")


@step(model)
def fragile(text: str) -> str:
    return prompt(f"fragile {text}")


@step(model)
def summarize(text: str) -> str:
    return prompt(f"Sum up {text}")


@flow(Deadline(100))
async def careful(text: str) -> str:
    one = await ask(text, "inner one")
    return await ask(one, "inner two")


@flow
async def order(text: str) -> str:
    head = await fetch(text)
    ticket = await triage(head)
    one, two, three = await gather(ask(head, "one"), ask(head, "two"), ask(head, "three"))
    parts = await split(head)
    each = await summarize.map(parts)
    instead = await or_else(fragile(head), ask(one, "instead"))
    inside = await careful(two)
    chosen = await when(ticket.urgent, ask(three, "urgent"), ask(three, "calm"))
    last = await switch(
        ticket.category, {"bug": ask(chosen, "bug"), "billing": ask(chosen, "billing")}, ask(chosen, "x")
    )
    return await join([head, one, two, three, each[0], each[4], instead, inside, chosen, last])


# -- killing -----------------------------------------------------------------------------------------------------------


class Killing:
    """Connections whose n-th statement is the last thing that the process does."""

    def __init__(self, point: str) -> None:
        self.moment, _, number = point.partition(":")
        self.left = int(number or 0)

    def connect(self, *args, **kwargs):
        return Connection(sqlite3.connect(*args, **kwargs), self)

    def reached(self, moment: str, statement: str) -> None:
        if moment == self.moment and (moment == "before" or statement == "COMMIT"):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class Connection:
    def __init__(self, inner, killing):
        self.__dict__.update(_inner=inner, _killing=killing)

    def execute(self, statement, *values):
        self._killing.reached("before", statement)
        result = self._inner.execute(statement, *values)
        self._killing.reached("after", statement)
        return result

    def close(self):
        self._inner.close()

    def __setattr__(self, name, value):
        setattr(self._inner, name, value)


class Store:
    """Supplies `killing://`, a journal in a file whose connections kill the process."""

    def __init__(self, path: Path, point: str) -> None:
        self.journal = SqliteJournal(path, SystemClock(), connect=Killing(point).connect)

    @hookimpl
    def llmflow_store(self, url):
        return self if url.startswith("killing:") else None


async def run_once(runtime: Runtime) -> str:
    async with runtime:
        return await order.with_(run_id=RUN)("hello")


def in_child(path: Path, log: Path, point: str) -> tuple[str | None, int]:
    """Run the flow in a forked child; return its value and its exit code."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        global LOG
        LOG = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        value = asyncio.run(run_once(Runtime(plugins=[Store(path, point)], journal="killing://")))
        os.write(writing, value.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        value = said.read().decode()
    _, status = os.waitpid(child, 0)
    return value or None, os.waitstatus_to_exitcode(status)


def look(path: Path) -> dict:
    if not path.exists() or path.stat().st_size == 0:
        return {"nodes": {}, "attempts": [], "run": None}
    with sqlite3.connect(path) as connection:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            return {"nodes": {}, "attempts": [], "run": None}
        found = {
            "nodes": dict(connection.execute("SELECT key, status FROM nodes")),
            "attempts": [
                list(row) for row in connection.execute("SELECT node, outcome, cost_nano, reserved_nano FROM attempts")
            ],
            "run": connection.execute("SELECT status, resumed FROM runs").fetchone(),
        }
    connection.close()
    return found


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def kill_and_resume(folder: Path, point: str) -> dict:
    path, log = folder / "journal.db", folder / "log"
    for one in folder.glob("*"):
        one.unlink()
    value, code = in_child(path, log, point)
    at_the_kill, logged = look(path), lines(log)
    if code == -signal.SIGKILL:
        value, code = in_child(path, log, "")
        killed = True
    else:
        killed = False
    return {
        "point": point,
        "killed": killed,
        "code": code,
        "value": value,
        "before": at_the_kill,
        "logged": logged,
        "again": lines(log)[len(logged) :],
        "after": look(path),
    }


def main() -> None:
    folder = Path(sys.argv[1])
    asyncio.run(run_once(Runtime()))  # traced, imported, compiled: children have no more to do than to run it
    for moment in sys.argv[2:]:
        number, survived = 0, 0
        while survived < 3:  # how many statements a run takes depends a little on time
            number += 1
            result = kill_and_resume(folder, f"{moment}:{number}")
            survived += not result["killed"]
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
