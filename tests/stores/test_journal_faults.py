"""What is wrong with the file never fails a call that needs nothing from it, and a run with an id before it is paid."""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
import sqlite3
import sys
import threading
from collections import Counter
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from llmflow import Model, Reply, Runtime, StepError, Usage, flow, hookimpl, prompt, step
from llmflow.errors import JournalUnavailable
from llmflow.runtime import SystemClock
from llmflow.stores._database import write_lock
from llmflow.stores._journal import SqliteJournal

from .sqlite_faults import FAULTS as SQLITE_FAULTS

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "journal.db"


def warnings(caplog):
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


class Calls:
    """A flow of three steps, what was asked for it, and what is done to the file between its steps."""

    def __init__(self):
        self.count = Counter()
        self.between = None
        self.model = Model("fake/one", handler=self.answer)

        @step(self.model)
        def ask(word: str) -> str:
            return prompt(word)

        @flow
        async def three(word: str) -> str:
            return await ask(await ask(await ask(word)))

        self.three = three

    async def answer(self, request):
        word = request.messages[-1].content
        self.count[word] += 1
        await checkpoint()
        if len(word) == 2 and self.between is not None:
            between, self.between = self.between, None
            between()
        return Reply(text=word + "x", usage=Usage(input_tokens=1, output_tokens=1), model="fake/one")


@pytest.fixture
def calls():
    return Calls()


class Store:
    """Supplies `faulty://`, a journal in a file with connections of the test's own."""

    def __init__(self, path, connect):
        self.journal = SqliteJournal(path, SystemClock(), connect=connect)

    @hookimpl
    def llmflow_store(self, url):
        return self if url.startswith("faulty:") else None


FAULTS = {**SQLITE_FAULTS, "odd": lambda: RuntimeError("a bug")}


class Failing:
    """Connections whose n-th statement fails, counted over all of them; with `for_good` every one from there on."""

    def __init__(self, number, error, *, for_good=False):
        self.left = number
        self.error = error
        self.for_good = for_good
        self.lock = threading.Lock()

    def connect(self, *args, **kwargs):
        return Connection(sqlite3.connect(*args, **kwargs), self)

    def count(self):
        with self.lock:
            self.left -= 1
            if self.left == 0 or (self.for_good and self.left < 0):
                raise self.error()


class Connection:
    def __init__(self, inner, failing):
        self.__dict__.update(_inner=inner, _failing=failing)

    def execute(self, *args):
        self._failing.count()
        return self._inner.execute(*args)

    def close(self):
        self._inner.close()

    def __setattr__(self, name, value):
        setattr(self._inner, name, value)


