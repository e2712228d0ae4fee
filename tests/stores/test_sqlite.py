"""`sqlite:///path`: private, bounded, and whatever happens to the file a miss and one warning."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import anyio
import pytest

from llmflow import Cache, DefinitionError, Model, Runtime, prompt, step
from llmflow.stores._sqlite import SqliteCache

from .sqlite_faults import FAULTS

pytestmark = pytest.mark.anyio


class Clock:
    """A wall clock and a monotonic one, both set by the test."""

    def __init__(self):
        self.wall = 1_000_000.0
        self.mono = 50.0

    def time(self):
        return self.wall

    def monotonic(self):
        return self.mono

    async def sleep(self, seconds, /):
        raise AssertionError("nobody sleeps here")

    def tick(self, seconds):
        self.wall += seconds
        self.mono += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "cache.db"


@pytest.fixture
def store(path, clock):
    made = SqliteCache(path, clock)
    yield made
    made.close()


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def reopened(store, clock, **options):
    store.close()
    return SqliteCache(store.path, clock, **options)


def warnings(caplog):
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


# -- keeping -----------------------------------------------------------------------------------------------------------


async def test_what_is_kept_is_found_at_once_and_later(store, clock):
    """Before it is written, from the file, and by the next process."""
    await store.put("k", b'{"a": 1}', seconds=10)
    at_once = await store.get("k")
    store.close()
    clock.tick(3)

    assert ((b'{"a": 1}', 0.0), (b'{"a": 1}', 3.0)) == (at_once, await store.get("k"))
    assert (b'{"a": 1}', 3.0) == await reopened(store, clock).get("k")


async def test_an_entry_ends(store, clock):
    """At its expiry and not a moment later."""
    await store.put("k", b"{}", seconds=10)
    store.close()
    clock.tick(9.9)
    before = await store.get("k")
    clock.tick(0.1)

    assert (True, None) == (before is not None, await store.get("k"))


async def test_no_file_is_made_before_something_is_kept(store, path):
    """Looking leaves no trace."""
    assert None is await store.get("k")
    store.close()
    assert not path.parent.exists()


async def test_the_file_is_its_owner_s_alone(store, path):
    """Fault 51: the folder is 0700 and every file 0600, whatever the umask is."""
    before = os.umask(0)
    try:
        await store.put("k", b"{}", seconds=10)
        store._writes.flush(5)
        files = sorted(path.parent.iterdir())
        modes = [mode(one) for one in files]
    finally:
        os.umask(before)

    assert ["cache.db", "cache.db-shm", "cache.db-wal"] == [one.name for one in files]
    assert (0o700, [0o600] * 3) == (mode(path.parent), modes)


async def test_rights_that_are_too_wide_are_taken_back(store, path):
    """Somebody copied the file with others' rights; the next use closes it."""
    await store.put("k", b"{}", seconds=10)
    store.close()
    path.chmod(0o644)

    assert await store.get("k") is not None
    assert 0o600 == mode(path)


@pytest.mark.parametrize("planted", ["cache.db", "cache.db-wal"])
async def test_a_link_in_its_place_is_not_followed(store, path, tmp_path, caplog, planted):
    """A link could point at a file that somebody else reads, or that must not be changed."""
    target = tmp_path / "target"
    target.write_bytes(b"")
    path.parent.mkdir()
    (path.parent / planted).symlink_to(target)

    await store.put("k", b"{}", seconds=10)
    store.close()

    assert (None, b"") == (await store.get("k"), target.read_bytes())
    assert all("is not a regular file" in one for one in warnings(caplog))


async def test_the_number_of_entries_is_bounded(path, clock, monkeypatch):
    """K6: the oldest go first."""
    monkeypatch.setattr("llmflow.stores._sqlite._PRUNED_EVERY", 1)
    store = SqliteCache(path, clock, entries=10)
    for number in range(30):
        clock.tick(1)
        await store.put(str(number), b"{}", seconds=1000)
        store._writes.flush(5)
    kept = [number for number in range(30) if await store.get(str(number)) is not None]
    store.close()

    assert len(kept) <= 10
    assert list(range(30 - len(kept), 30)) == kept


