"""What SQLite raises when a disk or a file is in trouble, by the name of the trouble."""

from __future__ import annotations

import sqlite3

__all__ = ["FAULTS"]


def sqlite_error(code, name, text):
    def make():
        error = sqlite3.OperationalError(text)
        error.sqlite_errorcode, error.sqlite_errorname = code, name
        return error

    return make


FAULTS = {
    "ENOSPC": sqlite_error(sqlite3.SQLITE_FULL, "SQLITE_FULL", "database or disk is full"),
    "EROFS": sqlite_error(sqlite3.SQLITE_READONLY, "SQLITE_READONLY", "attempt to write a readonly database"),
    "EIO": sqlite_error(sqlite3.SQLITE_IOERR, "SQLITE_IOERR", "disk I/O error"),
    "BUSY": sqlite_error(sqlite3.SQLITE_BUSY, "SQLITE_BUSY", "database is locked"),
    "CORRUPT": sqlite_error(sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT", "database disk image is malformed"),
}
