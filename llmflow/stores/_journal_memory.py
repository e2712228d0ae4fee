"""`memory://` as a journal: the tables of the file, kept in memory and bounded."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llmflow.context import caller
from llmflow.journal import RunClosed

if TYPE_CHECKING:
    from llmflow.journal import RunOpened
    from llmflow.ports import Clock
    from llmflow.stores._claims import Claim
    from llmflow.stores._journal_rows import Rows, Stamped

__all__ = ["MemoryJournal"]

_EVENTS = 10_000
"""How many of the latest events of runs without an id are kept."""
_RUNS = 1_000
"""How many runs are kept at most, with their nodes; those that ended first go first."""
_CALLS = 10_000
_BATCH = 256
_PRUNE = (
    "DELETE FROM runs WHERE run_id IN (SELECT run_id FROM runs WHERE status <> 'running' ORDER BY finished DESC"
    " LIMIT -1 OFFSET ?)"
)
_PRUNE_NODES = "DELETE FROM nodes WHERE run_id NOT IN (SELECT run_id FROM runs)"
_PRUNE_CALLS = "DELETE FROM calls WHERE call_id IN (SELECT call_id FROM calls ORDER BY finished DESC LIMIT -1 OFFSET ?)"
_PRUNE_ATTEMPTS = (
    "DELETE FROM attempts WHERE started < (SELECT started FROM attempts ORDER BY started DESC LIMIT 1 OFFSET ?)"
)


class MemoryJournal:
    """Keeps the latest runs of this process.

    What belongs to a run without an id is only remembered, and becomes rows when somebody looks; of its nodes there is
    what its calls say. A run with an id is kept so that it can be called again.

    Args:
        clock: Where time comes from.
    """

    durable = False

    def __init__(self, clock: Clock) -> None:
        self._time = clock.time
        self._events: deque[Stamped] = deque(maxlen=_EVENTS)
        self._notes: deque[Stamped] = deque()
        self._in_work: set[str] = set()
        self._unpruned = 0
        self._lock = threading.RLock()
        self._made: Any = None
        self._rows: Rows
        _journals.add(self)

    def start_anew(self) -> None:
        """Go on in a forked child, where a thread that held the lock is gone."""
        self._lock = threading.RLock()

    # -- the port ------------------------------------------------------------------------------------------------------

    def note(self, event: object, node: str | None, tags: Mapping[str, str] | None) -> None:
        """Remember an event, which is one of a run with an id when it has a node; on the path of every call."""
        if node is None:
            self._events.append((self._time(), event, tags))
        else:
            self.write(event)

    def write(self, note: object, /) -> None:
        """Take note of something that belongs to a run with an id."""
        stamped = (self._time(), note, caller.get().tags or None)
        if type(note) is RunClosed:  # it was opened by being claimed, and may be claimed again right after this
            with self._lock:
                self._notes.append(stamped)
                self._in_work.discard(note.run_id)
        else:
            self._notes.append(stamped)
        if len(self._notes) >= _BATCH:
            with self._lock:
                self._connection()

    async def settled(self) -> None:
        """Return at once: what is in memory ends with the process."""

    async def claim(self, run: RunOpened, /) -> Claim:
        """Begin a run, or take it up unless somebody else runs it.

        Raises:
            RunConflict: When its id was used for something else.
        """
        from llmflow.stores._claims import claim  # only who names runs needs tables

        with self._lock:
            mine = run.run_id in self._in_work  # before the notes are read: its end may come right after that
            connection, now = self._connection(), self._time()
            claimed = claim(connection, run, self._rows, now, self.reading, mine=mine)
            if claimed.state in ("new", "resumed"):
                self._in_work.add(run.run_id)
        return claimed

    async def aclose(self) -> None:
        """Do nothing: what is in memory is kept for the next event loop."""

    # -- the tables ----------------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Generator[Any]:
        """Give a connection to the tables, with all that was noted so far in them."""
        with self._lock:
            connection = self._connection()
            self._write(connection, self._events)
            yield connection

    def _connection(self) -> Any:
        """Return the connection, with what was noted of runs that have an id; the lock is held."""
        if self._made is None:
            self._made = self._make()
        self._write(self._made, self._notes)
        return self._made

    def _make(self) -> Any:
        import sqlite3  # nobody needs it before somebody looks

        from llmflow.stores._journal_rows import Rows
        from llmflow.stores._journal_tables import JOURNAL_SCHEMA

        self._rows = Rows()
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        for statement in JOURNAL_SCHEMA:
            connection.execute(statement)
        return connection

    def _write(self, connection: Any, notes: deque[Stamped]) -> None:
        batch = [notes.popleft() for _ in range(len(notes))]
        if not batch:
            return
        from llmflow.stores._journal_rows import execute

        for statement, values in self._rows.of(batch):
            execute(connection, statement, values)
        self._unpruned += len(batch)
        if self._unpruned < _BATCH:
            return
        self._unpruned = 0
        connection.execute(_PRUNE, (_RUNS,))
        connection.execute(_PRUNE_NODES)
        connection.execute(_PRUNE_CALLS, (_CALLS,))
        connection.execute(_PRUNE_ATTEMPTS, (_CALLS,))


_journals: weakref.WeakSet[MemoryJournal] = weakref.WeakSet()


def _start_anew() -> None:
    for one in list(_journals):
        one.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