async def test_the_bytes_are_bounded(path, clock, monkeypatch):
    """K6: and one entry larger than everything is not kept."""
    monkeypatch.setattr("llmflow.stores._sqlite._PRUNED_EVERY", 1)
    store = SqliteCache(path, clock, size=10_000)
    for number in range(20):
        await store.put(str(number), b"x" * 1000, seconds=1000)
        store._writes.flush(5)
    await store.put("large", b"x" * 10_001, seconds=1000)
    sizes = [one.size for one in store.entries()]
    store.close()

    assert 0 < sum(sizes) <= 10_000
    assert 10_001 not in sizes


async def test_what_is_over_is_dropped(path, clock, monkeypatch):
    """It does not stay in the file for ever."""
    monkeypatch.setattr("llmflow.stores._sqlite._PRUNED_EVERY", 1)
    store = SqliteCache(path, clock)
    await store.put("old", b"{}", seconds=1)
    store._writes.flush(5)
    clock.tick(2)
    await store.put("new", b"{}", seconds=100)
    keys = [one.key for one in store.entries()]
    store.close()

    assert ["new"] == keys


async def test_a_store_that_closes_opens_again(store):
    """`close` writes, and the next use goes on."""
    for number in range(3):
        await store.put(str(number), b"{}", seconds=10)
        await store.aclose()

    assert [True] * 3 == [await store.get(str(number)) is not None for number in range(3)]


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///folder/",
        "sqlite:///a.db?mode=ro",
        "sqlite:///a\0.db",
    ],
)
def test_an_address_without_a_file_is_refused(url):
    """Where the runtime is made, naming it."""
    with pytest.raises(DefinitionError, match="names no file"):
        Runtime(cache=url)


def test_an_unknown_scheme_is_refused():
    """The message names the argument, the address and what there is."""
    with pytest.raises(DefinitionError) as caught:
        Runtime(store="redis://localhost")

    assert (
        "Runtime(store='redis://localhost'): no plugin supplies this store; built in are 'memory://' and 'sqlite:///path'"
        == str(caught.value)
    )


# -- clocks ------------------------------------------------------------------------------------------------------------


async def test_an_entry_from_the_future_is_a_miss(store, clock):
    """The clock was set back while no process ran: nobody knows how old the entry is."""
    await store.put("k", b"{}", seconds=10)
    other = reopened(store, Clock())
    other._clock.wall = clock.wall - 100

    assert None is await other.get("k")


async def test_a_clock_set_forward_shortens_lives(store, clock):
    """Never the other way."""
    await store.put("k", b"{}", seconds=10)
    clock.wall += 3600

    assert None is await store.get("k")


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("back", [1, 5, 59, 3600])
async def test_a_clock_set_back_lengthens_no_life(store, clock, back, written):
    """After ttl seconds of real time it is over, however the wall clock was set in between, in this process and after."""
    await store.put("k", b"{}", seconds=60)
    if written:
        store.close()
    clock.tick(30)
    await store.get("other")
    clock.wall -= back
    clock.mono += 0.001
    await store.get("other")
    clock.tick(29.9)
    before_its_end = await store.get("k")
    clock.tick(0.2)
    at_its_end = await store.get("k")

    assert before_its_end is None or before_its_end.age >= 59.9
    assert None is at_its_end
    assert None is await reopened(store, clock).get("k")


# -- faults ------------------------------------------------------------------------------------------------------------


def ask_through(url, count=3, clock=None):
    """Ask the same `count` times in a runtime with this cache; return what a caller sees and how often was asked."""
    asked = []

    async def answer(request):
        asked.append(request)
        return "fine"

    @step(Model("fake/one", handler=answer), Cache("1h"))
    def question(word: str) -> str:
        return prompt(word)

    with Runtime(cache=url, clock=clock):
        values = [question.sync("x") for _ in range(count)]
    return values, len(asked)


GARBAGE = b"\x80\x04\x95 pickle, or what was left of a file" * 200


