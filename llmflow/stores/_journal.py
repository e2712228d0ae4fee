"""`sqlite:///path` as a journal: runs are recorded in a file, by a thread of its own, and taken up again from it."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from llmflow.context import caller, frame
from llmflow.errors import JournalUnavailable, RunConflict
from llmflow.journal import RunClosed, RunOpened
from llmflow.stores._claims import Asked, Claim, claim, give_up_dead_runs, runs_named
from llmflow.stores._database import Connect, Database, close, same_file, write_lock
from llmflow.stores._journal_rows import Rows, Stamped, execute
from llmflow.stores._owner import LEASE, myself
from llmflow.stores._writer import Writer

if TYPE_CHECKING:
    from llmflow.journal import RecordedRun
    from llmflow.ports import Clock

__all__ = ["SqliteJournal"]

_WAITING = 100_000
"""How many notes may wait; a file that cannot be written must not fill the memory."""
_PATIENCE = 10.0
_BEATS_EVERY = LEASE / 4
_BUSY_TRIES = 6
"""How often the lock of another process is waited for, as long each time as the connection waits."""
FileId: TypeAlias = tuple[int, int]
_BEAT = "UPDATE runs SET lease = ? WHERE status = 'running' AND owner = ?"
_OURS = "SELECT run_id FROM runs WHERE status = 'running' AND owner = ?"


class SqliteJournal:
    """Records runs in a file of SQLite.

    What is wrong with the file never fails a call that needs nothing from it: it is said once for each cause in the log
    `llmflow`. A run that was given an id fails with `JournalUnavailable`, as it could not be taken up again.

    Args:
        path: The file; it and its folders are made when something is recorded.
        clock: Where time comes from.
        connect: `sqlite3.connect`; another one for tests.
    """

    durable = True

    def __init__(self, path: Path, clock: Clock, *, connect: Connect = sqlite3.connect) -> None:
        self.path = path
        self._clock = clock
        self._connect = connect
        self._leaked: list[object] = []
        self.losses = 0
        """How many batches could not be written."""
        self._begin()
        self._writes: Writer[Stamped] = Writer(
            self._write, name="llmflow-journal", limit=_WAITING, stays=self._has_runs_in_work
        )
        _journals.add(self)

    def _begin(self) -> None:
        self._database = Database(self.path, self._connect, what="journal")
        self._writing = write_lock(self.path)
        self._reading = threading.Lock()
        self._rows = Rows()
        self._in_work: set[str] = set()
        """Runs whose end is not in the file yet."""
        self._held: set[str] = set()
        """Those of them that were claimed."""
        self._lost: dict[str, str] = {}
        """Those that cannot go on, and why."""
        self._claimed_here = _claimed.setdefault(same_file(self.path), set())
        self._beat_at = float("-inf")
        self._writer: Any = None
        self._reader: Any = None
        self._file: FileId | None = None
        self._reader_file: FileId | None = None

    def start_anew(self) -> None:
        """Leave the parent's connections to the parent: closing one here would disturb it."""
        self._leaked += [self._reader, self._writer]
        self._begin()

    # -- the port ------------------------------------------------------------------------------------------------------

    def write(self, note: object, /) -> None:
        """Take note; it is in the file a moment later."""
        if type(note) is RunOpened:
            self._in_work.add(note.run_id)
            self._claimed_here.add(note.run_id)
        stamped = (self._clock.time(), note, caller.get().tags or None)
        if not self._writes.add(stamped):
            self.losses += 1
            self._release(_ended(stamped))
            self._database.trouble(BlockingIOError("too much waits to be written"), "written", None)

    async def settled(self) -> None:
        """Return when everything that was written so far is in the file.

        Raises:
            JournalUnavailable: When it could not be written.
        """
        await self._written()
        if self._lost and (around := frame.get()) is not None and around.run.id in self._lost:
            raise self._unavailable("written", RuntimeError(self._lost[around.run.id]))

    async def _written(self) -> None:
        ticket = self._writes.ticket()
        if ticket is not None:
            await ticket.written.wait()
            if ticket.error is not None:
                raise self._unavailable("written", ticket.error) from ticket.error

    async def claim(self, run: RunOpened, /) -> Claim:
        """Begin a run, or take it up unless somebody else runs it.

        Raises:
            RunConflict: When its id was used for something else.
            JournalUnavailable: When the file cannot be read or written.
        """
        await self._written()
        asked = Asked()
        try:
            return await anyio.to_thread.run_sync(
                self._claim, run, asked, abandon_on_cancel=True, limiter=_claiming_threads()
            )
        except BaseException:  # it was cancelled, and the thread goes on
            if asked.is_answered():
                self._give_back(run)
            raise

    def close(self) -> None:
        """Write what waits to be written, and close the file; the next use opens it again."""
        self._writes.flush(_PATIENCE)
        with self._writing:
            self._close_writer()
        with self._reading:
            self._close_reader()

    async def aclose(self) -> None:
        """Like `close`, without holding up the event loop."""
        if self._reader is not None or self._writer is not None or not self._writes.is_idle:
            await anyio.to_thread.run_sync(self.close)

    def runs(self, name: str) -> list[RecordedRun]:
        """Return the run of this id, else those whose id begins so; `last` is the one that began last.

        Raises:
            JournalUnavailable: When the file cannot be read.
        """
        self._writes.flush(_PATIENCE)
        if self._database.file_id() is None:
            return []
        with self._connection_for_reading() as connection:
            return runs_named(connection, name)

    @contextmanager
    def reading(self) -> Generator[Any]:
        """Give a connection to the tables, with all that was noted so far in them.

        Raises:
            JournalUnavailable: When there is no file, or it cannot be read.
        """
        self._writes.flush(_PATIENCE)
        with self._connection_for_reading() as connection:
            yield connection

    # -- claiming ------------------------------------------------------------------------------------------------------

    def _claim(self, run: RunOpened, asked: Asked) -> Claim:
        with self._writing:
            if asked.is_withdrawn:  # while others had the file: then it waits for no lock, and begins nothing
                return Claim("busy", run.run_id, None, self._connection_for_reading)
            try:
                writer = self._writer_now()
                writer.execute("BEGIN IMMEDIATE")
                now, mine = self._clock.time(), run.run_id in self._claimed_here
                claimed = claim(writer, run, self._rows, now, self._connection_for_reading, mine=mine)
                writer.execute("COMMIT")
            except RunConflict:
                self._writer.execute("ROLLBACK")
                raise
            except Exception as exc:  # whatever it is, the transaction must not stay open
                raise self._failed_to_claim(exc) from exc
            if claimed.state in ("new", "resumed"):
                for runs in (self._in_work, self._held, self._claimed_here):
                    runs.add(run.run_id)
                self._lost.pop(run.run_id, None)
                if asked.is_answered():
                    self._give_back(run)
                self._writes.attend()  # somebody has to say that the run is alive
        return claimed

    def _release(self, run_ids: Collection[str]) -> None:
        """Let other journals of this process take up what has ended.

        Not before the file says so, as they would run it again, and under the same lock, as they take it up right then.
        """
        for runs in (self._in_work, self._held, self._claimed_here):
            runs.difference_update(run_ids)

    def _give_back(self, run: RunOpened) -> None:
        """End a run that was claimed for somebody who does not wait for it any more."""
        self.write(RunClosed(run_id=run.run_id, status="cancelled", finished=self._clock.time(), latency_s=0.0))

    def _failed_to_claim(self, exc: Exception) -> JournalUnavailable:
        self._close_writer()
        self._database.trouble(exc, "written", self._file)
        return self._unavailable("used", exc)

    def _unavailable(self, what: str, exc: Exception) -> JournalUnavailable:
        error = JournalUnavailable(f"the journal {self.path} cannot be {what}: {exc}")
        for note in (
            *getattr(exc, "__notes__", ()),
            "A run with an id is only run where it can be taken up again; without an id it runs all the same.",
        ):
            error.add_note(note)
        return error

    # -- writing, in the writer's thread -------------------------------------------------------------------------------

    def _write(self, batch: list[Stamped]) -> Exception | None:
        rows, ended = self._rows.of(batch), _ended(*batch)
        error: Exception | None = None
        for _ in range(_BUSY_TRIES):
            error = self._try_to_write(rows, ended)
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                break
        if error is not None:
            self.losses += 1
            if self._database.trouble(error, "written", self._file):
                self._try_to_write(rows, ended)  # into a new file; runs with an id are told of the old one
            with self._writing:
                self._release(ended)
        return error

    def _try_to_write(self, rows: list[tuple[str, tuple[Any, ...]]], ended: Collection[str]) -> Exception | None:
        """Write rows as a whole or not at all, and return why it could not be."""
        with self._writing:
            try:
                writer = self._writer_now()
                writer.execute("BEGIN IMMEDIATE")
                for statement, values in rows:
                    execute(writer, statement, values)
                writer.execute("COMMIT")
            except Exception as exc:  # noqa: BLE001  # whatever it is, the transaction must not stay open
                self._close_writer()
                return exc
            self._release(ended)
            self._try_to_beat()
        return None

    def _writer_now(self) -> Any:
        if self._file is not None and self._database.file_id() != self._file:
            self._close_writer()  # the file was deleted or set aside, or another one put in its place
            self._file = None
            self._lose(self._in_work, "the file with what the run has done was removed or replaced")
        if self._writer is None:
            self._writer = self._database.open_writer()
            self._file = self._database.file_id()
            self._writer.execute("BEGIN IMMEDIATE")
            give_up_dead_runs(self._writer, self._clock.time())
            self._writer.execute("COMMIT")
        return self._writer

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            close(writer)

    # -- staying alive for processes of other machines -----------------------------------------------------------------

    def _has_runs_in_work(self) -> bool:
        """Whether the thread stays, to say now and then that the runs of this process are alive."""
        if not self._in_work:
            return False
        with self._writing:
            self._try_to_beat()
        return True

    def _try_to_beat(self) -> None:
        """Say that the runs of this process are alive, now and then; the lock is held.

        Once nothing was heard of a run for long enough somebody else may have taken it up. Then it must not go on here.
        """
        now = self._clock.time()
        if not self._in_work or abs(now - self._beat_at) < _BEATS_EVERY:
            return
        try:
            writer = self._writer_now()
            writer.execute(_BEAT, (now + LEASE, myself()))
            ours = {run_id for (run_id,) in writer.execute(_OURS, (myself(),))}
        except Exception:  # noqa: BLE001  # whatever it is, what was written before it is written
            self._close_writer()  # the next time is soon enough
            return
        self._beat_at = now
        self._lose(
            self._held - ours,
            f"nothing was heard of this process for {LEASE:g} s, and somebody else may have taken the run up",
        )

    def _lose(self, runs: Collection[str], why: str) -> None:
        for run_id in tuple(runs):
            self._lost.setdefault(run_id, why)

    # -- reading -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _connection_for_reading(self) -> Generator[Any]:
        """Give the one connection for reading; a look-up takes microseconds, so threads take turns.

        Raises:
            JournalUnavailable: When the file cannot be read.
        """
        with self._reading:
            try:
                if self._reader is not None and self._file not in (None, self._reader_file):
                    self._close_reader()  # what is written goes into another file by now
                if self._reader is None:
                    self._reader = self._database.open_reader()
                    self._reader_file = self._database.file_id()
                if self._reader is None:
                    raise FileNotFoundError(2, "there is no such file", str(self.path))
                yield self._reader
            except (sqlite3.Error, OSError) as exc:
                self._close_reader()
                self._database.trouble(exc, "read", self._reader_file)
                raise self._unavailable("read", exc) from exc

    def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            close(reader)


_CLAIMING_THREADS = 4
_limiter: RunVar[anyio.CapacityLimiter] = RunVar("llmflow_claims")


def _claiming_threads() -> anyio.CapacityLimiter:
    """Return the limiter of claims on this event loop: those of blocking functions may all wait for this very claim."""
    try:
        return _limiter.get()
    except LookupError:
        made = anyio.CapacityLimiter(_CLAIMING_THREADS)
        _limiter.set(made)
        return made


def _ended(*batch: Stamped) -> set[str]:
    """Return the runs whose end is among these notes."""
    return {note.run_id for _, note, _ in batch if type(note) is RunClosed}


_claimed: dict[Path, set[str]] = {}
"""The runs with an id that this process is running, by file: several runtimes may share one."""
_journals: weakref.WeakSet[SqliteJournal] = weakref.WeakSet()


def _start_anew() -> None:
    _claimed.clear()
    for one in list(_journals):
        one.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
