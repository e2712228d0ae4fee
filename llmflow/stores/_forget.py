"""Dropping what the journal holds of old runs."""

from __future__ import annotations

from pathlib import Path

from llmflow.stores._database import Database, close, write_lock

__all__ = ["forget"]

_OLD = "SELECT run_id FROM runs WHERE started < ? AND status <> 'running'"
_CONTENT = (
    f"UPDATE nodes SET inputs = NULL, output = NULL, message = NULL, content = 'hashed' WHERE run_id IN ({_OLD})",
    "UPDATE runs SET inputs = NULL, output = NULL, message = NULL WHERE started < ? AND status <> 'running'",
)
_ROWS = (
    f"DELETE FROM attempts WHERE run_id IN ({_OLD})",
    f"DELETE FROM calls WHERE run_id IN ({_OLD})",
    f"DELETE FROM nodes WHERE run_id IN ({_OLD})",
    "DELETE FROM runs WHERE started < ? AND status <> 'running'",
)


def forget(path: Path, before: float, *, all_of_it: bool) -> int:
    """Drop inputs, outputs and messages of the runs that began before a point of time, and return how many there are.

    What they cost, how long they took and which prompts they used stays, unless all of it is to go. Runs that are running
    stay as they are. The file is written anew, as what was deleted would still stand in it.

    Raises:
        sqlite3.Error: When the file cannot be written.
        OSError: Likewise.
    """
    with write_lock(path):
        connection = Database(path, what="journal").open_writer()
        try:
            connection.execute("BEGIN IMMEDIATE")
            found: int = connection.execute(f"SELECT count(*) FROM ({_OLD})", (before,)).fetchone()[0]
            for statement in _ROWS if all_of_it else _CONTENT:
                connection.execute(statement, (before,))
            connection.execute("COMMIT")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            close(connection)
    return found