def test_a_file_that_is_no_database(path, caplog):
    """Fault 47: set aside, one warning, and a new one is begun."""
    path.parent.mkdir()
    path.write_bytes(GARBAGE)

    values, asked = ask_through(f"sqlite:///{path}")

    assert (["fine"] * 3, 1) == (values, asked)
    assert GARBAGE == path.with_name("cache.db.corrupt-1").read_bytes()
    assert 1 == len(warnings(caplog))
    assert "is corrupt (file is not a database); it was set aside as cache.db.corrupt-1" in warnings(caplog)[0]
    assert b"SQLite format 3" == path.read_bytes()[:15]


@pytest.mark.parametrize("damage", range(0, 12))
async def test_a_page_that_was_overwritten(store, path, clock, caplog, damage):
    """Fault 47: wherever the damage is, what is read is right or a miss."""
    for number in range(200):
        await store.put(str(number), b'{"number": %d, "padding": "%s"}' % (number, b"x" * 100), seconds=1000)
    store.close()
    content = bytearray(path.read_bytes())
    begin = 100 + damage * (len(content) - 600) // 12
    content[begin : begin + 500] = random.Random(damage).randbytes(500)  # noqa: S311
    path.write_bytes(content)
    store = SqliteCache(path, clock)

    for number in range(200):
        found = await store.get(str(number))
        assert found is None or len(found.entry) > 0
        await store.put(str(number), b"{}", seconds=1000)
    store.close()

    assert len(warnings(caplog)) == len(set(warnings(caplog))) <= 3


async def test_a_schema_that_nobody_can_read(store, path, clock, caplog):
    """Fault 47: SQLite's message quotes it, which Python then cannot decode; the file is set aside all the same."""
    await store.put("k", b"{}", seconds=1000)
    store.close()
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE cache", b"CREATE \xff\xfe\xff\xfe\xff cache"))
    store = SqliteCache(path, clock)

    found = await store.get("k")
    await store.put("other", b"{}", seconds=1000)
    store.close()
    clock.mono += 10  # a file that could not be read rests a moment

    assert found is None
    assert (await store.get("other")).entry == b"{}"
    assert ["cache.db", "cache.db.corrupt-1"] == sorted(
        one.name for one in path.parent.glob("*") if "-shm" not in one.name and "-wal" not in one.name
    )
    assert "is corrupt (malformed database schema); it was set aside" in warnings(caplog)[0]


@pytest.mark.parametrize("entry", [b"\xff\xfe", None, 5, "text"])
async def test_a_row_that_somebody_planted(store, path, caplog, entry):
    """It is a miss; other rows are not touched."""
    await store.put("good", b"{}", seconds=1000)
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("INSERT OR IGNORE INTO cache VALUES ('k', ?, 1, 'soon', 'later')", (entry,))
    connection.close()

    assert (None, True) == (await store.get("k"), await store.get("good") is not None)
    assert len(warnings(caplog)) <= 1


async def test_the_database_of_another_program_is_left_alone(store, path, caplog):
    """Its tables are not ours to change, and neither is who may read it."""
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE cache (mine)")
    connection.close()
    path.chmod(0o664)
    before = path.read_bytes()

    await store.put("k", b"{}", seconds=10)
    store.close()

    assert (None, before) == (await store.get("k"), path.read_bytes())
    assert 0o664 == stat.S_IMODE(path.stat().st_mode)
    assert 1 == len(warnings(caplog))
    assert "it is the database of another program" in warnings(caplog)[0]


async def test_a_newer_llmflow_s_file_is_left_alone(store, path, caplog):
    """An older version does not guess what its tables mean."""
    await store.put("k", b"{}", seconds=10)
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()

    assert None is await store.get("k")
    assert "it was made by a newer llmflow (version 99" in warnings(caplog)[0]


async def test_a_file_that_is_deleted_under_it(store, path, clock):
    """It is made anew with the next entry, and nothing is given from the one that is gone."""
    await store.put("one", b"{}", seconds=1000)
    store._writes.flush(5)
    await store.get("one")
    shutil.rmtree(path.parent)
    clock.tick(2)

    gone = await store.get("one")
    await store.put("two", b"{}", seconds=1000)
    store.close()

    assert (None, True, True) == (gone, await store.get("two") is not None, path.exists())


