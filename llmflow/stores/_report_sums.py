"""Sums over the journal: of calls by when they ended, of requests and their money by when they were sent.

SQLite adds up. Percentiles take one pass over the latencies in their order, so they need no memory however many there are.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, TypeAlias

from llmflow.stores._journal_tables import IS_REPLAY
from llmflow.stores._report_groups import GroupCost, GroupStats, Percentiles, VersionStats, Window
from llmflow.stores._report_records import Spend

__all__ = ["GROUPS", "SPEND", "Group", "Row", "cost", "spend_of", "stats", "versions"]

Group: TypeAlias = Literal["step", "model", "day", "tenant", "prompt"]
Row: TypeAlias = tuple[Any, ...]
Key: TypeAlias = tuple[str | None, ...]

GROUPS: dict[Group, tuple[str, ...]] = {
    "step": ("step",),
    "model": ("model",),
    "day": ("day",),
    "tenant": ("tenant",),
    "prompt": ("step", "prompt_version"),
}
"""What the key of a group is made of."""

_NO_REPLAY = f"run_id NOT IN (SELECT run_id FROM runs WHERE {IS_REPLAY})"
"""They are few, and found once for a pass over all rows."""
_ANY_REPLAY = f"SELECT 1 FROM runs WHERE {IS_REPLAY} LIMIT 1"
_LOST = "(outcome = 'uncertain' OR outcome IS NULL)"
_UNKNOWN = f"({_LOST} OR (kind = 'attempt' AND sent AND cost_nano IS NULL))"
SPEND = f"""
    coalesce(sum(cost_nano) FILTER (WHERE NOT {_LOST}), 0),
    count(*) FILTER (WHERE {_UNKNOWN} AND NOT {_LOST}),
    count(*) FILTER (WHERE outcome = 'uncertain'),
    count(*) FILTER (WHERE outcome IS NULL),
    coalesce(sum(coalesce(cost_nano, reserved_nano)) FILTER (WHERE {_UNKNOWN}), 0),
    count(*) FILTER (WHERE {_UNKNOWN} AND cost_nano IS NULL AND reserved_nano IS NULL)"""
"""What a `Spend` is made of, over rows of `attempts`."""
_TAKEN = f"""
    count(*) FILTER (WHERE kind = 'attempt'),
    sum(input_tokens), sum(output_tokens),
    count(*) FILTER (WHERE kind != 'attempt'),
    coalesce(sum(saved_nano), 0),
    count(*) FILTER (WHERE kind != 'attempt' AND saved_nano IS NULL),{SPEND}"""
_NO_ERROR = frozenset({None, "ok", "cancelled", "uncertain"})
"""Outcomes of requests that say nothing against a model; the loser of a hedge is cancelled."""


def spend_of(row: Row) -> Spend:
    """Return what the columns of `SPEND` say."""
    return Spend(
        **dict(zip(("known_nano", "unpriced", "uncertain", "in_flight", "open_nano", "unbounded"), row, strict=True))
    )


# -- what is looked at -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Source:
    """A table, which of its columns says when, and which rows of it are meant: of replays only if that is said."""

    table: Literal["calls", "attempts"]
    time: Literal["finished", "started"]
    window: Window
    step: str | None
    replays: bool

    def columns(self, by: Group) -> str:
        """Return the columns of a group's key."""
        return ", ".join(f"date({self.time}, 'unixepoch')" if name == "day" else name for name in GROUPS[by])

    def where(self, *more: str) -> tuple[str, tuple[object, ...]]:
        """Return the condition and its values."""
        limits = [
            (f"{self.time} >= ?", self.window.since),
            (f"{self.time} < ?", self.window.until),
            ("step = ?", self.step),
        ]
        given = [(text, value) for text, value in limits if value is not None]
        conditions = [*(text for text, _ in given), *more, *([] if self.replays else [_NO_REPLAY])]
        return (f"WHERE {' AND '.join(conditions)}" if conditions else ""), tuple(value for _, value in given)


