"""`memory://` as a journal: the same tables, bounded, and no file."""

from __future__ import annotations

import tracemalloc

import pytest

from llmflow import Model, Reply, Runtime, Usage, flow, prompt, step
from llmflow.runtime import SystemClock
from llmflow.stores._journal_memory import MemoryJournal
from tests.stores.test_journal import closed, opened

pytestmark = pytest.mark.anyio


async def answer(request):
    return Reply(text=request.messages[-1].content, usage=Usage(input_tokens=1, output_tokens=1), model="fake/one")


@step(Model("fake/one", handler=answer))
def ask(word: str) -> str:
    return prompt(word)


@flow
async def ask_twice(word: str) -> str:
    return await ask(await ask(word))


def count(runtime, table):
    with runtime.journal.reading() as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


async def test_it_becomes_rows_when_somebody_looks(tmp_path, monkeypatch):
    """Runs with an id and without; without one there are no nodes. Nothing is left on disk."""
    monkeypatch.chdir(tmp_path)
    async with Runtime() as runtime:
        await ask_twice("x")
        await ask_twice.with_(run_id="a")("x")
        with runtime.journal.reading() as connection:
            runs = connection.execute("SELECT target, kind, status, named FROM runs ORDER BY named").fetchall()
            nodes = connection.execute("SELECT run_id, key FROM nodes ORDER BY key").fetchall()

    assert [("ask_twice", "flow", "ok", 0), ("ask_twice", "flow", "ok", 1)] == runs
    assert [("a", "ask_twice/ask"), ("a", "ask_twice/ask#2")] == nodes
    assert [] == list(tmp_path.iterdir())


async def test_an_end_in_the_middle_of_a_claim(monkeypatch):
    """Another thread ends the run just then: it is busy or ended, and never run by two."""
    journal = MemoryJournal(SystemClock())
    await journal.claim(opened())
    read = journal._connection

    def reads_and_then_it_ends():
        connection = read()
        journal.write(closed(status="ok"))
        return connection

    monkeypatch.setattr(journal, "_connection", reads_and_then_it_ends)
    first = await journal.claim(opened())

    assert "busy" == first.state
    assert "finished" == (await journal.claim(opened())).state


async def test_runs_and_events_are_bounded(monkeypatch):
    """Those that ended first go first, with their nodes; calls and requests have a bound of their own."""
    monkeypatch.setattr("llmflow.stores._journal_memory._RUNS", 10)
    monkeypatch.setattr("llmflow.stores._journal_memory._CALLS", 15)
    monkeypatch.setattr("llmflow.stores._journal_memory._BATCH", 1)
    async with Runtime() as runtime:
        for number in range(40):
            await ask_twice.with_(run_id=str(number))("x")
        for _ in range(40):
            await ask("x")
        with runtime.journal.reading() as connection:
            assert len(connection.execute("SELECT DISTINCT run_id FROM nodes").fetchall()) <= 10
        counts = [count(runtime, table) for table in ("runs", "calls", "attempts")]
        again = await ask_twice.with_(run_id="0").run("x")

    assert (10, False) == (counts[0], again.recorded)
    assert all(number <= 16 for number in counts[1:])


async def test_events_that_nobody_looks_at_are_bounded():
    """The deque has an end, so a program that runs for a month does not grow."""
    async with Runtime() as runtime:
        for _ in range(300):
            await ask("x")
        journal = runtime.journal

        assert (10_000, None) == (journal._events.maxlen, journal._made)


@pytest.mark.slow
@pytest.mark.parametrize("named", [False, True])
async def test_ten_thousand_mapped_calls_with_a_file(tmp_path, named):
    """They take less than 100 MB more than before, whoever waits for the disk."""
    unit = ask.with_(run_id="a") if named else ask
    async with Runtime(journal=f"sqlite:///{tmp_path}/journal.db"):
        await ask.map(["warm"])
        tracemalloc.start()
        try:
            values = await unit.map([f"{number:0100}" for number in range(10_000)])
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert 10_000 == len(values)
    assert peak < 100 * 2**20
