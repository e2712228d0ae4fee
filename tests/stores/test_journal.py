"""`sqlite:///path` as a journal: what is written, who may have a run, and what a file of another version holds."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from decimal import Decimal

import anyio
import pytest

from llmflow import Cache, Model, Reply, RunConflict, Runtime, Usage, context, flow, prompt, step, task
from llmflow.context import Frame, Run, frame
from llmflow.errors import JournalUnavailable
from llmflow.events import AttemptFinished, AttemptStarted, CallFinished
from llmflow.journal import NodeClosed, RunClosed, RunOpened
from llmflow.stores._database import VERSION, write_lock
from llmflow.stores._journal import SqliteJournal
from llmflow.stores._journal_memory import MemoryJournal
from llmflow.stores._owner import LEASE, is_alive, myself
from llmflow.stores._sqlite import SqliteCache
from llmflow.testing._scripted import scripted

pytestmark = pytest.mark.anyio


class Clock:
    """A wall clock set by the test; nobody sleeps on it."""

    def __init__(self):
        self.now = 1_000_000.0

    def time(self):
        return self.now

    def monotonic(self):
        return self.now

    async def sleep(self, seconds, /):
        await anyio.sleep(seconds)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "journal.db"


@pytest.fixture
def journal(path, clock):
    made = SqliteJournal(path, clock)
    yield made
    made.close()


def opened(run_id="a", **options):
    said = {"target": "ask", "kind": "flow", "started": 1.0, "named": True, "input_hash": "h", **options}
    return RunOpened(run_id=run_id, **said)


def closed(run_id="a", status="failed", **options):
    return RunClosed(run_id=run_id, status=status, finished=2.0, latency_s=1.0, **options)


def node(key, run_id="a", **options):
    said = {"name": key, "kind": "step", "status": "ok", "started": 1.0, "latency_s": 0.5, "output": b"1", **options}
    return NodeClosed(run_id=run_id, key=key, **said)


def started(key="n", call="c", number=1, **options):
    return AttemptStarted(run_id="a", call_id=call, step="s", model="m/x", number=number, node=key, **options)


def finished(key="n", call="c", number=1, outcome="ok", **options):
    return AttemptFinished(
        run_id="a",
        call_id=call,
        step="s",
        model="m/x",
        number=number,
        outcome=outcome,
        latency_s=0.1,
        node=key,
        **options,
    )


def called(key="n", call="c"):
    return CallFinished(run_id="a", call_id=call, step="s", latency_s=0.1, attempts=1, reasks=0, node=key)


def rows(path, statement, *values):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(statement, values).fetchall()
    finally:
        connection.close()


def change(path, statement):
    """Do what another process does."""
    with sqlite3.connect(path) as other:
        other.execute(statement)
    other.close()


def warnings(caplog):
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


async def answer(request):
    return Reply(text="fine", usage=Usage(input_tokens=1, output_tokens=1), model="fine")


@step(Model("fake/one", handler=answer))
def ask(word: str) -> str:
    return prompt(f"Ask {word}")


@flow
async def ask_twice(word: str) -> str:
    return await ask(await ask(word))


# -- what is in the file -----------------------------------------------------------------------------------------------


async def test_a_run_is_new_busy_resumed_finished(journal, clock):
    """The four states, in the order of a life."""
    states = [(await journal.claim(opened())).state, (await journal.claim(opened())).state]
    journal.write(closed())
    states.append((await journal.claim(opened())).state)
    journal.write(closed(status="ok", output=b'"x"'))
    last = await journal.claim(opened())

    assert ["new", "busy", "resumed", "finished"] == [*states, last.state]
    assert ("ok", b'"x"') == (last.run.status, last.run.output)


async def test_a_run_is_taken_up_once_the_file_says_how_it_ended(journal, path, clock, monkeypatch):
    """Another journal of the process waits for what is still on the way to the file, or it would pay for that again."""
    monkeypatch.setattr("llmflow.stores._writer._GATHERING", 60.0)
    await journal.claim(opened())
    journal.write(node("n"))
    journal.write(closed())
    other = SqliteJournal(path, clock)

    before = await other.claim(opened())
    await journal.settled()
    after = await other.claim(opened())
    other.close()

    assert ("busy", "resumed") == (before.state, after.state)
    assert b"1" == after.find("n").output


async def test_an_end_that_nobody_writes_keeps_no_run(journal, path, clock, monkeypatch):
    """It was dropped, as too much waited: the run can be taken up all the same."""
    await journal.claim(opened())
    monkeypatch.setattr(journal._writes, "_limit", 0)
    journal.write(closed())
    other = SqliteJournal(path, clock)

    assert "resumed" == (await other.claim(opened())).state
    other.close()


async def test_what_has_ended_is_let_go_of_under_the_lock(journal, path, monkeypatch):
    """Whoever gets the lock next may take the run up, and that must not be undone by its end."""
    release, was_locked = journal._release, []

    def releases(run_ids):
        was_locked.extend(write_lock(path).locked() for _ in run_ids)
        release(run_ids)

    monkeypatch.setattr(journal, "_release", releases)
    await journal.claim(opened())
    journal.write(closed())

    assert "resumed" == (await journal.claim(opened())).state
    assert [True] == was_locked
    assert "busy" == (await journal.claim(opened())).state


@pytest.mark.parametrize("how", ["a link", "dots"])
async def test_one_file_by_two_names(journal, path, clock, how):
    """The process that runs it is the same, and so is the file."""
    await journal.claim(opened())
    if how == "a link":
        (path.parent.parent / "link").symlink_to(path.parent)
    name = path.parent.parent / ("link" if how == "a link" else "folder/../folder") / path.name
    other = SqliteJournal(name, clock)

    assert "busy" == (await other.claim(opened())).state
    other.close()


async def test_a_map_that_has_ended_is_taken_up(journal):
    """Its items may have become more."""
    await journal.claim(opened(kind="map"))
    journal.write(closed(status="ok"))

    assert "resumed" == (await journal.claim(opened(kind="map"))).state


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"target": "draft"}, "run 'a' is a flow of 'ask', not a flow of 'draft'; use another run id"),
        ({"kind": "step"}, "run 'a' is a flow of 'ask', not a step of 'ask'; use another run id"),
        ({"input_hash": "i"}, "run 'a' was begun with other inputs; use another run id for these"),
    ],
)
async def test_another_run_under_the_id(journal, other, message):
    """Refused with what is different, and the file is not locked by that."""
    await journal.claim(opened())
    journal.write(closed())
    with pytest.raises(RunConflict) as caught:
        await journal.claim(opened(**other))

    assert (message, "resumed") == (str(caught.value), (await journal.claim(opened())).state)


async def test_what_a_claim_finds(journal):
    """Nodes by key, versions of those that went well, what was spent by step, graphs."""
    await journal.claim(opened())
    for one in (
        node("a", prompt_version="v1", inputs=b"{}", model="m/x", input_hash="i"),
        node("b", status="failed", output=None, error="ValueError", message="no"),
        started("n", "c"),
        finished("n", "c", usage=Usage(input_tokens=3, output_tokens=4)),
        called("n", "c"),
        node("n", prompt_version="v2"),
        closed(),
    ):
        journal.write(one)
    claim = await journal.claim(opened())

    found = claim.find("a")
    assert ("a", "ok", "v1", b"{}", b"1", "m/x", "i") == (
        *(found.key, found.status, found.prompt_version, found.inputs, found.output, found.model, found.input_hash),
    )
    assert ("failed", "ValueError", None) == (claim.find("b").status, claim.find("b").error, claim.find("zzz"))
    assert [("a", "a", "step", "v1"), ("n", "n", "step", "v2")] == claim.versions()
    assert ({"s": (0, 7, 1)}, None) == (claim.spent(), claim.nodes_of("zzz"))


@pytest.mark.parametrize(
    ("end", "taken"),
    [
        ({"usage": Usage(input_tokens=3, output_tokens=4), "cost_usd": Decimal("0.1")}, (100_000_000, 7)),
        ({"outcome": "cancelled"}, (500_000_000, 90)),
        ({"outcome": "ProviderTimeout"}, (500_000_000, 90)),
        ({"outcome": "ProviderUnavailable", "status": 503, "cost_usd": Decimal(0)}, (0, 0)),
        ({"outcome": "BadRequest", "status": 400}, (0, 0)),
        ({"outcome": "ProviderTimeout", "cost_usd": Decimal(0)}, (0, 90)),
        ({"outcome": "ProviderUnavailable", "cost_usd": Decimal(0), "sent": False}, (0, 0)),
        (None, (500_000_000, 90)),
    ],
    ids=["answered", "cancelled", "timed out", "refused", "refused, no price", "free", "not sent", "in flight"],
)
async def test_what_earlier_tries_took_is_what_a_budget_counts(journal, end, taken):
    """What nobody knows counts as it was reserved; what was answered with an error counts nothing."""
    await journal.claim(opened())
    journal.write(started(reserved_usd=Decimal("0.5"), reserved_tokens=90))
    if end is not None:
        journal.write(finished(**end))
        journal.write(called())
    journal.write(closed())

    was_sent = end is None or end.get("sent", True)
    assert {"s": (*taken, was_sent)} == (await journal.claim(opened())).spent()


async def test_a_number_that_is_used_again_is_in_flight(journal, path):
    """A hedge that was not sent gives its number back, and the next request takes it, all in one batch."""
    await journal.claim(opened())
    for note in (started(number=2), finished(number=2, outcome="cancelled", sent=False), started(number=2)):
        journal.write(note)
    await journal.settled()

    assert [(2, None, 1)] == rows(path, "SELECT number, outcome, sent FROM attempts")


async def test_requests_come_with_their_node(journal, path):
    """An answer whose node is not written yet is not on record as one: what is there can be used again."""
    await journal.claim(opened())
    journal.write(started())
    journal.write(finished())
    await journal.settled()
    before = rows(path, "SELECT outcome FROM attempts")
    journal.write(called())
    await journal.settled()
    between = rows(path, "SELECT outcome FROM attempts"), rows(path, "SELECT * FROM calls")
    journal.write(node("n"))
    await journal.settled()

    assert ([(None,)], ([(None,)], [])) == (before, between)
    assert ([("ok",)], 1) == (rows(path, "SELECT outcome FROM attempts"), len(rows(path, "SELECT * FROM calls")))


async def test_what_waits_for_a_node_is_written_when_the_run_ends(journal, path):
    """The node was never closed; what was paid for it is not lost."""
    await journal.claim(opened())
    for one in (started(), finished(), called(), closed()):
        journal.write(one)
    await journal.settled()

    assert [("ok",)] == rows(path, "SELECT outcome FROM attempts")


async def test_a_request_that_is_followed_by_another_is_written(journal, path):
    """A re-ask: the first answer did not end the call."""
    await journal.claim(opened())
    for one in (started(), finished(), started(number=2)):
        journal.write(one)
    await journal.settled()

    assert [(1, "ok"), (2, None)] == rows(path, "SELECT number, outcome FROM attempts ORDER BY number")


async def test_the_file_is_its_owner_s_alone(journal, path):
    """0700 and 0600, whatever the umask is."""
    before = os.umask(0)
    try:
        await journal.claim(opened())
        files = sorted(path.parent.iterdir())
        modes = [stat.S_IMODE(one.stat().st_mode) for one in [path.parent, *files]]
    finally:
        os.umask(before)

    assert ["journal.db", "journal.db-shm", "journal.db-wal"] == [one.name for one in files]
    assert [0o700, 0o600, 0o600, 0o600] == modes


async def test_no_file_is_made_before_something_is_recorded(journal, path):
    """Looking leaves no trace, and neither does closing."""
    found = journal.runs("last")
    await journal.settled()
    await journal.aclose()

    assert ([], False) == (found, path.parent.exists())


async def test_runs_by_name(journal, clock):
    """The exact id, else those that begin so; `last` is the latest, unless a run is called that."""
    for number, run_id in enumerate(["order-1", "order-12", "other"]):
        journal.write(opened(run_id, started=float(number)))

    def named(name):
        return [one.run_id for one in journal.runs(name)]

    assert (["order-1"], ["order-12"], ["order-1", "order-12", "other"]) == (
        *(named("order-1"), named("order-12"), named("o")),
    )
    assert (["other"], [], ["order-1", "order-12"]) == (named("last"), named("zzz"), sorted(named("order")))


async def test_what_a_file_cannot_hold_is_close_to_it(journal, path):
    """Lone surrogates and huge numbers in keys, tags and counts cost nothing but their exactness."""
    with context(tenant="\ud800", tags={"a": "\ud800"}):
        await journal.claim(opened(tags={"a": "\ud800"}, tenant="\ud800"))
        journal.write(started("n[\ud800]"))
        journal.write(finished("n[\ud800]", usage=Usage(input_tokens=10**30, output_tokens=-(10**30))))
        journal.write(called("n[\ud800]"))
        journal.write(node("n[\ud800]", message="\ud800"))
        journal.write(closed(message="\ud800"))
    claim = await journal.claim(opened())

    assert b"1" == claim.find("n[\ud800]").output
    assert None is claim.find("n[\ud801]")
    assert [(2**63 - 1, -(2**63 - 1))] == rows(path, "SELECT input_tokens, output_tokens FROM attempts")


async def test_tags_that_json_does_not_know(journal, path):
    """They are written as text, and whatever a note of a run cannot be written for takes no other row with it."""
    for number, tags in enumerate(({"k": Decimal(1)}, None, {"k": object}, {1: {2}}, {(): 1})):
        journal.write(opened(f"r{number}", tags=tags, named=False))
        journal.write(node("n", f"r{number}"))
        journal.write(closed(f"r{number}", status="ok"))
    await journal.settled()

    assert 0 == journal.losses
    assert [("r0", '{"k": "1"}'), ("r1", None), ("r2", '{"k": "<class \'object\'>"}'), ("r3", '{"1": "{2}"}')] == rows(
        path, "SELECT run_id, tags FROM runs ORDER BY run_id"
    )
    assert 5 == len(rows(path, "SELECT * FROM nodes"))


async def test_what_is_no_note_is_left_out(journal, path, caplog):
    """What a plugin hands over by mistake does not take the rest with it."""
    for one in (opened(), object(), "text", object(), started(reserved_usd="dear"), closed()):
        journal.write(one)
    await journal.settled()

    assert [("failed",)] == rows(path, "SELECT status FROM runs")
    assert ["a object cannot", "a str cannot", "a AttemptStarted cannot"] == [
        one.partition(" be recorded")[0] for one in warnings(caplog)
    ]


# -- owners ------------------------------------------------------------------------------------------------------------


async def test_whose_claim_is_cancelled_has_no_run(journal, path):
    """Its thread may get the run after its caller has gone: it is given back, and the next one gets it."""

    async def claim():
        await journal.claim(opened())

    for native in (True, False):
        if native and not _on_asyncio():
            continue
        with write_lock(path):  # the disk takes its time
            if native:
                task = asyncio.get_running_loop().create_task(claim())
                await _until_a_thread_waits(path)
                task.cancel()
                await asyncio.wait([task])
            else:
                scope = anyio.CancelScope()
                async with anyio.create_task_group() as group:
                    group.start_soon(_in_scope, scope, claim)
                    await _until_a_thread_waits(path)
                    scope.cancel()
                    write_lock(path).release()
                write_lock(path).acquire()
        if not native:  # the claim came first, and its caller was cancelled after that: it ends its run itself
            journal.write(closed())
        with anyio.fail_after(60):
            while (state := (await journal.claim(opened())).state) == "busy":
                await anyio.sleep(0.01)
        assert state in ("new", "resumed")  # whichever thread came first
        journal.write(closed())


def _on_asyncio():
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _in_scope(scope, function):
    with scope:
        await function()


async def _until_a_thread_waits(path):
    for _ in range(20):
        await anyio.sleep(0.005)


@pytest.mark.parametrize(
    ("owner", "lease", "alive"),
    [
        (None, None, False),
        ("elsewhere:1:5", 100.0, True),
        ("elsewhere:1:5", 10.0, False),
        ("elsewhere:1:5", None, False),
        ("odd", None, False),
    ],
)
def test_processes_that_cannot_be_seen_live_as_long_as_their_lease(owner, lease, alive):
    """Another machine, or another container, says now and then that it is there."""
    assert alive == is_alive(owner, lease, 50.0)


def test_processes_of_this_machine_are_looked_for():
    """By number and start, as numbers are used again."""
    machine, pid, begun = myself().split(":")

    assert (True, False, False) == (
        is_alive(myself(), None, 0.0),
        is_alive(f"{machine}:{pid}:{begun}9", 1e9, 0.0),
        is_alive(f"{machine}:{2**22 + 1}:{begun}", 1e9, 0.0),
    )


def test_a_process_that_has_ended_is_gone_before_its_parent_knows():
    """A zombie runs nothing."""
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    machine = myself().split(":")[0]
    child.stdout.read()
    deadline = time.monotonic() + 60
    owner = f"{machine}:{child.pid}:1"
    while is_alive(owner, None, 0.0) and time.monotonic() < deadline:
        os.sched_yield()
    alive = is_alive(owner, None, 0.0)
    child.wait()
    child.stdout.close()

    assert not alive


async def test_the_lease_of_a_run_is_renewed(path, clock, monkeypatch):
    """While a process has runs in work it says so, also when nothing happens; after that its thread ends."""
    monkeypatch.setattr("llmflow.stores._writer._IDLE", 0.01)
    journal = SqliteJournal(path, clock)
    await journal.claim(opened())
    clock.now += LEASE / 2
    journal.write(opened("other"))
    with anyio.fail_after(60):
        while rows(path, "SELECT lease FROM runs WHERE run_id = 'a'") != [(clock.now + LEASE,)]:
            await anyio.sleep(0.01)
        clock.now += LEASE / 2
        while rows(path, "SELECT lease FROM runs WHERE run_id = 'a'") != [(clock.now + LEASE,)]:
            await anyio.sleep(0.01)
        for run_id in ("a", "other"):
            journal.write(closed(run_id))
        while journal._writes._thread is not None:
            await anyio.sleep(0.01)
    journal.close()


async def test_a_lease_that_cannot_be_renewed_is_no_trouble(path, clock, monkeypatch, caplog):
    """The disk fails for a moment; the next time is soon enough."""
    monkeypatch.setattr("llmflow.stores._writer._IDLE", 0.01)
    failing = []

    class Connection:
        def __init__(self, inner):
            self.__dict__["inner"] = inner

        def execute(self, statement, *values):
            if failing and "SET lease" in statement:
                failing.pop()
                raise sqlite3.OperationalError("disk I/O error")
            return self.inner.execute(statement, *values)

        def close(self):
            self.inner.close()

        def __setattr__(self, name, value):
            setattr(self.inner, name, value)

    journal = SqliteJournal(path, clock, connect=lambda *a, **b: Connection(sqlite3.connect(*a, **b)))
    await journal.claim(opened())
    journal.write(started())
    await journal.settled()
    failing.append(1)
    clock.now += LEASE
    with anyio.fail_after(60):
        while rows(path, "SELECT lease FROM runs") != [(clock.now + LEASE,)]:
            clock.now += LEASE if not failing else 0
            await anyio.sleep(0.02)
    journal.write(closed())
    journal.close()

    assert ([], []) == (failing, warnings(caplog))


@pytest.mark.parametrize("error", ["disk I/O error", "database is locked", "a bug"])
async def test_a_beat_that_fails_is_no_loss(path, clock, monkeypatch, error):
    """What was written before it is in the file, once."""
    statements = []

    class Connection(sqlite3.Connection):
        def execute(self, statement, *values):
            statements.append(statement)
            if "SET lease" in statement and error == "a bug":
                raise RuntimeError(error)
            if "SET lease" in statement:
                exc = sqlite3.OperationalError(error)
                exc.sqlite_errorcode = sqlite3.SQLITE_BUSY if "locked" in error else sqlite3.SQLITE_IOERR
                raise exc
            return super().execute(statement, *values)

    journal = SqliteJournal(path, clock, connect=lambda *a, **b: sqlite3.connect(*a, **b, factory=Connection))
    await journal.claim(opened())
    journal.write(node("n"))
    await journal.settled()
    journal.close()

    assert 0 == journal.losses
    assert [("n",)] == rows(path, "SELECT key FROM nodes")
    assert 1 == sum("INTO nodes" in one for one in statements)
    assert any("SET lease" in one for one in statements)


async def test_a_claimed_run_is_alive_though_nothing_happens(path, clock, monkeypatch):
    """Its first task may take longer than a lease, before anything is noted."""
    monkeypatch.setattr("llmflow.stores._writer._IDLE", 0.01)
    journal = SqliteJournal(path, clock)
    await journal.claim(opened())
    clock.now += LEASE / 2
    with anyio.fail_after(10):
        while rows(path, "SELECT lease FROM runs") != [(clock.now + LEASE,)]:
            await anyio.sleep(0.01)
    journal.write(closed())
    journal.close()


async def test_a_run_that_somebody_else_took_up_ends_here(path, clock):
    """The process was paused for longer than its lease: it must not pay more, and not end the run of the other."""
    journal = SqliteJournal(path, clock)
    await journal.claim(opened())
    change(path, "UPDATE runs SET owner = 'elsewhere:1:1'")
    token = frame.set(Frame(Run("ask", run_id="a"), None, float("inf")))
    try:
        await journal.settled()  # not known yet
        clock.now += LEASE + 1
        journal.write(node("n"))
        with pytest.raises(JournalUnavailable, match="nothing was heard of this process for 60 s"):
            await journal.settled()
    finally:
        frame.reset(token)
    journal.write(closed())
    journal.close()

    assert [("running", "elsewhere:1:1")] == rows(path, "SELECT status, owner FROM runs")


async def test_a_run_that_somebody_else_ended_stays_as_it_ended(journal, path):
    """The process was paused, and what it says of the run when it wakes up is of yesterday."""
    await journal.claim(opened())
    change(path, "UPDATE runs SET owner = NULL, status = 'ok', output = '1'")
    journal.write(closed(status="failed"))
    await journal.settled()

    assert [("ok", "1")] == rows(path, "SELECT status, output FROM runs")


async def test_a_run_that_runs_here_is_busy_though_given_up_elsewhere(journal, path):
    """Another machine had not heard of it for too long; this process knows better."""
    await journal.claim(opened())
    change(path, "UPDATE runs SET owner = NULL, status = 'interrupted'")
    claimed = await journal.claim(opened())

    assert ("busy", True) == (claimed.state, claimed.is_ours)
    journal.write(closed())
    assert "resumed" == (await journal.claim(opened())).state


async def test_a_run_that_was_taken_for_dead_ends_well(journal, path):
    """Nobody took it up."""
    await journal.claim(opened())
    change(path, "UPDATE runs SET owner = NULL, status = 'interrupted'")
    journal.write(closed(status="ok"))
    await journal.settled()

    assert [("ok",)] == rows(path, "SELECT status FROM runs")


async def test_a_claim_that_nobody_waits_for_begins_nothing(journal, path):
    """It was given up while others had the file: when its turn comes there is no run to begin."""
    with write_lock(path):
        for _ in range(3):
            with anyio.move_on_after(0.02):
                await journal.claim(opened())

    assert "new" == (await journal.claim(opened())).state
    assert [("running", 0)] == rows(path, "SELECT status, resumed FROM runs")


async def test_a_thread_that_was_about_to_end_stays_for_a_run(journal, monkeypatch):
    """The claim comes between its last question and its end."""
    monkeypatch.setattr("llmflow.stores._writer._IDLE", 0.01)
    leave, come = journal._writes._leave, [True]

    def attended_just_before():
        if come:
            come.clear()
            journal._writes.attend()
        return leave()

    monkeypatch.setattr(journal._writes, "_leave", attended_just_before)
    journal.write(node("n"))
    asked = []
    monkeypatch.setattr(journal._writes, "_stays", lambda: asked.append(1))
    with anyio.fail_after(30):
        while journal._writes._thread is not None or come:
            await anyio.sleep(0.005)

    assert len(asked) >= 2


async def test_no_thread_that_writes(journal, monkeypatch):
    """The process has too many: who waits is told, and later it may be better."""

    class Thread(threading.Thread):
        def start(self):
            raise RuntimeError("can't start new thread")

    with monkeypatch.context() as without:
        without.setattr("llmflow.stores._writer.threading.Thread", Thread)
        journal.write(node("n"))
        with pytest.raises(JournalUnavailable, match="no thread can be started"):
            await journal.settled()
    await journal.settled()

    assert [("n",)] == rows(journal.path, "SELECT key FROM nodes")


async def test_a_thread_that_stumbles_goes_on(journal, path, monkeypatch, caplog):
    """Whatever goes wrong while nothing is to be written: who waits for the next thing is not left waiting."""
    monkeypatch.setattr("llmflow.stores._writer._IDLE", 0.01)
    monkeypatch.setattr(journal._writes, "_stays", lambda: {}["no such thing"])
    journal.write(opened())
    with anyio.fail_after(60):
        while journal._writes._thread is not None:
            await anyio.sleep(0.01)
        journal.write(closed())
        await journal.settled()

    assert [("failed",)] == rows(path, "SELECT status FROM runs")
    assert "llmflow-journal: failed while it had nothing to write" in warnings(caplog)


async def test_text_of_somebody_else_that_is_none(path, clock):
    """Another program wrote it: the next process opens the file, and takes up the other runs."""
    journal = SqliteJournal(path, clock)
    await journal.claim(opened())
    journal.write(closed())
    journal.close()
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO runs (run_id, target, kind, status, started, owner)"
            " VALUES (CAST(X'ff41' AS TEXT), 't', 'flow', 'running', 1, CAST(X'ff' AS TEXT))"
        )
    connection.close()

    assert "resumed" == (await journal.claim(opened())).state
    journal.close()


async def test_runs_of_dead_processes_are_interrupted(path, clock):
    """Whoever opens the file next says so, and what they had in flight is uncertain at its reservation."""
    journal = SqliteJournal(path, clock)
    for run_id in ("dead", "far"):
        journal.write(opened(run_id))
    journal.write(
        AttemptStarted(
            run_id="dead",
            call_id="c",
            step="s",
            model="m/x",
            number=1,
            reserved_usd=Decimal("0.5"),
        )
    )
    journal.close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE runs SET owner = 'here:1:x', lease = 5 WHERE run_id = 'dead'")
    connection.execute("UPDATE runs SET owner = 'there:1:x', lease = ? WHERE run_id = 'far'", (clock.now + 10,))
    connection.commit()
    connection.close()
    journal.write(closed("neither"))
    journal.close()

    assert [("dead", "interrupted"), ("far", "running")] == rows(
        path, "SELECT run_id, status FROM runs ORDER BY run_id"
    )
    assert [("uncertain", 500_000_000, 500_000_000)] == rows(
        path, "SELECT outcome, cost_nano, reserved_nano FROM attempts"
    )
    journal._claimed_here.clear()  # they were never of this process
    states = [(await journal.claim(opened(name))).state for name in ("dead", "far")]
    clock.now += 20
    states.append((await journal.claim(opened("far"))).state)
    journal.close()

    assert ["resumed", "busy", "resumed"] == states


# -- versions ----------------------------------------------------------------------------------------------------------


async def test_a_file_of_version_1_is_brought_up_to_date(path, clock):
    """It held the cache alone: its entries stay, and the tables of the journal are added."""
    cache = SqliteCache(path, clock)
    await cache.put("k", b'{"a": 1}', seconds=1000)
    cache.close()
    connection = sqlite3.connect(path)
    for name, kind in connection.execute(
        "SELECT name, type FROM sqlite_master WHERE tbl_name <> 'cache' AND sql IS NOT NULL"
    ).fetchall():
        if kind in ("table", "view"):
            connection.execute(f"DROP {kind} {name}")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    assert {"cache"} == {name for (name,) in connection.execute("SELECT DISTINCT tbl_name FROM sqlite_master")}
    connection.close()

    journal = SqliteJournal(path, clock)
    assert "new" == (await journal.claim(opened())).state
    journal.write(closed())
    journal.close()

    assert b'{"a": 1}' == (await cache.get("k")).entry
    cache.close()
    assert [(VERSION,)] == rows(path, "PRAGMA user_version")
    assert {"runs", "nodes", "calls", "attempts", "prompts", "graphs", "cache"} <= {
        name for (name,) in rows(path, "SELECT name FROM sqlite_master WHERE type = 'table'")
    }


@pytest.mark.parametrize(("version", "message"), [(99, "newer llmflow"), (0, "another program")])
async def test_a_file_that_is_not_ours_is_left_alone(journal, path, caplog, version, message):
    """Calls go on, runs with an id do not, and not a byte is changed."""
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE runs (mine)")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.commit()
    connection.close()
    before = path.read_bytes()

    async with Runtime(journal=f"sqlite:///{path}"):
        assert "fine" == await ask_twice("x")
        with pytest.raises(JournalUnavailable, match=message) as caught:
            await ask_twice.with_(run_id="a")("x")

    assert before == path.read_bytes()
    assert (1, True) == (len(warnings(caplog)), message in warnings(caplog)[0])
    assert any("without an id it runs all the same" in note for note in caught.value.__notes__)


# -- redaction ---------------------------------------------------------------------------------------------------------


def _hide(text):
    return text.replace("4111", "****")


async def test_redacted_before_it_is_stored(journal, path):
    """Every text in inputs and outputs, however deep; names of fields and numbers stay."""
    await journal.claim(
        opened(inputs=b'{"card": "4111", "deep": [{"4111": ["a 4111"]}, 4111, null]}', redactors=(_hide,))
    )
    journal.write(node("a", inputs=b'{"x": "4111"}', output=b'"fine"', redactors=(_hide,)))
    journal.write(node("b", inputs=b'{"x": 1}', output=b'"fine"', redactors=(_hide,)))
    journal.write(closed(status="ok", output=b'"4111"', redactors=(_hide,)))
    claim = await journal.claim(opened())
    journal.close()

    assert {"card": "****", "deep": [{"4111": ["a ****"]}, 4111, None]} == json.loads(claim.run.inputs)
    assert ("redacted-inputs", b'{"x":"****"}', "whole") == (
        claim.find("a").content,
        claim.find("a").inputs,
        claim.find("b").content,
    )
    assert ("redacted", b'"****"') == (claim.run.content, claim.run.output)


def _break(text):
    raise KeyError(text)


@pytest.mark.parametrize("redactor", [_break, lambda _: None, lambda _: "\ud800", lambda _: b"\xff"])
async def test_a_redactor_that_fails(journal, caplog, redactor):
    """What it was to change is not stored; that is said once, and the run goes on."""
    await journal.claim(opened(inputs=b'{"x": "4111"}', redactors=(redactor,)))
    for key in "ab":
        journal.write(node(key, inputs=b'{"x": "4111"}', output=b'"4111"', redactors=(redactor,)))
    journal.write(closed())
    claim = await journal.claim(opened())

    assert (None, None, None, "redacted") == (
        *(claim.run.inputs, claim.find("a").inputs, claim.find("b").output, claim.find("b").content),
    )
    assert 1 == len(warnings(caplog))
    assert "a redactor failed, content is not stored: " in warnings(caplog)[0]


# -- the process -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_forked_child_has_a_journal_in_memory_of_its_own():
    """A thread of the parent may hold its lock just then."""
    journal = MemoryJournal(Clock())
    holding, done = threading.Event(), threading.Event()

    def hold():
        with journal._lock:
            holding.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait(60)
    child = os.fork()
    if child == 0:
        got = journal._lock.acquire(timeout=5)
        os._exit(0 if got else 1)
    _, status = os.waitpid(child, 0)
    done.set()
    thread.join()

    assert 0 == os.waitstatus_to_exitcode(status)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_begins_anew(path):
    """With a thread and connections of its own; a run that its parent has in work is the parent's."""
    url = f"sqlite:///{path}"
    with Runtime(journal=url) as runtime:
        ask_twice.with_(run_id="parent").sync("x")
        asyncio.run(runtime.journal.claim(opened("held")))
        multiprocess = multiprocessing.get_context("fork")
        answers = multiprocess.Queue()
        process = multiprocess.Process(target=_in_child_of, args=(runtime, answers))
        process.start()
        said = answers.get(timeout=120)
        process.join(120)
        values = [ask_twice.with_(run_id=name).sync("x") for name in ("parent", "child")]
        runtime.journal.write(closed("held"))

    assert (["fine", "fine", "busy"], ["fine", "fine"], 0) == (said, values, process.exitcode)
    assert [("child", "ok", 0), ("held", "failed", 0), ("parent", "ok", 0)] == rows(
        path, "SELECT run_id, status, resumed FROM runs ORDER BY run_id"
    )