def _calls(window: Window, step: str | None, *, replays: bool) -> _Source:
    return _Source("calls", "finished", window, step, replays)


def _attempts(window: Window, step: str | None, *, replays: bool) -> _Source:
    return _Source("attempts", "started", window, step, replays)


def _has_none(connection: Any) -> bool:
    """Whether there are no replays, so that no row need be looked at for them."""
    return connection.execute(_ANY_REPLAY).fetchone() is None


# -- reports -----------------------------------------------------------------------------------------------------------


def cost(connection: Any, by: Group, window: Window, step: str | None = None) -> list[GroupCost]:
    """Return what each group took, in the order of the days, else the dearest first."""
    found = _costs(connection, _attempts(window, step, replays=True), by)
    if by == "day":
        return sorted(found, key=lambda one: one.key[0] or "")
    return sorted(found, key=lambda one: (-one.spend.known_nano - one.spend.open_nano, _sortable(one.key)))


def stats(connection: Any, by: Group, window: Window, step: str | None = None) -> list[GroupStats]:
    """Return how the calls of each group went, in the order of their keys; by model how its requests went.

    Replays are left out: what they asked says nothing about the traffic that there is.
    """
    replays = _has_none(connection)
    calls, attempts = _calls(window, step, replays=replays), _attempts(window, step, replays=replays)
    tallies = _tallies(connection, by, calls)
    costs = {one.key: one for one in _costs(connection, attempts, by)}
    if by == "model":
        errors, latencies = _of_requests(connection, attempts)
    else:
        errors = {key: dict(tally.errors) for key, tally in tallies.items()}
        counts = {key: tally.calls for key, tally in tallies.items()}
        latencies = _percentiles(connection, by, calls, counts)
    return [
        tallies.get(key, _Tally()).stats(
            costs.get(key, GroupCost(key=key)), errors.get(key, {}), latencies.get(key, Percentiles())
        )
        for key in sorted(costs.keys() | tallies.keys(), key=_sortable)
    ]


def versions(connection: Any, step: str, window: Window) -> list[VersionStats]:
    """Return how each version of a step's prompt went, the latest first; those that were never called too."""
    groups = {one.key[1]: one for one in stats(connection, "prompt", window, step)}
    condition, values = _calls(window, step, replays=_has_none(connection)).where()
    seen = {
        version: (first, last)
        for version, first, last in connection.execute(
            f"SELECT prompt_version, min(finished - latency_s), max(finished) FROM calls {condition} GROUP BY 1",  # no part of it comes from outside
            values,
        )
    }
    known = {
        version: (label, first)
        for version, label, first in connection.execute(
            "SELECT version, label, first_seen FROM prompts WHERE step = ?", (step,)
        )
    }
    found: list[VersionStats] = []
    for version in groups.keys() | known.keys():
        first, last = seen.get(version, (None, None))
        label, recorded = known.get(version, (None, None))
        key = (step, version)
        found.append(
            VersionStats(
                step=step,
                version=version,
                label=label,
                first_seen=first if recorded is None else recorded,
                last_seen=last,
                stats=groups.get(version, GroupStats(key=key, cost=GroupCost(key=key))),
            )
        )
    return sorted(found, key=lambda one: (-(one.first_seen or 0.0), one.version or ""))


# -- parts of them -----------------------------------------------------------------------------------------------------


def _grouped(connection: Any, source: _Source, by: Group, sums: str) -> Iterator[tuple[Key, Row]]:
    condition, values = source.where()
    columns = source.columns(by)
    width = len(GROUPS[by])
    query = f"SELECT {columns}, {sums} FROM {source.table} {condition} GROUP BY {columns}"
    for row in connection.execute(query, values):
        yield row[:width], row[width:]


def _costs(connection: Any, source: _Source, by: Group) -> list[GroupCost]:
    return [_cost(key, row) for key, row in _grouped(connection, source, by, _TAKEN)]