async def test_a_file_that_another_process_locks(store, path, caplog, monkeypatch):
    """Fault 52: a reader waits a moment and goes on; the rest is not tried again and again."""
    monkeypatch.setattr("llmflow.stores._database._READ_PATIENCE", 0.3)
    await store.put("k", b"{}", seconds=1000)
    store.close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA journal_mode = DELETE")
    holder.execute("BEGIN EXCLUSIVE")
    began = time.perf_counter()
    found = [await store.get("k") for _ in range(100)]
    took = time.perf_counter() - began
    holder.execute("ROLLBACK")
    holder.close()

    assert ([None] * 100, True) == (found, took < 20)  # and not the 30 s of waiting each time
    assert 1 == len(warnings(caplog))
    assert "database is locked" in warnings(caplog)[0]


async def test_a_folder_that_cannot_be_made(tmp_path, caplog):
    """Fault 48: a file stands where the folder should be."""
    (tmp_path / "file").write_text("")

    values, asked = await anyio.to_thread.run_sync(ask_through, f"sqlite:///{tmp_path}/file/cache.db")

    assert (["fine"] * 3, True) == (values, asked >= 1)
    assert len(warnings(caplog)) == len(set(warnings(caplog))) >= 1


async def test_too_much_to_write_is_not_kept(path, clock, caplog, monkeypatch):
    """K6: what waits is bounded too; what does not fit is dropped with one warning."""
    monkeypatch.setattr("llmflow.stores._sqlite._WAITING", 10)
    store = SqliteCache(path, clock)
    with store._writing:  # the disk takes its time
        for number in range(50):
            await store.put(str(number), b"{}", seconds=100)
        kept = [number for number in range(50) if str(number) in store._pending]
    store.close()

    assert 10 <= len(kept) <= 20
    assert 1 == len(warnings(caplog))
    assert "too much waits to be written" in warnings(caplog)[0]


class Failing:
    """A connection whose n-th statement, counted over all connections, fails."""

    def __init__(self, number, error):
        self.left = number
        self.error = error
        self.lock = threading.Lock()

    def connect(self, *args, **kwargs):
        self.count()
        return Connection(sqlite3.connect(*args, **kwargs), self)

    def count(self):
        with self.lock:
            self.left -= 1
            if self.left == 0:
                raise self.error()


class Connection:
    def __init__(self, inner, failing):
        self.__dict__.update(_inner=inner, _failing=failing)

    def execute(self, *args):
        self._failing.count()
        return self._inner.execute(*args)

    def executemany(self, *args):
        self._failing.count()
        return self._inner.executemany(*args)

    def close(self):
        self._inner.close()

    def __setattr__(self, name, value):
        setattr(self._inner, name, value)


@pytest.mark.parametrize("fault", FAULTS)
async def test_any_statement_may_fail(tmp_path, fault, caplog):
    """Fault 49: at whichever statement the disk fails, what is read is right or a miss, and it is said once."""
    clock = Clock()
    for number in range(1, 60):
        caplog.clear()
        failing = Failing(number, FAULTS[fault])
        store = SqliteCache(tmp_path / str(number) / "cache.db", clock, connect=failing.connect)
        for turn in range(3):
            for key in "ab":
                found = await store.get(key)
                assert found is None or found.entry.startswith(b'{"key": "%s"' % key.encode())
                await store.put(key, b'{"key": "%s", "turn": %d}' % (key.encode(), turn), seconds=100)
            store._writes.flush(5)
            clock.tick(2)
        store.close()
        assert len(warnings(caplog)) <= 1
        if failing.left > 0:  # there are no more statements than this
            break
    assert failing.left > 0


@pytest.mark.parametrize("name", ["lstat", "chmod", "mkdir"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EACCES])
async def test_any_file_operation_may_fail(store, caplog, monkeypatch, name, code):
    """Fault 48: a folder that cannot be made or looked at is a miss and one warning."""

    def fail(self, *args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, name, fail)
    await store.put("k", b"{}", seconds=10)
    store._writes.flush(5)
    found = await store.get("k")
    monkeypatch.undo()

    assert None is found
    assert len(warnings(caplog)) <= 2 and warnings(caplog)


