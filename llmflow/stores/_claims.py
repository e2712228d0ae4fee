"""Claiming a run in the tables of the journal, and reading what an earlier try left of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

from pydantic_core import from_json

from llmflow.errors import RunConflict
from llmflow.journal import RecordedNode, RecordedRun, RunOpened, Spent
from llmflow.stores._journal_rows import OPEN, Rows, execute
from llmflow.stores._journal_tables import IS_REPLAY
from llmflow.stores._owner import LEASE, is_alive, myself
from llmflow.stores._recorded import NODE_COLUMNS, as_bytes, as_text, as_text_or_none, node_fields

__all__ = ["NO_REPLAY", "Asked", "Claim", "claim", "give_up_dead_runs", "runs_named"]

_RUN = "run_id, target, kind, status, ref, command, graph, input_hash, inputs, output, content"
_NODE = f"{', '.join(NODE_COLUMNS)}, latency_s"
_FIND = f"SELECT {_NODE} FROM nodes WHERE run_id = ? AND key = ?"
_GET_RUN = f"SELECT owner, lease, {_RUN} FROM runs WHERE run_id = ?"
_TAKE = (
    "UPDATE runs SET status = 'running', owner = ?, lease = ?, named = 1, resumed = resumed + 1, finished = NULL,"
    " error = NULL, message = NULL WHERE run_id = ?"
)
_UNCERTAIN = "UPDATE attempts SET outcome = 'uncertain', cost_nano = reserved_nano WHERE run_id = ? AND outcome IS NULL"
_VERSIONS = "SELECT key, name, kind, prompt_version FROM nodes WHERE run_id = ? AND status = 'ok'"
_TAKEN = "CASE WHEN NOT sent OR status >= 400 THEN 0 ELSE coalesce({known}, {reserved}, 0) END"
"""As a budget counts: all that was reserved where nobody knows, and nothing where an error was the answer."""
_SPENT = (
    f"SELECT step, sum({_TAKEN.format(known='cost_nano', reserved='reserved_nano')}),"
    f" sum({_TAKEN.format(known='input_tokens + output_tokens', reserved='reserved_tokens')}), sum(sent)"
    " FROM attempts WHERE run_id = ? AND kind = 'attempt' GROUP BY step"
)

NO_REPLAY = f"(command IS NULL OR NOT {IS_REPLAY})"
"""Which runs are no replay of others."""

Reading = Callable[[], AbstractContextManager[Any]]
"""Gives a connection for a moment."""


class Claim:
    """A run that was asked for; see `llmflow.journal.Claimed`."""

    def __init__(
        self,
        state: Literal["new", "resumed", "finished", "busy"],
        run_id: str,
        run: RecordedRun | None,
        reading: Reading,
        *,
        is_ours: bool = True,
    ) -> None:
        self.state: Literal["new", "resumed", "finished", "busy"] = state
        self.run = run
        self.is_ours = is_ours
        self._run_id = run_id
        self._reading = reading

    def find(self, key: str, /) -> RecordedNode | None:
        """Return what is recorded of a node."""
        row = self._rows(_FIND, self._run_id, key)
        return _node(row[0]) if row else None

    def versions(self) -> Sequence[tuple[str, str, str, str | None]]:
        """Return key, name, kind and prompt version of every node that went well."""
        return [
            (as_text(a), as_text(b), as_text(c), as_text_or_none(d))
            for a, b, c, d in self._rows(_VERSIONS, self._run_id)
        ]

    def spent(self) -> Mapping[str, Spent]:
        """Return what each step has spent."""
        return {as_text(step): (usd, tokens, calls) for step, usd, tokens, calls in self._rows(_SPENT, self._run_id)}

    def nodes_of(self, graph: str, /) -> str | None:
        """Return the nodes of a graph."""
        rows = self._rows("SELECT nodes FROM graphs WHERE graph = ?", graph)
        return as_text(rows[0][0]) if rows else None

    def _rows(self, statement: str, *values: object) -> list[Any]:
        with self._reading() as connection:
            return execute(connection, statement, values).fetchall()  # type: ignore[no-any-return]


class Asked:
    """Somebody's wish for a run: when it is granted after it was withdrawn, or the other way, nobody has the run."""

    __slots__ = ("_answered", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answered = False

    @property
    def is_withdrawn(self) -> bool:
        """Whether nobody waits for it any more; asked before it is granted."""
        return self._answered

    def is_answered(self) -> bool:
        """Whether this was asked before: granting and withdrawing both do."""
        with self._lock:
            answered, self._answered = self._answered, True
        return answered


def claim(connection: Any, run: RunOpened, rows: Rows, now: float, reading: Reading, *, mine: bool) -> Claim:
    """Begin a run or take it up, in a transaction that the caller began; `mine` says that this process is running it.

    Raises:
        RunConflict: When it was begun for another target, or with other inputs.
    """
    found = connection.execute(_GET_RUN, (run.run_id,)).fetchone()
    if found is None and mine:  # its file is gone, and whoever runs it is told so at its next step
        return Claim("busy", run.run_id, None, reading)
    if found is None:
        execute(connection, OPEN, rows.opening(run))
        return Claim("new", run.run_id, None, reading)
    owner, lease, *rest = found
    known = _run(rest)
    _check(known, run)
    if known.status == "ok" and run.kind != "map":  # the items of a map may have become more
        return Claim("finished", run.run_id, known, reading)
    owner = as_text_or_none(owner)
    is_ours = owner == myself()
    # One that runs here is busy also when somebody who had not heard of it for long enough has given it up.
    if mine or (known.status == "running" and not is_ours and is_alive(owner, lease, now)):
        return Claim("busy", run.run_id, known, reading, is_ours=mine)
    connection.execute(_TAKE, (myself(), now + LEASE, run.run_id))
    connection.execute(_UNCERTAIN, (run.run_id,))
    return Claim("resumed", run.run_id, known, reading)


def _check(known: RecordedRun, run: RunOpened) -> None:
    if (known.target, known.kind) != (run.target, run.kind):
        msg = f"run {run.run_id!r} is a {known.kind} of {known.target!r}, not a {run.kind} of {run.target!r}; use another run id"
        raise RunConflict(msg)
    if known.input_hash != run.input_hash:
        which = _differing(known, run)
        raise RunConflict(f"run {run.run_id!r} was begun with other inputs{which}; use another run id for these")


def _differing(known: RecordedRun, run: RunOpened) -> str:
    """Return which inputs are others, as far as what is stored tells; their values are nobody's business here."""
    if known.content != "whole" or known.inputs is None or run.inputs is None:
        return ""
    before, now = from_json(known.inputs), from_json(run.inputs)
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return f" ({', '.join(names)})" if names else ""


def give_up_dead_runs(connection: Any, now: float) -> None:
    """Mark the runs of processes that are gone as interrupted, and what they had in flight as uncertain."""
    found = connection.execute("SELECT run_id, owner, lease FROM runs WHERE status = 'running'").fetchall()
    for run_id, owner, lease in found:
        if not is_alive(as_text_or_none(owner), lease, now):
            connection.execute("UPDATE runs SET status = 'interrupted', owner = NULL WHERE run_id = ?", (run_id,))
            connection.execute(_UNCERTAIN, (run_id,))


def runs_named(connection: Any, name: str) -> list[RecordedRun]:
    """Return the run of this id, else those whose id begins so; `last` is the one that began last and is no replay."""
    chosen = f"SELECT {_RUN} FROM runs"
    found = connection.execute(f"{chosen} WHERE run_id = ?", (name,)).fetchall()
    if not found and name == "last":
        found = connection.execute(f"{chosen} WHERE {NO_REPLAY} ORDER BY started DESC LIMIT 1").fetchall()
    if not found:
        found = connection.execute(f"{chosen} WHERE substr(run_id, 1, ?) = ? LIMIT 10", (len(name), name)).fetchall()
    return [_run(row) for row in found]


# -- rows --------------------------------------------------------------------------------------------------------------
# A reader of the file gives bytes for text, so that nothing in it can fail to be decoded; a writer gives text.


def _run(row: Sequence[Any]) -> RecordedRun:
    run_id, target, kind, status, ref, command, graph, input_hash, inputs, output, content = row
    return RecordedRun(
        run_id=as_text(run_id),
        target=as_text(target),
        kind=as_text(kind),
        status=as_text(status),
        ref=as_text_or_none(ref),
        command=as_text_or_none(command),
        graph=as_text_or_none(graph),
        input_hash=as_text_or_none(input_hash),
        inputs=as_bytes(inputs),
        output=as_bytes(output),
        content=as_text(content),
    )


def _node(row: Sequence[Any]) -> RecordedNode:
    *shared, latency_s = row
    return RecordedNode(**node_fields(shared), latency_s=latency_s)