def _in_child_of(runtime, answers):
    said = [asyncio.run(_run(name)) for name in ("parent", "child")]
    said.append(asyncio.run(runtime.journal.claim(opened("held"))).state)
    answers.put(said)
    runtime.journal.close()


async def _run(name):
    return await ask_twice.with_(run_id=name)("x")


@pytest.mark.parametrize("end", ["", "raise SystemExit", "raise ValueError"])
def test_what_waits_is_written_when_the_program_ends(tmp_path, end):
    """Nobody closed the runtime, and the run had no id; its rows are there all the same."""
    program = tmp_path / "program.py"
    program.write_text(
        "from llmflow import Model, prompt, step, Runtime\n"
        "async def answer(request):\n"
        "    return 'fine'\n"
        "@step(Model('fake/one', handler=answer))\n"
        "def question(word: str) -> str:\n"
        "    return prompt(word)\n"
        "Runtime(journal='sqlite:///journal.db').install()\n"
        "print(question.sync('x'))\n" + end,
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, str(program)], cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert "fine\n" == done.stdout
    assert [("ok",)] == rows(tmp_path / "journal.db", "SELECT status FROM runs")
    assert [("ok",)] == rows(tmp_path / "journal.db", "SELECT outcome FROM attempts")
    assert [("program.py:question",)] == [
        (ref.rpartition("/")[2],) for (ref,) in rows(tmp_path / "journal.db", "SELECT ref FROM runs")
    ]


async def test_closing_writes_and_the_next_use_opens_again(path):
    """A runtime that is closed has everything in its file."""
    counts = []
    runtime = Runtime(journal=f"sqlite:///{path}")
    for _ in range(3):
        async with runtime:
            await ask("x")
        counts.append(rows(path, "SELECT count(*) FROM runs WHERE status = 'ok'")[0][0])
        assert not path.with_name("journal.db-wal").exists()

    assert [1, 2, 3] == counts


async def test_cache_and_journal_share_a_file(path):
    """One store for both, and several processes' worth of connections to it."""
    model = scripted(default="fine")

    @step(model, Cache("1h"))
    def kept(word: str) -> str:
        return prompt(word)

    @task
    async def join(words: list[str]) -> str:
        return "+".join(words)

    @flow
    async def many(words: list[str]) -> str:
        return await join(await kept.map(words))

    async with Runtime(store=f"sqlite:///{path}"):
        values = [await many.with_(run_id=name)(["a", "b"]) for name in ("one", "two", "one")]

    assert (["fine+fine"] * 3, 2) == (values, len(model.requests))
    assert [("attempt", 2), ("hit", 2)] == rows(path, "SELECT kind, count(*) FROM attempts GROUP BY kind ORDER BY kind")
