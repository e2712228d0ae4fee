"""`sqlite:///path` as a journal: runs are recorded in a file, by a thread of its own, and taken up again from it."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio.to_thread

from llmflow.context import caller, frame
from llmflow.errors import JournalUnavailable, RunConflict
from llmflow.journal import RunClosed, RunOpened
from llmflow.stores._claims import Asked, Claim, claim, give_up_dead_runs, runs_named
from llmflow.stores._database import Connect, Database, close, write_lock
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
        """Runs that this process is running."""
        self._lost: set[str] = set()
        """Those whose file is not there any more."""
        self._claimed_here = _claimed.setdefault(self.path, set())
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
        elif type(note) is RunClosed:
            self._in_work.discard(note.run_id)
        stamped = (self._clock.time(), note, caller.get().tags or None)
        if not self._writes.add(stamped):
            self._release([stamped])
            self._database.trouble(BlockingIOError("too much waits to be written"), "written", None)

    async def settled(self) -> None:
        """Return when everything that was written so far is in the file.

        Raises:
            JournalUnavailable: When it could not be written.
        """
        await self._written()
        if self._lost and (around := frame.get()) is not None and around.run.id in self._lost:
            gone = FileNotFoundError("the file with what the run has done was removed or replaced")
            raise self._unavailable("written", gone)

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
            return await anyio.to_thread.run_sync(self._claim, run, asked)
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
                self._in_work.add(run.run_id)
                self._claimed_here.add(run.run_id)
                self._lost.discard(run.run_id)
                if asked.is_answered():
                    self._give_back(run)
        return claimed

    def _release(self, batch: list[Stamped]) -> None:
        """Let other journals of this process take up what has ended; not before the file says so, as they would run it."""
        self._claimed_here.difference_update(note.run_id for _, note, _ in batch if type(note) is RunClosed)

    def _give_back(self, run: RunOpened) -> None:
        """End a run that was claimed for somebody who does not wait for it any more."""
        self.write(RunClosed(run_id=run.run_id, status="cancelled", finished=self._clock.time(), latency_s=0.0))

    def _failed_to_claim(self, exc: Exception) -> JournalUnavailable:
        self._close_writer()
        self._database.trouble(exc, "written", self._file)
        return self._unavailable("used", exc)

    def _unavailable(self, what: str, exc: Exception) -> JournalUnavailable:
        error = JournalUnavailable(f"the journal {self.path} cannot be {what}: {exc}")
        error.add_note(
            "A run with an id is only run where it can be taken up again; without an id it runs all the same."
        )
        return error

    # -- writing, in the writer's thread -------------------------------------------------------------------------------

    def _write(self, batch: list[Stamped]) -> Exception | None:
        try:
            return self._write_rows(self._rows.of(batch))
        finally:
            self._release(batch)

    def _write_rows(self, rows: list[tuple[str, tuple[Any, ...]]]) -> Exception | None:
        error: Exception | None = None
        for _ in range(_BUSY_TRIES):
            error = self._try_to_write(rows)
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                break
        if error is not None:
            self.losses += 1
            if self._database.trouble(error, "written", self._file):
                self._try_to_write(rows)  # into a new file; runs with an id are told of the old one
        return error

    def _try_to_write(self, rows: list[tuple[str, tuple[Any, ...]]]) -> Exception | None:
        """Write rows as a whole or not at all, and return why it could not be."""
        with self._writing:
            try:
                writer = self._writer_now()
                writer.execute("BEGIN IMMEDIATE")
                for statement, values in rows:
                    execute(writer, statement, values)
                writer.execute("COMMIT")
                self._beat(writer)
            except Exception as exc:  # noqa: BLE001  # whatever it is, the transaction must not stay open
                self._close_writer()
                return exc
        return None

    def _writer_now(self) -> Any:
        if self._file is not None and self._database.file_id() != self._file:
            self._close_writer()  # the file was deleted or set aside, or another one put in its place
            self._file = None
            self._lost |= self._in_work
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
            try:
                self._beat(self._writer_now())
            except (sqlite3.Error, OSError):
                self._close_writer()
        return True

    def _beat(self, writer: Any) -> None:
        now = self._clock.time()
        if self._in_work and abs(now - self._beat_at) >= _BEATS_EVERY:
            self._beat_at = now
            writer.execute(_BEAT, (now + LEASE, myself()))

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


_claimed: dict[Path, set[str]] = {}
"""The runs with an id that this process is running, by file: several runtimes may share one."""
_journals: weakref.WeakSet[SqliteJournal] = weakref.WeakSet()


def _start_anew() -> None:
    _claimed.clear()
    for one in list(_journals):
        one.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