@pytest.mark.slow
@pytest.mark.parametrize("for_good", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_any_statement_may_fail(tmp_path, fault, for_good, caplog):
    """Without an id the value is there and it is said once; with one it is, or it is refused and nothing is paid twice."""
    number, done = 1, False
    while not done:
        caplog.clear()
        calls, failing = Calls(), Failing(number, FAULTS[fault], for_good=for_good)
        plugin = Store(tmp_path / f"{number}.db", failing.connect)
        async with Runtime(plugins=[plugin], journal="faulty://"):
            with anyio.fail_after(60):
                assert "_xxx" == await calls.three("_")
                unnamed = len(warnings(caplog))
                try:
                    named = await calls.three.with_(run_id="a")("y")
                except JournalUnavailable:
                    named = None
                failing.left = 10**9
                if named is None:
                    named = await calls.three.with_(run_id="a")("y")
        assert named == "yxxx"
        assert unnamed <= 1 + (fault == "CORRUPT"), (number, warnings(caplog))  # set aside, and the next one too
        # What is lost with a file, or could not be written, is asked once more.
        assert max(calls.count.values()) <= 2, (number, calls.count)
        number += 3 if for_good else 2
        done = number > 120


@pytest.mark.parametrize("damage", ["garbage", "cut", "page", "schema"])
async def test_a_corrupt_file(path, calls, caplog, damage):
    """It is set aside and said; calls go on with a new one, and a run with an id begins anew or is refused, unpaid."""
    async with Runtime(journal=f"sqlite:///{path}"):
        for number in range(30):
            await calls.three.with_(run_id=f"old-{number}")("z" * 3)
    content = bytearray(path.read_bytes())
    if damage == "garbage":
        content = bytearray(b"\x80\x04 no database" * 500)
    elif damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "schema":  # SQLite quotes it in its message, which Python cannot decode
        content = content.replace(b"CREATE TABLE runs", b"CREATE \xff\xfe\xff\xfe\xff runs")
    else:
        content[4096:8192] = random.Random(1).randbytes(4096)
    path.write_bytes(content)

    async with Runtime(journal=f"sqlite:///{path}"):
        assert "_xxx" == await calls.three("_")
        for _ in range(3):
            try:
                assert "yxxx" == await calls.three.with_(run_id="a")("y")
                break
            except JournalUnavailable:
                assert 0 == calls.count["y"]
    async with Runtime(journal=f"sqlite:///{path}"):
        assert "yxxx" == await calls.three.with_(run_id="a")("y")

    assert 1 == calls.count["y"]
    assert len(warnings(caplog)) <= 1
    if damage == "garbage":
        assert f"the journal {path} is corrupt (file is not a database); it was set aside as" in warnings(caplog)[0]
        assert bytes(content) == path.with_name("journal.db.corrupt-1").read_bytes()


@pytest.mark.parametrize("what", ["delete", "delete folder", "replace", "garbage"])
async def test_a_file_that_is_taken_away_in_the_middle_of_a_run(path, calls, caplog, what):
    """A run without an id goes on; one with an id is told before anything more is sent, as it could not be taken up."""

    def take_away():
        if what == "delete folder":
            shutil.rmtree(path.parent)
            return
        for one in path.parent.glob("journal.db*"):
            one.unlink()
        if what == "replace":
            other = sqlite3.connect(path)
            other.executescript("CREATE TABLE cache (x); PRAGMA user_version = 1; DROP TABLE cache;")
            other.close()
        elif what == "garbage":
            path.write_bytes(b"no database at all" * 500)

    async with Runtime(journal=f"sqlite:///{path}"):
        calls.between = take_away
        assert "_xxx" == await calls.three("_")
        calls.between = take_away
        with pytest.raises(JournalUnavailable, match="journal"):
            await calls.three.with_(run_id="a")("y")
        assert {"y": 1, "yx": 1} == {word: times for word, times in calls.count.items() if word[0] == "y"}
        assert "yxxx" == await calls.three.with_(run_id="a")("y")
    async with Runtime(journal=f"sqlite:///{path}"):
        assert "yxxx" == await calls.three.with_(run_id="a")("y")

    assert 2 == calls.count["y"]
    assert len(warnings(caplog)) <= 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
async def test_a_folder_that_cannot_be_written(tmp_path, calls, caplog):
    """Said once."""
    tmp_path.chmod(0o500)
    await _unusable(tmp_path / "journal.db", calls, caplog)
    tmp_path.chmod(0o700)


async def test_a_folder_that_cannot_be_made(tmp_path, calls, caplog):
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    await _unusable(tmp_path / "file" / "journal.db", calls, caplog)


@pytest.mark.parametrize("name", ["lstat", "mkdir"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EACCES])
async def test_any_file_operation_may_fail(path, calls, caplog, monkeypatch, name, code):
    """Whatever the system refuses."""

    def fail(self, *args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, name, fail)
    await _unusable(path, calls, caplog)
    monkeypatch.undo()


async def _unusable(path, calls, caplog):
    async with Runtime(journal=f"sqlite:///{path}"):
        for _ in range(3):
            assert "_xxx" == await calls.three("_")
        for _ in range(2):
            with pytest.raises(JournalUnavailable, match="the journal .* cannot be (used|written)") as caught:
                await calls.three.with_(run_id="a")("y")

    assert 0 == calls.count["y"]
    assert 1 == len(warnings(caplog)), warnings(caplog)
    assert isinstance(caught.value, StepError)


async def test_a_lock_that_somebody_holds(path, calls, caplog, monkeypatch):
    """Calls without an id wait a moment once, then go on; a run with an id waits for the lock and then says so."""
    monkeypatch.setattr("llmflow.stores._database._WRITE_PATIENCE", 0.01)
    monkeypatch.setattr(sys.modules["llmflow.step._recording"], "_PATIENCE", 0.05)
    monkeypatch.setattr("llmflow.stores._journal._BUSY_TRIES", 40)
    async with Runtime(journal=f"sqlite:///{path}") as runtime:
        await calls.three("0")
        await runtime.journal.settled()
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        began = anyio.current_time()
        assert "_xxx" == await calls.three("_")
        took = anyio.current_time() - began
        with pytest.raises(JournalUnavailable, match="database is locked"):
            await calls.three.with_(run_id="a")("y")
        holder.execute("ROLLBACK")
        holder.close()
        assert "yxxx" == await calls.three.with_(run_id="a")("y")

    assert took < 2
    assert {"y": 1, "yx": 1, "yxx": 1} == {word: times for word, times in calls.count.items() if word[0] == "y"}
    assert 1 == len(warnings(caplog))
    assert "the journal" in warnings(caplog)[0] and "database is locked" in warnings(caplog)[0]


async def test_what_waits_is_bounded(path, calls, caplog, monkeypatch):
    """A disk that takes its time does not fill the memory: what is too much is dropped, and that is said once."""
    monkeypatch.setattr(sys.modules["llmflow.step._recording"], "_PATIENCE", 0.01)
    journal = SqliteJournal(path, SystemClock())
    journal._writes._limit = 10
    plugin = Store(path, sqlite3.connect)
    plugin.journal = journal
    async with Runtime(plugins=[plugin], journal="faulty://"):
        with write_lock(path):
            for _ in range(10):
                assert "_xxx" == await calls.three("_")
            assert len(journal._writes._waiting) <= 10

    assert 1 == len(warnings(caplog))
    assert "too much waits to be written" in warnings(caplog)[0]


async def test_what_was_dropped_is_missed(path, calls, caplog, monkeypatch):
    """A run with an id does not go on when a note of it was dropped, as it could not be taken up from there."""
    plugin = Store(path, sqlite3.connect)
    plugin.journal = journal = SqliteJournal(path, SystemClock())

    def full():
        monkeypatch.setattr(journal._writes, "_limit", 0)

    calls.between = full
    async with Runtime(plugins=[plugin], journal="faulty://"):
        with pytest.raises(JournalUnavailable, match="could not be written"):
            await calls.three.with_(run_id="a")("_")
        monkeypatch.undo()
        assert "_xxx" == await calls.three.with_(run_id="a")("_")

    assert {"_": 1, "_x": 2, "_xx": 1} == calls.count


@pytest.mark.parametrize("kind", ["step", "flow", "map"])
async def test_a_file_that_is_taken_away_at_the_last_request(path, kind):
    """Who has run it is told that it is not on record, and does not learn it by paying again."""

    async def answer(request):
        path.parent.rename(path.parent.with_name("gone"))  # all of it at once
        return Reply(text="fine", usage=Usage(input_tokens=1, output_tokens=1), model="fake/one")

    @step(Model("fake/one", handler=answer))
    def ask(word: str) -> str:
        return prompt(word)

    @flow
    async def one(word: str) -> str:
        return await ask(word)

    named = (one if kind == "flow" else ask).with_(run_id="a")
    async with Runtime(journal=f"sqlite:///{path}"):
        with pytest.raises(JournalUnavailable, match="was removed or replaced"):
            await (named.map(["x"]) if kind == "map" else named("x"))


async def test_a_file_that_is_taken_away_while_somebody_waits(path, calls):
    """The second caller waits for the first, who is told; then it begins anew."""
    ends = []
    is_away = anyio.Event()

    async def call(begin):
        await begin.wait()
        try:
            ends.append(await calls.three.with_(run_id="a")("_"))
        except JournalUnavailable as exc:
            ends.append("was removed or replaced" in str(exc))

    async with Runtime(journal=f"sqlite:///{path}"), anyio.create_task_group() as group:

        def remove():
            path.parent.rename(path.parent.with_name("gone"))  # all of it at once
            is_away.set()

        calls.between = remove
        group.start_soon(call, is_away)
        now = anyio.Event()
        now.set()
        group.start_soon(call, now)

    assert [True, "_xxx"] == ends
    assert {"_": 2, "_x": 2, "_xx": 1} == calls.count


async def test_another_file_is_read_when_another_is_written(path, calls, tmp_path):
    """The file was replaced between two runs: what is found comes from the new one."""
    url = f"sqlite:///{path}"
    copy = tmp_path / "copy"
    async with Runtime(journal=url):
        for run_id in ("a", "b"):
            calls.between = _fail
            with pytest.raises(ZeroDivisionError):
                await calls.three.with_(run_id=run_id)("y")
    shutil.copy(path, copy)
    async with Runtime(journal=url):
        assert "yxxx" == await calls.three.with_(run_id="a")("y")  # a reader and a writer are open
        for one in path.parent.glob("journal.db*"):
            one.unlink()
        shutil.copy(copy, path)
        calls.count.clear()
        assert ["yxxx"] * 2 == [await calls.three.with_(run_id=run_id)("y") for run_id in ("a", "b")]

    assert {"yx": 2, "yxx": 2} == calls.count


def _fail():
    raise ZeroDivisionError


async def test_a_claim_that_cannot_be_read_is_given_back(path, calls):
    """The reader's connection fails just after the run was taken: the next call does not find it busy."""
    broken = []

    class Breaks(Connection):
        def execute(self, statement, *values):
            if broken and statement.startswith("SELECT step, sum"):
                broken.pop()
                raise sqlite3.OperationalError("disk I/O error")
            return self._inner.execute(statement, *values)

    plugin = Store(path, lambda *a, **b: Breaks(sqlite3.connect(*a, **b), None))
    async with Runtime(plugins=[plugin], journal="faulty://"):
        calls.between = _fail
        with pytest.raises(ZeroDivisionError):
            await calls.three.with_(run_id="a")("y")
        broken.append(1)
        with pytest.raises(JournalUnavailable, match="cannot be read: disk I/O error"):
            await calls.three.with_(run_id="a")("y")
        with anyio.fail_after(60):
            assert "yxxx" == await calls.three.with_(run_id="a")("y")

    assert {"y": 1, "yx": 2, "yxx": 1} == calls.count