def _cost(key: Key, row: Row) -> GroupCost:
    requests, tokens_in, tokens_out, hits, saved, unsaved, *spend = row
    return GroupCost(
        key=key,
        requests=requests,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        hits=hits,
        saved_nano=saved,
        unsaved=unsaved,
        spend=spend_of(tuple(spend)),
    )


@dataclass(slots=True)
class _Tally:
    calls: int = 0
    valid: int = 0
    reasks: int = 0
    repaired: int = 0
    throttled: int = 0
    waited_s: float = 0.0
    errors: Counter[str] = field(default_factory=Counter[str])

    def add(self, row: Row) -> None:
        error, calls, reasks, repaired, throttled, waited_s = row
        self.calls += calls
        self.reasks += reasks
        self.repaired += repaired
        self.throttled += throttled
        self.waited_s += waited_s
        if error is None:
            self.valid += calls
        else:
            self.errors[error] += calls

    def stats(self, cost: GroupCost, errors: dict[str, int], latency: Percentiles) -> GroupStats:
        return GroupStats(
            key=cost.key,
            calls=self.calls,
            valid=self.valid,
            errors=dict(sorted(errors.items(), key=lambda one: (-one[1], one[0]))),
            reasks=self.reasks,
            repaired=self.repaired,
            waited_s=self.waited_s,
            throttled=self.throttled,
            latency=latency,
            cost=cost,
        )


def _tallies(connection: Any, by: Group, source: _Source) -> dict[Key, _Tally]:
    """Count the calls of each group, those that ended with one error together."""
    condition, values = source.where()
    columns = source.columns(by)
    width = len(GROUPS[by])
    query = (
        f"SELECT {columns}, error, count(*), sum(reasks), sum(repaired), sum(throttled), sum(waited_s)"
        f" FROM calls {condition} GROUP BY {columns}, error ORDER BY {columns}"
    )
    found: dict[Key, _Tally] = {}
    for row in connection.execute(query, values):
        found.setdefault(row[:width], _Tally()).add(row[width:])
    return found


def _of_requests(connection: Any, source: _Source) -> tuple[dict[Key, dict[str, int]], dict[Key, Percentiles]]:
    """Return what went wrong with the requests of each model, and how long those that ended took."""
    errors: dict[Key, dict[str, int]] = {}
    counts: dict[Key, int] = {}
    condition, values = source.where("kind = 'attempt'")
    query = f"SELECT model, outcome, count(*), count(latency_s) FROM attempts {condition} GROUP BY 1, 2 ORDER BY 1"
    for model, outcome, number, timed in connection.execute(query, values):
        counts[model,] = counts.get((model,), 0) + timed
        if outcome not in _NO_ERROR:
            errors.setdefault((model,), {})[outcome] = number
    timed_only = {key: number for key, number in counts.items() if number}
    ended = ("kind = 'attempt'", "latency_s IS NOT NULL")
    return errors, _percentiles(connection, "model", source, timed_only, *ended)


def _percentiles(
    connection: Any, by: Group, source: _Source, counts: dict[Key, int], *conditions: str
) -> dict[Key, Percentiles]:
    """Return the percentiles of each group, whose sizes are known, in the order that SQLite has them in."""
    condition, values = source.where(*conditions)
    query = f"SELECT latency_s FROM {source.table} {condition} ORDER BY {source.columns(by)}, latency_s"
    latencies = (latency for (latency,) in connection.execute(query, values))
    return {key: _ranked(latencies, number) for key, number in counts.items()}


def _ranked(latencies: Iterator[float], number: int) -> Percentiles:
    """Take so many latencies, which rise, and return those of the nearest ranks."""
    found: list[float] = []
    taken = 0
    for rank in (-(-number * percent // 100) for percent in (50, 95, 99)):
        if rank > taken:  # of few latencies one may have several ranks
            found.append(next(islice(latencies, rank - taken - 1, None)))
            taken = rank
        else:
            found.append(found[-1])
    deque(islice(latencies, number - taken), maxlen=0)
    return Percentiles(*found)


def _sortable(key: Key) -> tuple[str, ...]:
    return tuple(one or "" for one in key)
