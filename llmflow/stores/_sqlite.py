"""`sqlite:///path`: answers that are kept in a file, for other processes and the next start."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from llmflow.policy import State
from llmflow.ports import Kept
from llmflow.stores._database import Connect, Database, close, write_lock
from llmflow.stores._reader import Reader
from llmflow.stores._tables import AGE, DELETE, LIST, OLDEST, PUT, CacheEntry, Row, entry_of
from llmflow.stores._wall import WallClock
from llmflow.stores._writer import Writer

if TYPE_CHECKING:
    from llmflow.ports import Clock

__all__ = ["SqliteCache"]

_ENTRIES = 100_000
_BYTES = 256 * 1024 * 1024
_WAITING = 4096
_WAITING_BYTES = 64 * 1024 * 1024
_PRUNED_EVERY = 500
_PATIENCE = 5.0


class SqliteCache:
    """Keeps entries in a file of SQLite; reads at once, writes in a thread of its own.

    Whatever is wrong with the file is a miss, and said once for each cause in the log `llmflow`.

    Args:
        path: The file; it and its folders are made when something is kept.
        clock: Where time comes from.
        entries: How many entries are kept at most, roughly; the oldest go first.
        size: How many bytes they take together at most, roughly.
        connect: `sqlite3.connect`; another one for tests.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        entries: int = _ENTRIES,
        size: int = _BYTES,
        connect: Connect = sqlite3.connect,
    ) -> None:
        self.path = path
        self._clock = clock
        self._entries = entries
        self._size = size
        self._connect = connect
        self._written = 0
        self._leaked: list[object] = []
        self._begin()
        self._writes: Writer[Row | float] = Writer(self._write, name="llmflow-cache", limit=_WAITING)
        _stores.add(self)

    def _begin(self) -> None:
        self._wall = WallClock(self._clock)
        self._database = Database(self.path, self._connect)
        self._pending: dict[str, Row] = {}
        self._waiting = 0
        self._aged = 0.0
        self._handover, self._writing = threading.Lock(), write_lock(self.path)
        self._reader = Reader(self._database, self._clock)
        self._writer: Any = None
        self._writes_to: tuple[int, int] | None = None

    def start_anew(self) -> None:
        """Leave the parent's connections to the parent: closing one here would disturb it."""
        self._leaked += [self._reader.connection, self._writer]
        self._begin()

    # -- the port ------------------------------------------------------------------------------------------------------

    async def get(self, key: str, /) -> Kept | None:
        """Return an entry and its age."""
        row = self._pending.get(key) or self._reader.get(key)
        if row is None:
            return None
        now, lost = self._now()
        age = now - row.created
        # An entry from the future was written before the clock was set back, by who knows how much.
        if age < 0 or now + lost >= row.expires:
            return None
        return Kept(row.entry, age + lost)

    async def put(self, key: str, entry: bytes, /, *, seconds: float) -> None:
        """Keep an entry; it is found at once, and in the file a moment later."""
        if len(entry) > self._size:
            return
        now, _ = self._now()
        row = Row(key, entry, now, now + seconds)
        with self._handover:
            self._pending[key] = row
            self._waiting += len(entry)
        if self._waiting > _WAITING_BYTES or not self._writes.add(row):
            self._forget([row])
            self._database.trouble(BlockingIOError("too much waits to be written"), "written", None)

    def close(self) -> None:
        """Write what waits to be written, and close the file; the next use opens it again."""
        self._writes.flush(_PATIENCE)
        self._reader.close()
        with self._writing:
            self._close_writer()

    async def aclose(self) -> None:
        """Like `close`, without holding up the event loop."""
        if self._reader.connection is not None or self._writer is not None or not self._writes.is_idle:
            await anyio.to_thread.run_sync(self.close)

    def state(self) -> State:
        """Say where the entries are, and how many wait to be written."""
        return State(kind="cache", name=f"sqlite:///{self.path}", values={"waiting": len(self._pending)})

    # -- reading -------------------------------------------------------------------------------------------------------

    def _now(self) -> tuple[float, float]:
        """Return the time, and how much the wall clock was set back without the file knowing yet."""
        now, lost, jumped = self._wall.now()
        if jumped:
            if self._pending or self._database.file_id() is not None:
                self._writes.add(jumped)
            else:
                self._wall.caught_up(jumped)  # nothing is kept yet
        return now, lost

    # -- writing, in the writer's thread -------------------------------------------------------------------------------

    def _write(self, batch: list[Row | float]) -> None:  # whoever waits for a cache to be written asks `close`
        try:
            if not self._try_to_write(batch):
                self._try_to_write(batch)
        finally:
            # In this order: what was made older in the file must not be found here at its old age.
            self._forget([one for one in batch if isinstance(one, Row)])
            self._wall.caught_up(self._aged)
            self._aged = 0.0

    def _try_to_write(self, batch: Sequence[Row | float]) -> bool:
        """Write a batch as a whole or not at all; False when the file was corrupt and a new one can be made."""
        known = None
        with self._writing:
            try:
                writer = self._writer_now()
                known = self._writes_to
                writer.execute("BEGIN IMMEDIATE")
                for one in batch:
                    if isinstance(one, Row):
                        row = (one.key, one.entry.decode(), len(one.entry), one.created, one.expires)
                        writer.execute(PUT, row)
                    else:
                        writer.execute(AGE, (one, one))
                writer.execute("COMMIT")
                self._aged = sum(one for one in batch if not isinstance(one, Row))
                self._prune(writer, len(batch))
            except (sqlite3.Error, OSError) as exc:
                self._close_writer()
                return not self._database.trouble(exc, "written", known)
        return True

    def _writer_now(self) -> Any:
        if self._writer is not None and self._database.file_id() != self._writes_to:
            self._close_writer()  # the file was deleted, or another one put in its place
        if self._writer is None:
            self._writer = self._database.open_writer()
            self._writes_to = self._database.file_id()
        return self._writer

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            close(writer)

    def _forget(self, rows: Sequence[Row]) -> None:
        """Let the file speak for these from now on."""
        with self._handover:
            for one in rows:
                self._waiting -= len(one.entry)
                if self._pending.get(one.key) is one:
                    del self._pending[one.key]

    def _prune(self, writer: Any, written: int) -> None:
        """Drop what is over, and what is oldest when there is too much."""
        before, self._written = self._written, self._written + written
        if before // _PRUNED_EVERY == self._written // _PRUNED_EVERY and before:
            return
        writer.execute("DELETE FROM cache WHERE expires <= ?", (self._clock.time(),))
        count, size = writer.execute("SELECT count(*), coalesce(sum(size), 0) FROM cache").fetchone()
        too_many = max(count - self._entries, int(count * (1 - self._size / size)) if size > self._size else 0)
        if too_many > 0:
            # A tenth more, so that it need not be done again at once.
            writer.execute(OLDEST, (too_many + count // 10,))

    # -- for people ----------------------------------------------------------------------------------------------------

    def entries(self) -> Iterator[CacheEntry]:
        """Yield what is in the file, the newest first.

        Raises:
            sqlite3.Error: When the file cannot be read.
            OSError: Likewise.
        """
        self._writes.flush(_PATIENCE)
        connection = self._database.open_reader()
        if connection is None:
            return
        try:
            now = self._clock.time()
            for key, entry, size, created, expires in connection.execute(LIST):
                yield entry_of(key.decode(), entry, size=size, age=now - created, expires_in=expires - now)
        finally:
            close(connection)

    def clear(self, step: str | None = None) -> int:
        """Drop every entry, or those of one step, and return how many there were.

        Raises:
            sqlite3.Error: When the file cannot be written.
            OSError: Likewise.
        """
        keys = [(one.key,) for one in self.entries() if step is None or one.step == step]
        if keys:
            connection = self._database.open_writer()
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(DELETE, keys)
                connection.execute("COMMIT")
                connection.execute("VACUUM")  # what was deleted is still in the file, and somebody may have meant it
            finally:
                close(connection)
        return len(keys)


_stores: weakref.WeakSet[SqliteCache] = weakref.WeakSet()


def _start_anew() -> None:
    for one in list(_stores):
        one.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