# -- processes ---------------------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from llmflow.runtime import SystemClock
from llmflow.stores._sqlite import SqliteCache
import anyio

async def main():
    store = SqliteCache(Path(sys.argv[1]), SystemClock())
    print("ready", flush=True)
    number = int(sys.argv[2])
    while True:
        for _ in range(20):
            number += 1
            await store.put(f"key-{number % 50}", b'{"number": %d, "again": %d, "padding": "%s"}' % (number, number, b"x" * (number * 37 % 3000)), seconds=1000)
        store._writes.flush(5)

anyio.run(main)
"""


def start_writer(path, number):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(number)], stdout=subprocess.PIPE, env=environment
    )


FORKED = """
import os, signal, sys, time
sys.argv = ["-c", sys.argv[1], "0"]
from pathlib import Path
from random import Random
import anyio
from llmflow.runtime import SystemClock
from llmflow.stores._sqlite import SqliteCache

source = sys.stdin.read()
random = Random(7)
for round in range(100):
    child = os.fork()
    if child == 0:
        sys.argv[2] = str(round * 1000)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        exec(source)
    time.sleep(0.02 + random.random() * 0.05)
    wal = Path(sys.argv[1] + "-wal")
    while round == 10 and not (wal.exists() and wal.stat().st_size > 200_000):
        time.sleep(0.01)  # on a busy machine no child came as far as to make the tables
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


async def check_entries(path):
    """Read every entry as a new process would; return how many there are."""
    from pydantic_core import from_json

    from llmflow.runtime import SystemClock

    store = SqliteCache(path, SystemClock())
    found = [one for number in range(50) if (one := await store.get(f"key-{number}")) is not None]
    store.close()
    for one in found:
        entry = from_json(one.entry)
        assert entry["number"] == entry["again"]
        assert entry["number"] * 37 % 3000 == len(entry["padding"])
    return len(found)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hundred_kills_while_the_file_is_written(tmp_path, caplog):
    """Fault 46, K7: after 100 times kill -9 each entry is right or absent, and the file opens without a warning."""
    path = tmp_path / "cache.db"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = await anyio.to_thread.run_sync(
        lambda: subprocess.run(
            [sys.executable, "-c", FORKED, str(path)], input=WRITER, text=True, env=environment, timeout=600, check=True
        )
    )
    assert 0 == done.returncode
    with sqlite3.connect(path) as connection:
        intact = connection.execute("PRAGMA integrity_check").fetchone()[0]
    connection.close()

    assert ("ok", True) == (intact, await check_entries(path) > 0)
    assert [] == warnings(caplog)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_two_processes_share_a_file(tmp_path, caplog, monkeypatch):
    """Fault 52: both write and read it, nobody meets a lock that stays, and what one kept the other finds."""
    # A process that stands still in the middle of making the tables has their lock for so long.
    monkeypatch.setattr("llmflow.stores._database._READ_PATIENCE", 60.0)
    path = tmp_path / "cache.db"
    writers = [start_writer(path, number) for number in (0, 1_000_000)]
    try:
        for one in writers:
            one.stdout.readline()
        looks = found = 0
        with anyio.fail_after(120):
            while looks < 20 or found < 50:
                looks, found = looks + 1, await check_entries(path)
                await anyio.sleep(0.02)
    finally:
        for one in writers:
            one.send_signal(signal.SIGKILL)
            one.wait()
            one.stdout.close()

    assert [] == warnings(caplog)


def _child(store, answers):
    async def main():
        found = await store.get("parent")
        await store.put("child", b"{}", seconds=100)
        return found is not None

    answers.put(anyio.run(main))
    store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_begins_anew(store):
    """It reads and writes the same file with a thread and connections of its own."""

    async def parent():
        await store.put("parent", b"{}", seconds=100)
        store._writes.flush(5)
        return await store.get("parent")

    anyio.run(parent)
    multiprocess = multiprocessing.get_context("fork")
    answers = multiprocess.Queue()
    process = multiprocess.Process(target=_child, args=(store, answers))
    process.start()
    read = answers.get(timeout=120)
    process.join(120)

    assert (True, 0) == (read, process.exitcode)
    assert anyio.run(store.get, "child") is not None


