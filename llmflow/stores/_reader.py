"""Reading one SQLite file at once, on the event loop of whoever asks."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any

from llmflow.stores._database import Database, close
from llmflow.stores._tables import GET, Row, row_of

if TYPE_CHECKING:
    from llmflow.ports import Clock

__all__ = ["Reader"]

_REST = 1.0
"""Seconds for which a file that could not be read is not tried again, so that no call waits for the same lock twice."""
_LOOKED_AT_EVERY = 1.0
"""Seconds after which it looks whether its file is still the one at the path."""


class Reader:
    """One connection for all threads; a look-up takes microseconds, so they take turns."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._file: tuple[int, int] | None = None
        self._resting_until = self._look_at = float("-inf")
        self.connection: Any = None

    def get(self, key: str) -> Row | None:
        """Return the row of a key; None when there is none, or it cannot be read."""
        with self._lock:
            if (reader := self._open_connection()) is None:
                return None
            try:
                found = reader.execute(GET, (key,)).fetchone()
                return None if found is None else row_of(key, *found)
            except (sqlite3.Error, ValueError) as exc:
                self._cannot_read(exc)
                return None

    def _open_connection(self) -> Any:
        """Return the open connection; None when there is no file, or it was no use a moment ago."""
        now = self._clock.monotonic()
        if self.connection is not None and not self._look_at - _LOOKED_AT_EVERY <= now < self._look_at:
            self._look_at = now + _LOOKED_AT_EVERY
            if self._database.file_id() != self._file:
                self._close()
        if self.connection is None and not self._resting_until - _REST <= now < self._resting_until:
            try:
                self.connection = self._database.open_reader()
                self._file = self._database.file_id()
                self._look_at = now + _LOOKED_AT_EVERY
            except (sqlite3.Error, OSError) as exc:
                self._cannot_read(exc)
        return self.connection

    def _cannot_read(self, exc: Exception) -> None:
        if isinstance(exc, ValueError):  # one entry is no entry; the file is as it was
            self._database.trouble(exc, "read", None)
            return
        known = self._file
        self._close()
        if "no such table" in str(exc):  # somebody is just making it
            return
        self._resting_until = self._clock.monotonic() + _REST
        self._database.trouble(exc, "read", known)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        connection, self.connection, self._file = self.connection, None, None
        if connection is not None:
            close(connection)
