"""Reading the journal: its runs, what became of them, and sums over all of them. Nothing is made or changed."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from llmflow.stores import _report_sums as sums
from llmflow.stores._claims import NO_REPLAY
from llmflow.stores._database import Database, close
from llmflow.stores._journal_tables import IS_ITEM
from llmflow.stores._owner import is_alive
from llmflow.stores._recorded import as_text
from llmflow.stores._report_groups import GroupCost, GroupStats, VersionStats, Window
from llmflow.stores._report_records import RunSummary
from llmflow.stores._report_sums import SPEND, Group, spend_of
from llmflow.stores._run_report import UNENDED, RunReport

__all__ = ["AmbiguousRun", "NoJournal", "NoRun", "Reports", "RunFilter", "open_reports"]

_PATIENCE_MS = 5000
"""How long a report waits for a lock: a person is waiting, no event loop."""
_SHOWN = 5
_EVERYTHING = Window()


class NoJournal(LookupError):
    """There is no file, or no run was ever recorded in it."""


class NoRun(LookupError):
    """No run has this id, or one that begins so."""


class AmbiguousRun(LookupError):
    """Several runs have an id that begins so; `runs` are some of them."""

    def __init__(self, message: str, runs: tuple[str, ...]) -> None:
        super().__init__(message)
        self.runs = runs


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs are meant; None for any. A map of which an item failed is `failed` too, whatever its own status."""

    target: str | None = None
    status: str | None = None
    tenant: str | None = None
    window: Window = _EVERYTHING


@contextmanager
def open_reports(path: Path) -> Generator[Reports]:
    """Open a journal for reading; all reports see it as it was at the first of them.

    Raises:
        NoJournal: When there is none.
        sqlite3.Error: When it cannot be read.
        OSError: Likewise.
    """
    connection = Database(path, what="journal").open_reader()
    if connection is None:
        msg = f"no run is recorded in {path} yet" if path.exists() else f"there is no journal: {path} does not exist"
        raise NoJournal(msg)
    try:
        connection.text_factory = as_text  # the reports want text
        connection.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
        _complete_columns(connection)
        connection.execute("BEGIN")
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchone() is None:
            msg = f"no run is recorded in {path} yet"
            raise NoJournal(msg)
        yield Reports(connection)
    finally:
        close(connection)


def _complete_columns(connection: Any) -> None:
    """Give what is read the columns that a file lacks which no newer llmflow has written to yet."""
    columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(attempts)")}
    if columns and "sent" not in columns:
        connection.execute("PRAGMA query_only = OFF")
        connection.execute("CREATE TEMP VIEW attempts AS SELECT *, 1 AS sent FROM main.attempts")
        connection.execute("PRAGMA query_only = ON")


