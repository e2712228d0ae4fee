"""Several processes and one run: one of them does it, the others wait, and nothing is paid twice."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from llmflow import Hedge, Model, Price, Reply, Runtime, Usage, flow, gather, prompt, step, task

folder, name, kind = sys.argv[1:4]
log = os.open(os.path.join(folder, "log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
gate = os.path.join(folder, "gate")
open_requests = []


async def answer(request):
    text = request.messages[-1].content
    os.write(log, f"{text} {name}\\n".encode())
    if kind == "stuck" and text.startswith("20"):
        print("stuck", flush=True)
        await asyncio.sleep(1000)
    if kind == "hedged" and text == "h!":
        open_requests.append(text)
        if len(open_requests) == 2:
            print("stuck", flush=True)
        await asyncio.sleep(1000)
    if kind == "gated" and text == "w1":
        while not os.path.exists(gate):
            await asyncio.sleep(0.001)
    if kind != "hedged again":
        await asyncio.sleep(0.002)
    return Reply(text=text + "!", usage=Usage(input_tokens=10, output_tokens=5), model="fake/one")


FAKE = Model("fake/one", handler=answer, price=Price(input=1.0, output=1.0))


@step(FAKE)
def ask(word: str) -> str:
    return prompt(word)


@step(FAKE, Hedge(after="1ms"))
def ask_twice(word: str) -> str:
    return prompt(word)


@task
async def join(words: list[str]) -> str:
    return "|".join(words)


@flow
async def several(word: str) -> str:
    one, two, three = await gather(ask("w1"), ask("w2"), ask("w3"))
    return await join([await ask(one), await ask(two), await ask(three), await ask(word)])


@flow
async def mapped(words: list[str]) -> str:
    return await join(await ask.map(words, concurrency=4))


@flow
async def hedged(word: str) -> str:
    return await ask_twice(await ask(word))


async def main():
    async with Runtime(journal=f"sqlite:///{folder}/journal.db"):
        print("ready", flush=True)
        if kind in ("stuck", "takes over"):
            print(await mapped.with_(run_id="a")([str(number) for number in range(30)]), flush=True)
        elif kind.startswith("hedged"):
            print(await hedged.with_(run_id="a")("h"), flush=True)
        else:
            print(await several.with_(run_id="a")("z"), flush=True)


asyncio.run(main())
"""
VALUE = "w1!!|w2!!|w3!!|z!"


@pytest.fixture
def start(tmp_path):
    """Start a process that runs the flow, and end it with the test."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = []
    program = tmp_path / "program.py"  # a flow is traced from its source
    program.write_text(PROGRAM)

    def begin(name, kind=""):
        process = subprocess.Popen(
            [sys.executable, str(program), str(tmp_path), name, kind],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        processes.append(process)
        return process

    yield begin
    for one in processes:
        one.kill()
        one.communicate()


def asked(folder):
    return Counter(line.split()[0] for line in (folder / "log").read_text().splitlines())


def rows(folder, statement):
    connection = sqlite3.connect(folder / "journal.db")
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize("count", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_all_of_them_at_once(start, tmp_path, count):
    """They begin together; each gives the value, and each node was asked once."""
    processes = [start(str(number), "gated") for number in range(count)]
    for one in processes:
        assert "ready\n" == one.stdout.readline()
    (tmp_path / "gate").touch()
    said = [one.communicate(timeout=300) for one in processes]

    assert [(f"{VALUE}\n", "")] * count == said
    assert {1} == set(asked(tmp_path).values())
    assert [("ok", 0)] == rows(tmp_path, "SELECT status, resumed FROM runs")
    assert [(7,)] == rows(tmp_path, "SELECT count(*) FROM attempts WHERE outcome = 'ok'")


def test_a_waiter_takes_over_at_once(start, tmp_path):
    """The process that had the run is killed in the middle of a map; what it had done is not done again."""
    first = start("first", "stuck")
    lines = [first.stdout.readline() for _ in range(2)]
    waiter = start("waiter", "takes over")
    assert "ready\n" == waiter.stdout.readline()
    first.send_signal(signal.SIGKILL)
    first.wait()  # a lease would have lasted a minute
    said = waiter.communicate(timeout=50)

    assert ["ready\n", "stuck\n"] == lines
    assert ("|".join(f"{number}!" for number in range(30)) + "\n", "") == said
    again = [word for word, times in asked(tmp_path).items() if times > 1]
    uncertain = [node for (node,) in rows(tmp_path, "SELECT node FROM attempts WHERE outcome = 'uncertain'")]
    assert "20" in again
    assert len(again) <= len(uncertain) <= 4
    assert set(asked(tmp_path)) == {str(number) for number in range(30)}
    assert [("ok", 1)] == rows(tmp_path, "SELECT status, resumed FROM runs")
    assert [] == rows(tmp_path, "SELECT * FROM attempts WHERE outcome = 'uncertain' AND cost_nano <> reserved_nano")


def test_a_killed_program_is_run_again(start, tmp_path):
    """Nobody waited: the same program again finishes its run."""
    first = start("first", "stuck")
    assert ["ready\n", "stuck\n"] == [first.stdout.readline() for _ in range(2)]
    first.send_signal(signal.SIGKILL)
    first.wait()
    value, errors = start("second", "takes over").communicate(timeout=300)

    assert ("ready\n" + "|".join(f"{number}!" for number in range(30)) + "\n", "") == (value, errors)
    assert len([one for one in asked(tmp_path).values() if one > 1]) <= 4


def test_two_requests_of_a_hedge_are_in_flight(start, tmp_path):
    """Both may have been answered, so both are uncertain and charged; the node before them is not paid again."""
    first = start("first", "hedged")
    assert ["ready\n", "stuck\n"] == [first.stdout.readline() for _ in range(2)]
    first.send_signal(signal.SIGKILL)
    first.wait()
    value, errors = start("second", "hedged again").communicate(timeout=300)

    assert ("ready\nh!!\n", "") == (value, errors)
    assert 1 == asked(tmp_path)["h"]
    lost = rows(tmp_path, "SELECT number, hedge, cost_nano = reserved_nano FROM attempts WHERE outcome = 'uncertain'")
    assert [(1, 0, 1), (2, 1, 1)] == sorted(lost)
    paid = "SELECT step, count(*) FROM attempts WHERE outcome = 'ok' GROUP BY step ORDER BY step"
    assert [("ask", 1), ("ask_twice", 1)] == rows(tmp_path, paid)
