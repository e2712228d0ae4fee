"""The nodes of a run as a tree, by their places; items of a map are counted, and only some of them kept.

A place is a path: `support/triage`, `support/inner/draft`, `support/draft[4f21]` for an item of a map.
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeAlias

from llmflow.stores._journal_reports import RunReport
from llmflow.stores._report_records import AttemptRecord, CallRecord, NodeRecord, Percentiles, Spend

__all__ = ["FAILURES", "SHOWN", "Branch", "Series", "Taken", "tree_of"]

SHOWN = 3
"""How many items of a map are kept whatever became of them: those that began first."""
FAILURES = 20
"""How many items that failed are kept beside them."""
_SMALL = 8
"""A map of so few items is kept whole."""

Record: TypeAlias = NodeRecord | CallRecord | AttemptRecord


@dataclass(frozen=True, slots=True)
class Taken:
    """What a node and all inside it took."""

    input_tokens: int = 0
    output_tokens: int = 0
    spend: Spend = Spend()  # noqa: RUF009  # frozen

    def __add__(self, other: Taken) -> Taken:
        return Taken(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.spend + other.spend,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A place in a run, with what is recorded of it and what is inside it.

    Attributes:
        key: The whole path.
        name: The last part of it.
        node: None while it has not ended, and for a place that only others are in.
        status: `ok`, `cached`, `failed`, `cancelled`, `in flight`, `uncertain`; empty when nobody knows.
        ended: None while it is in flight.
    """

    key: str
    name: str
    node: NodeRecord | None
    calls: tuple[CallRecord, ...]
    attempts: tuple[AttemptRecord, ...]
    children: tuple[Branch | Series, ...]
    status: str
    started: float
    ended: float | None
    taken: Taken

    @property
    def model(self) -> str | None:
        """Who gave the answer, or was asked last."""
        if self.node is not None and self.node.model is not None:
            return self.node.model
        return next((one.model for one in (*reversed(self.calls), *reversed(self.attempts)) if one.model), None)

    @property
    def prompt_version(self) -> str | None:
        """Which version of the prompt was used."""
        own = () if self.node is None else (self.node,)
        return next((one.prompt_version for one in (*own, *self.calls, *self.attempts) if one.prompt_version), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The items of a map.

    Attributes:
        name: What was mapped.
        number: How many items there are.
        statuses: How many of them ended how.
        items: Some of them, in the order in which they began: the first, and those that failed.
        latency: Of the items that ended.
    """

    key: str
    name: str
    number: int
    statuses: Mapping[str, int]
    items: tuple[Branch, ...]
    latency: Percentiles
    started: float
    ended: float | None
    taken: Taken


def tree_of(run: RunReport, *, content: bool = False) -> tuple[Branch | Series, ...]:
    """Return the roots of a run's tree; it takes no more memory for a map of a million items than for one of a hundred."""
    rows: Iterable[Record] = heapq.merge(
        run.nodes(content=content), run.calls(), run.attempts(), key=lambda one: one.node
    )
    return _grow(rows, ())


# -- growing -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Seed:
    """A place whose records are still coming."""

    records: list[Record] = field(default_factory=list[Record])
    children: dict[str, _Seed] = field(default_factory=dict[str, "_Seed"])
    series: dict[str, Series] = field(default_factory=dict[str, Series])

    def at(self, path: Iterable[str]) -> _Seed:
        seed = self
        for name in path:
            seed = seed.children.setdefault(name, _Seed())
        return seed


def _grow(rows: Iterable[Record], above: tuple[str, ...]) -> tuple[Branch | Series, ...]:
    """Build the tree of rows in the order of their keys, all of which are below one place.

    The rows of one map stand together in that order, and so do those of one of its items; other places may be anywhere.
    """
    root = _Seed()
    depth = len(above)
    for map_path, same in groupby(rows, lambda one: _map_path(one.node, depth)):
        if map_path is None:
            for one in same:
                root.at(_split(one.node)[depth:]).records.append(one)
        else:
            root.at(map_path[depth:-1]).series[map_path[-1]] = _series(map_path, same)
    return _children(root, above)


def _children(seed: _Seed, above: tuple[str, ...]) -> tuple[Branch | Series, ...]:
    grown: list[Branch | Series] = [_branch(name, one, above) for name, one in seed.children.items()]
    grown += seed.series.values()
    return tuple(sorted(grown, key=lambda one: (one.started, one.key)))


def _branch(name: str, seed: _Seed, above: tuple[str, ...]) -> Branch:
    path = (*above, name)
    return _made(path, seed.records, _children(seed, path))


def _series(path: tuple[str, ...], rows: Iterable[Record]) -> Series:
    """Count the items of one map, and keep the first and those that failed."""
    kept = _Kept()
    for item, same in groupby(rows, lambda one: _split(one.node)[len(path) - 1]):
        kept.add(_item((*path[:-1], item), same))
    return kept.series(path)


def _item(path: tuple[str, ...], rows: Iterable[Record]) -> Branch:
    own: list[Record] = []
    inside: list[Record] = []
    for one in rows:
        (own if len(_split(one.node)) == len(path) else inside).append(one)
    return _made(path, own, _grow(inside, path))


@dataclass(slots=True)
class _Kept:
    """The items of a map that have come so far."""

    first: list[Branch] = field(default_factory=list[Branch])
    failed: list[Branch] = field(default_factory=list[Branch])
    statuses: Counter[str] = field(default_factory=Counter[str])
    latencies: array[float] = field(default_factory=lambda: array("d"))
    started: float = float("inf")
    ended: float = 0.0
    taken: Taken = Taken()  # noqa: RUF009  # frozen

    def add(self, item: Branch) -> None:
        self.statuses[item.status] += 1
        self.started = min(self.started, item.started)
        self.taken += item.taken
        if item.ended is not None:
            self.ended = max(self.ended, item.ended)
            self.latencies.append(item.ended - item.started)
        self.first = sorted([*self.first, item], key=lambda one: (one.started, one.key))[:_SMALL]
        if item.status in ("failed", "uncertain", "in flight") and len(self.failed) < FAILURES:
            self.failed.append(item)

    def series(self, path: tuple[str, ...]) -> Series:
        number = self.statuses.total()
        first = self.first if number <= _SMALL else self.first[:SHOWN]
        items = {one.key: one for one in (*first, *self.failed)}
        return Series(
            key="/".join(path),
            name=path[-1],
            number=number,
            statuses=dict(self.statuses.most_common()),
            items=tuple(sorted(items.values(), key=lambda one: (one.started, one.key))),
            latency=_percentiles(self.latencies),
            started=self.started,
            ended=None if self.statuses["in flight"] else self.ended,
            taken=self.taken,
        )


def _percentiles(latencies: array[float]) -> Percentiles:
    ranked = sorted(latencies)
    if not ranked:
        return Percentiles()
    return Percentiles(*(ranked[-(-len(ranked) * percent // 100) - 1] for percent in (50, 95, 99)))


# -- one place ---------------------------------------------------------------------------------------------------------


def _made(path: tuple[str, ...], records: Iterable[Record], children: tuple[Branch | Series, ...]) -> Branch:
    """Return a place with what is recorded of it."""
    node: NodeRecord | None = None
    calls: list[CallRecord] = []
    attempts: list[AttemptRecord] = []
    for one in records:
        if isinstance(one, NodeRecord):
            node = one
        elif isinstance(one, CallRecord):
            calls.append(one)
        else:
            attempts.append(one)
    taken = sum((Taken(one.input_tokens or 0, one.output_tokens or 0, one.spend) for one in attempts), Taken())
    status = _status(node, calls, attempts)
    started, ended = _span(node, calls, attempts, children)
    return Branch(
        key="/".join(path),
        name=path[-1],
        node=node,
        calls=tuple(calls),
        attempts=tuple(attempts),
        children=children,
        status=status,
        started=started,
        ended=None if status == "in flight" else ended,
        taken=sum((one.taken for one in children), taken),
    )


def _status(node: NodeRecord | None, calls: list[CallRecord], attempts: list[AttemptRecord]) -> str:
    cached = bool(calls) and all(one.cached for one in calls)
    if node is not None:
        return "cached" if cached and node.status == "ok" else node.status
    outcomes = {one.outcome for one in attempts}
    if None in outcomes:
        return "in flight"
    if calls:
        return "failed" if calls[-1].error is not None else "cached" if cached else "ok"
    return "uncertain" if "uncertain" in outcomes else ""


def _span(
    node: NodeRecord | None,
    calls: list[CallRecord],
    attempts: list[AttemptRecord],
    children: tuple[Branch | Series, ...],
) -> tuple[float, float]:
    """Return when a place began and ended, as far as its records say."""
    if node is not None:
        return node.started, node.started + node.latency_s
    spans = [
        *((one.finished - one.latency_s, one.finished) for one in calls),
        *((one.started, one.started + (one.latency_s or 0.0)) for one in attempts),
        *((one.started, one.started if one.ended is None else one.ended) for one in children),
    ]
    return min(start for start, _ in spans), max(end for _, end in spans)


# -- paths -------------------------------------------------------------------------------------------------------------


def _split(key: str) -> tuple[str, ...]:
    """Return the parts of a path; a slash inside brackets belongs to the key of an item."""
    return tuple(_parts(key))


def _parts(key: str) -> Iterator[str]:
    depth = start = 0
    for place, letter in enumerate(key):
        if letter == "[":
            depth += 1
        elif letter == "]":
            depth = max(0, depth - 1)
        elif letter == "/" and not depth:
            yield key[start:place]
            start = place + 1
    yield key[start:]


def _map_path(key: str, depth: int) -> tuple[str, ...] | None:
    """Return the path of the outermost map that an item is of, its last part without the item's key."""
    if "[" not in key:
        return None
    parts = _split(key)
    for place, part in enumerate(parts[depth:], depth):
        base, bracket, _ = part.partition("[")
        if bracket and part.endswith("]"):
            return (*parts[:place], base)
    return None