def test_what_waits_is_written_when_the_program_ends(tmp_path):
    """Nobody closed the runtime; the answer is there for the next program all the same."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from llmflow import Cache, Model, prompt, step, Runtime\n"
        "async def answer(request):\n"
        "    print('asked', file=sys.stderr)\n"
        "    return 'fine'\n"
        "@step(Model('fake/one', handler=answer), Cache('1h'))\n"
        "def question(word: str) -> str:\n"
        "    return prompt(word)\n"
        "Runtime(cache='sqlite:///cache.db').install()\n"
        "print(question.sync('x'))\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    runs = [
        subprocess.run([sys.executable, str(program)], cwd=tmp_path, env=environment, capture_output=True, text=True)
        for _ in range(2)
    ]

    assert ["fine\n", "fine\n"] == [one.stdout for one in runs]
    assert ["asked\n", ""] == [one.stderr for one in runs]


def test_threads_read_and_write_at_once(store):
    """One connection serves all threads; each reads its own or a later entry."""
    failures = []

    async def work(name):
        for number in range(100):
            await store.put(name, b'{"number": %d}' % number, seconds=100)
            found = await store.get(name)
            if found is None or found.entry != b'{"number": %d}' % number:
                failures.append((name, number, found))

    threads = [threading.Thread(target=anyio.run, args=(work, f"t{index}")) for index in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(120)

    assert [] == failures


# -- for people --------------------------------------------------------------------------------------------------------


async def test_entries_are_listed_without_their_answers(store, clock):
    """The newest first, with step, model, size and age."""
    for step_name in ("one", "two"):
        clock.tick(5)
        await store.put(step_name, b'{"step": "%s", "model": "a/b", "text": "secret"}' % step_name.encode(), seconds=60)
    listed = list(store.entries())

    assert [("two", "a/b", 0.0, 60.0), ("one", "a/b", 5.0, 55.0)] == [
        (one.step, one.model, one.age, one.expires_in) for one in listed
    ]
    assert "secret" not in repr(listed)


async def test_entries_are_dropped_by_step_or_all(store, path):
    """And are not left in the file's free pages."""
    for number, name in enumerate([b"one", b"two", b"two"]):
        await store.put(str(number), b'{"step": "%s", "text": "secret-%s"}' % (name, name), seconds=60)

    assert (2, 0, 1, 0) == (store.clear("two"), store.clear("two"), store.clear(), store.clear())
    store.close()
    assert b"secret" not in path.read_bytes()


async def test_a_file_that_is_just_being_made_is_ours(store, path, clock):
    """Fault 52: another process makes the tables between two looks at the file; it is not taken for somebody else's."""
    await store.put("k", b"{}", seconds=100)
    store.close()
    content = path.read_bytes()

    class Late(Connection):
        """Sees an empty database at its first look, and the finished one from then on."""

        def execute(self, *args):
            if "sqlite_master" in args[0]:
                return sqlite3.connect(":memory:").execute(*args)
            return self._inner.execute(*args)

    made = SqliteCache(path, clock, connect=lambda *args, **kwargs: Late(sqlite3.connect(*args, **kwargs), None))

    assert (True, content) == (await made.get("k") is not None, path.read_bytes())
    made.close()


@pytest.mark.parametrize("option", ["store", "cache", "journal", "shared"])
def test_s2_the_password_in_an_address_is_in_no_message(option):
    """S2: the address of a store that nobody supplies is named without who logs in to it."""
    with pytest.raises(DefinitionError) as caught:
        Runtime(**{option: "redis://me:s3cret@db.example/0"})

    assert f"Runtime({option}='redis://***@db.example/0'): no plugin supplies this store" in str(caught.value)


@pytest.mark.parametrize("option", ["store", "cache"])
def test_a_path_is_no_address(option, tmp_path):
    """The message says what an address looks like, instead of blaming the plugin that is asked first."""
    with pytest.raises(DefinitionError, match=rf"Runtime\({option}=.*\): expected an address, .*'sqlite:///path'"):
        Runtime(**{option: tmp_path / "answers.db"})
