"""The nodes of a run as a tree, by their places; items of a map are counted, and only some of them kept.

A place is a path: `support/triage`, `support/inner/draft`, `support/draft[4f21]` for an item of a map.
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from typing import TypeAlias

from llmflow.stores._report_groups import Percentiles
from llmflow.stores._report_places import Branch, Series, Taken
from llmflow.stores._report_records import AttemptRecord, CallRecord, NodeRecord
from llmflow.stores._run_report import RunReport

__all__ = ["FAILURES", "SHOWN", "tree_of"]

SHOWN = 3
"""How many items of a map are kept whatever became of them: those that began first."""
FAILURES = 20
"""How many items that failed are kept beside them."""
_SMALL = 8
"""A map of so few items is kept whole."""

Record: TypeAlias = NodeRecord | CallRecord | AttemptRecord


def tree_of(run: RunReport, *, content: bool = False) -> tuple[Branch | Series, ...]:
    """Return the roots of a run's tree; of a large map no more is held than the latencies and the items that are shown."""
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
    series: dict[str, _Kept] = field(default_factory=dict[str, "_Kept"])

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
            root.at(map_path[depth:-1]).series.setdefault(map_path[-1], _Kept()).take(map_path, same)
    return _children(root, above)


def _children(seed: _Seed, above: tuple[str, ...]) -> tuple[Branch | Series, ...]:
    grown: list[Branch | Series] = [_branch(name, one, above) for name, one in seed.children.items()]
    grown += [one.series((*above, name)) for name, one in seed.series.items()]
    return tuple(sorted(grown, key=lambda one: (one.started, one.key)))


def _branch(name: str, seed: _Seed, above: tuple[str, ...]) -> Branch:
    path = (*above, name)
    return _made(path, seed.records, _children(seed, path))


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

    def take(self, path: tuple[str, ...], rows: Iterable[Record]) -> None:
        """Take note of the items of the map at a path, whose rows stand together."""
        for name, its in groupby(rows, lambda one: _split(one.node)[len(path) - 1]):
            self.add(_item((*path[:-1], name), its))

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
    taken = sum((Taken(one.input_tokens, one.output_tokens, one.spend) for one in attempts), Taken())
    status = _status(node, calls, attempts) or ("in flight" if any(one.ended is None for one in children) else "")
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


@lru_cache(maxsize=64)  # each key is looked at several times in a row
def _split(key: str) -> tuple[str, ...]:
    """Return the parts of a path; a slash inside brackets belongs to the key of an item."""
    pieces = key.split("/")
    if "[" not in key:
        return tuple(pieces)
    parts: list[str] = []
    inside = 0
    for piece in pieces:
        if inside:
            parts[-1] += f"/{piece}"
        else:
            parts.append(piece)
        inside = max(0, inside + piece.count("[") - piece.count("]"))
    return tuple(parts)


def _map_path(key: str, depth: int) -> tuple[str, ...] | None:
    """Return the path of the outermost map that an item is of, its last part without the item's key."""
    if "[" not in key:
        return None
    parts = _split(key)
    for place, part in enumerate(parts[depth:], depth):
        base, bracket, _ = part.partition("[")
        if bracket and part.endswith(("]", "]?")):  # with the mark of an item that nothing tells from others
            return (*parts[:place], base)
    return None