class Reports:
    """Reports over one connection to a journal.

    Args:
        connection: Of SQLite, to a file or to memory; nothing is written.
        now: Seconds since the epoch, for who is still alive; the time of day unless given.
    """

    def __init__(self, connection: Any, now: float | None = None) -> None:
        self._connection = connection
        self.now = time.time() if now is None else now

    # -- runs ----------------------------------------------------------------------------------------------------------

    def runs(self, wanted: RunFilter | None = None, *, limit: int | None = None) -> Iterator[RunSummary]:
        """Yield runs, the latest first."""
        wanted = wanted or RunFilter()
        condition, values = _where(wanted)
        found = self._connection.execute(
            f"SELECT {_RUN} FROM runs {condition} ORDER BY started DESC, run_id",  # no part of it comes from outside
            values,
        )
        matching = (row for row in found if self._has_status(row, wanted.status))
        for row in islice(matching, limit):
            yield self._summary(row)

    def run(self, name: str) -> RunReport:
        """Return one run: by its id, by the beginning of it, or the `last` that is no replay.

        Raises:
            NoRun: When there is none.
            AmbiguousRun: When several begin so.
        """
        row = self._find("run_id = ?", _bindable(name))
        if row is None and name == "last":
            row = self._find(f"{NO_REPLAY} ORDER BY started DESC")
        if row is None:
            row = self._find("run_id = ?", self._complete(_bindable(name)))
        return RunReport(self._connection, self._summary(row))

    def _find(self, condition: str, *values: object) -> Any:
        return self._connection.execute(f"SELECT {_RUN} FROM runs WHERE {condition}", values).fetchone()

    def _complete(self, beginning: str) -> str:
        """Return the one id that begins so."""
        end = beginning + "\U0010ffff"
        found = [
            one
            for (one,) in self._connection.execute(
                "SELECT run_id FROM runs WHERE run_id >= ? AND run_id < ? ORDER BY started DESC LIMIT ?",
                (beginning, end, _SHOWN + 1),
            )
        ]
        if not found or not beginning:
            msg = "there is no run yet" if beginning == "last" else f"there is no run {beginning!r}"
            raise NoRun(msg)
        if len(found) > 1:
            number = f"{len(found)}" if len(found) <= _SHOWN else f"more than {_SHOWN}"
            msg = f"{number} runs have an id that begins with {beginning!r}"
            raise AmbiguousRun(msg, tuple(found[:_SHOWN]))
        return str(found[0])

    def _summary(self, row: Any) -> RunSummary:
        (
            run_id,
            target,
            kind,
            status,
            started,
            finished,
            latency_s,
            error,
            message,
            tenant,
            tags,
            resumed,
            *_,
            command,
            failed,
        ) = row
        requests, tokens_in, tokens_out, saved, *spend = self._connection.execute(
            f"SELECT count(*) FILTER (WHERE kind = 'attempt'), sum(input_tokens),"
            f" sum(output_tokens), coalesce(sum(saved_nano), 0), {SPEND} FROM attempts WHERE run_id = ?",
            (run_id,),
        ).fetchone()
        (calls,) = self._connection.execute("SELECT count(*) FROM calls WHERE run_id = ?", (run_id,)).fetchone()
        return RunSummary(
            run_id=run_id,
            target=target,
            kind=kind,
            status=self._status(row),
            started=started,
            finished=finished,
            latency_s=latency_s,
            error=error,
            message=message,
            tenant=tenant,
            tags=tags,
            resumed=resumed,
            replay_of=_replay_of(command),
            failed_items=failed,
            items=self._items(run_id) if failed else None,
            calls=calls,
            unended=0 if status == "ok" and not resumed else self._unended(run_id),
            requests=requests,
            input_tokens=tokens_in,
            output_tokens=tokens_out,
            spend=spend_of(tuple(spend)),
            saved_nano=saved,
        )

    def _unended(self, run_id: str) -> int:
        """Count the calls that have no end, which takes as long as there are requests."""
        return int(self._connection.execute(f"SELECT count(*) FROM ({UNENDED})", (run_id,)).fetchone()[0])

    def _items(self, run_id: str) -> int:
        return int(self._connection.execute(_ITEMS, (run_id,)).fetchone()[0])

    def _has_status(self, row: Any, status: str | None) -> bool:
        return status is None or status == self._status(row) or (status == "failed" and row[-1] > 0)

    def _status(self, row: Any) -> str:
        """Return the status of a run; one that says `running` may belong to a process that died."""
        status, owner, lease = str(row[3]), row[12], row[13]
        return "interrupted" if status == "running" and not is_alive(owner, lease, self.now) else status

    # -- sums ----------------------------------------------------------------------------------------------------------

    def stats(self, by: Group = "step", window: Window = _EVERYTHING, *, step: str | None = None) -> list[GroupStats]:
        """Return how calls went, by step, model, day, tenant or prompt; those of replays are not among them."""
        return sums.stats(self._connection, by, window, _bindable(step))

    def cost(self, by: Group = "step", window: Window = _EVERYTHING, *, step: str | None = None) -> list[GroupCost]:
        """Return what requests took, those of replays too, by step, model, day, tenant or prompt."""
        return sums.cost(self._connection, by, window, _bindable(step))

    def versions_of(self, step: str, window: Window = _EVERYTHING) -> list[VersionStats]:
        """Return how each version of a step's prompt went, the latest first; as `stats`, without replays."""
        return sums.versions(self._connection, _bindable(step), window)

    def labels(self) -> dict[tuple[str, str], str]:
        """Return the label of each version of a prompt that has one, by step and version."""
        found = self._connection.execute("SELECT step, version, label FROM prompts WHERE label IS NOT NULL")
        return {(step, version): label for step, version, label in found}

    def steps(self) -> frozenset[str]:
        """Return the names of the steps that calls are recorded of."""
        return frozenset(step for (step,) in self._connection.execute("SELECT DISTINCT step FROM calls"))

    def began(self) -> float | None:
        """Return when the first run that is recorded began, None when there is none."""
        (first,) = self._connection.execute("SELECT min(started) FROM runs").fetchone()
        return None if first is None else float(first)


_RUN = (
    "run_id, target, kind, status, started, finished, latency_s, error, message, tenant, tags, resumed, owner, lease,"
    f" command, CASE kind WHEN 'map' THEN (SELECT count(*) FROM nodes WHERE nodes.run_id = runs.run_id"
    f" AND nodes.status = 'failed' AND {IS_ITEM}) ELSE 0 END AS failed_items"
)
_ITEMS = f"SELECT count(*) FROM nodes WHERE run_id = ? AND {IS_ITEM}"


def _replay_of(command: str | None) -> str | None:
    """Return what a run played again, None when it is no replay."""
    if command is None or not command.startswith('{"replay"'):
        return None
    try:
        return str(json.loads(command)["replay"])
    except ValueError:  # another program may have written it
        return ""


def _where(wanted: RunFilter) -> tuple[str, tuple[object, ...]]:
    limits: list[tuple[str, object]] = [
        ("target = ?", _bindable(wanted.target)),
        ("tenant = ?", _bindable(wanted.tenant)),
        ("started >= ?", wanted.window.since),
        ("started < ?", wanted.window.until),
    ]
    if wanted.status is not None:
        # Which of those that say they run have been interrupted, the file cannot tell.
        or_items = " OR failed_items > 0" if wanted.status == "failed" else ""
        limits.append((f"(status IN (?, 'running'){or_items})", _bindable(wanted.status)))
    given = [(text, value) for text, value in limits if value is not None]
    condition = " AND ".join(text for text, _ in given)
    return (f"WHERE {condition}" if given else ""), tuple(value for _, value in given)


def _bindable(value: Any) -> Any:
    """Return a text as SQLite takes it; an argument of the command line may hold what is no character."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
