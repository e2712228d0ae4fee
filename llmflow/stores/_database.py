"""One SQLite file: made when something is to be kept, private, and never a reason for a call to fail.

The cache and the journal live in it, each with connections of its own. Its version is in `PRAGMA user_version`; a file of
an older version is brought up to date by whoever writes to it first, in one transaction.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from llmflow.stores._files import file_id, make_file, make_private, set_aside
from llmflow.stores._journal_tables import JOURNAL_SCHEMA, SINCE_VERSION_2
from llmflow.stores._recorded import as_text
from llmflow.stores._tables import SCHEMA

__all__ = ["VERSION", "Connect", "Database", "NotOurs", "close", "same_file", "write_lock"]

logger = logging.getLogger("llmflow")

Connect = Callable[..., Any]

VERSION = 3
MIGRATIONS: dict[int, tuple[str, ...]] = {0: (*SCHEMA, *JOURNAL_SCHEMA), 1: JOURNAL_SCHEMA, 2: SINCE_VERSION_2}
"""What makes a file of each older version one of this version; 0 is an empty file."""
_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_READ_PATIENCE = 0.05
"""Seconds that a reader, which stands on an event loop, waits for a lock."""
_WRITE_PATIENCE = 5.0
_TRIES = 10
"""How often the change to WAL is tried: SQLite does not wait for that lock by itself."""


class NotOurs(sqlite3.DatabaseError):
    """The file is a database, but not one of this version of llmflow."""


class Corrupt(sqlite3.DatabaseError):
    """The file is so corrupt that Python cannot even decode what SQLite says of it."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    sqlite_errorname = "SQLITE_CORRUPT"


class Database:
    """Opens connections to one file, and says once for each cause why it cannot be used.

    Args:
        path: The file.
        connect: `sqlite3.connect`; another one for tests.
        what: What of llmflow lives in it, for messages.
    """

    def __init__(self, path: Path, connect: Connect = sqlite3.connect, *, what: str = "cache") -> None:
        self.path = path
        self._connect = connect
        self._what = what
        self._warned: set[str] = set()
        self._lock = threading.Lock()

    # -- opening -------------------------------------------------------------------------------------------------------

    def open_reader(self) -> Any:
        """Return a connection that cannot change anything, None when there is no file yet."""
        try:
            if self.path.stat().st_size == 0:
                return None
        except FileNotFoundError:
            return None
        make_file(self.path)
        connection = self._open(_READ_PATIENCE)
        try:
            connection.text_factory = bytes
            connection.execute("PRAGMA query_only = ON")
            self._check_version(connection)
            make_private(self.path)  # only now, as it is ours
        except BaseException:
            close(connection)
            raise
        return connection

    def open_writer(self) -> Any:
        """Return a connection that may write, the file and its tables made if need be."""
        make_file(self.path)
        connection = self._open(_WRITE_PATIENCE)
        try:
            self._check_version(connection)  # before anything of it is changed
            self._use_wal(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            for statement in MIGRATIONS.get(self._check_version(connection), ()):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")
            make_private(self.path)  # with what SQLite has put beside it
        except BaseException:
            close(connection)
            raise
        return connection

    def _open(self, patience: float) -> Any:
        connection = self._connect(
            f"{self.path.as_uri()}?mode=rw", uri=True, timeout=patience, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = as_text  # what is no UTF-8 must not end what is done with other rows
        connection.execute("PRAGMA trusted_schema = OFF")
        return connection

    def _use_wal(self, connection: Any) -> None:
        for left in range(_TRIES - 1, -1, -1):
            try:
                connection.execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError as exc:
                if left == 0 or exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                time.sleep(0.02)  # in the writer's own thread
            else:
                return

    def _check_version(self, connection: Any) -> int:
        """Return the version of the file, refusing what somebody else made."""
        # In this order: another process may be making the tables, whose version is there as soon as they are.
        try:
            has_tables = connection.execute("SELECT 1 FROM sqlite_master").fetchone() is not None
        except UnicodeDecodeError as exc:  # the message quotes the table that it cannot make sense of
            msg = "malformed database schema"
            raise Corrupt(msg) from exc
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            msg = f"it was made by a newer llmflow (version {version} of its tables)"
            raise NotOurs(msg)
        if version == 0 and has_tables:
            msg = "it is the database of another program"
            raise NotOurs(msg)
        return version

    # -- what may go wrong ---------------------------------------------------------------------------------------------

    def file_id(self) -> tuple[int, int] | None:
        """Return what tells the file from one that takes its place."""
        return file_id(self.path)

    def trouble(self, exc: Exception, doing: str, known: tuple[int, int] | None) -> bool:
        """Say what is wrong, once for each cause, and set a corrupt file aside; True when it was and may be made anew."""
        code = getattr(exc, "sqlite_errorcode", None)
        corrupt = code is not None and code & 0xFF in _CORRUPT
        aside = set_aside(self.path, known or self.file_id()) if corrupt else None
        if aside is not None:
            exc.add_note(f"The corrupt file was set aside as {aside}; the next call begins with a new one.")
        cause = getattr(exc, "sqlite_errorname", None) or " ".join(
            str(one) for one in (type(exc).__name__, getattr(exc, "errno", None)) if one is not None
        )
        with self._lock:
            if cause in self._warned:
                return aside is not None
            self._warned.add(cause)
        if aside is not None:
            logger.warning("the %s %s is corrupt (%s); it was set aside as %s", self._what, self.path, exc, aside.name)
        else:
            logger.warning(
                "the %s %s cannot be %s (%s: %s); calls go on without it", self._what, self.path, doing, cause, exc
            )
        return aside is not None


def close(connection: Any) -> None:
    """Close a connection; one that cannot be closed is left."""
    with suppress(sqlite3.Error):
        connection.close()


_locks: dict[Path, threading.Lock] = {}
_finding = threading.Lock()


def write_lock(path: Path) -> threading.Lock:
    """Return the lock under which this process writes to a file: to wait for it is cheaper than for SQLite's own."""
    with _finding:
        return _locks.setdefault(same_file(path), threading.Lock())


def same_file(path: Path) -> Path:
    """Return what is equal for all ways to write a path, links in it followed."""
    return Path(os.path.realpath(path))


def _forget_locks() -> None:
    """Forget the locks in a forked child, where a thread that held one is gone."""
    global _finding  # noqa: PLW0603  # the lock itself may have been held
    _finding = threading.Lock()
    _locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)
