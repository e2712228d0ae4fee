"""The nodes of a run as lines: a tree on the left, then how each went, when, and what it took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmflow.cli._printable import printable
from llmflow.cli._report import count, seconds
from llmflow.cli._runs import STATUS_STYLES
from llmflow.cli._spend import short, tokens_of
from llmflow.cli._timing import Axis
from llmflow.stores._report_places import Branch, Series, Taken
from llmflow.stores._report_records import AttemptRecord

__all__ = ["Line", "branches_in", "tree_lines"]

_ATTEMPTS = 12
"""How many attempts of one node are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line: columns, or only a label when it is a note.

    Attributes:
        guide: The lines of the tree before the label.
        below: Those before what is said of it on a line of its own.
        style: Of the status and the bar.
    """

    guide: str
    label: str
    below: str = ""
    style: str = ""
    status: str = ""
    bar: str = ""
    took: str = ""
    read: str = ""
    wrote: str = ""
    cost: str = ""
    model: str = ""
    prompt: str = ""
    is_note: bool = False


def tree_lines(places: Sequence[Branch | Series], axis: Axis) -> Iterator[Line]:
    """Yield the lines of a run's tree."""
    for one in places:
        yield from _Artist(axis).place(one, "", "")


def branches_in(places: Sequence[Branch | Series]) -> Iterator[Branch]:
    """Yield every node that is shown, each before what is inside it."""
    for one in places:
        if isinstance(one, Branch):
            yield one
        yield from branches_in(one.items if isinstance(one, Series) else one.children)


@dataclass(frozen=True, slots=True)
class _Artist:
    axis: Axis

    def place(self, one: Branch | Series, guide: str, below: str) -> Iterator[Line]:
        return self._series(one, guide, below) if isinstance(one, Series) else self._branch(one, guide, below)

    def _inside(self, places: Sequence[Branch | Series], below: str, *, open_end: bool = False) -> Iterator[Line]:
        for number, one in enumerate(places, 1):
            last = number == len(places) and not open_end
            yield from self.place(one, below + self._branching(last=last), below + self._passing(last=last))

    def _branching(self, *, last: bool) -> str:
        return "  " if self.axis.plain else "└─ " if last else "├─ "

    def _passing(self, *, last: bool) -> str:
        return "  " if self.axis.plain else "   " if last else "│  "

    def _branch(self, one: Branch, guide: str, below: str) -> Iterator[Line]:
        requests = [each for each in one.attempts if each.kind == "attempt"]
        beside = below + self._passing(last=not one.children)
        yield Line(
            guide=guide,
            label=printable(one.name),
            below=beside,
            style=STATUS_STYLES.get(one.status, ""),
            status=printable(one.status),
            model=printable(one.model or ""),
            prompt=printable(one.prompt_version or ""),
            **self._columns(one.started, one.ended, one.taken),
        )
        if len(requests) > 1 or any(each.outcome != "ok" for each in requests):
            for each in requests[:_ATTEMPTS]:
                yield self._attempt(each, beside, one.model)
            if len(requests) > _ATTEMPTS:
                yield _note(beside, f"{count(len(requests) - _ATTEMPTS, 'more request')}")
        yield from self._inside(one.children, below)

    def _attempt(self, one: AttemptRecord, guide: str, model: str | None) -> Line:
        outcome = "in flight" if one.outcome is None else one.outcome
        said = [
            f"#{one.number} {outcome}",
            *([f" {one.status}"] if one.status else []),
            *([", hedge"] if one.hedge else []),
        ]
        return Line(
            guide=guide,
            label=printable("".join(said)),
            below=guide,
            style=STATUS_STYLES.get(outcome, "red"),
            model="" if one.model == model else printable(one.model),
            **self._columns(
                one.started,
                None if one.outcome is None else one.started + (one.latency_s or 0.0),
                Taken(one.input_tokens, one.output_tokens, one.spend),
            ),
        )

    def _series(self, one: Series, guide: str, below: str) -> Iterator[Line]:
        bad = {status: number for status, number in one.statuses.items() if status not in ("ok", "cached")}
        more = one.number - len(one.items)
        yield Line(
            guide=guide,
            label=f"{printable(one.name)}, {count(one.number, 'item')}",
            below=below,
            style=STATUS_STYLES.get(next(iter(bad), "ok"), ""),
            status=_counts(bad) or "ok",
            **self._columns(one.started, one.ended, one.taken),
        )
        yield from self._inside(one.items, below, open_end=more > 0)
        if more:
            times = f"p50 {seconds(one.latency.p50)}, p95 {seconds(one.latency.p95)}"
            said = f"{more:,} more; of all {one.number:,}: {_counts(one.statuses)}; {times}"
            yield _note(below + self._branching(last=True), said)

    def _columns(self, started: float, ended: float | None, taken: Taken) -> dict[str, Any]:
        columns = {
            "bar": self.axis.bar(started, ended),
            "took": seconds(None if ended in (None, started) else ended - started),
        }
        if taken == Taken():
            return columns
        return {
            **columns,
            "read": tokens_of(taken.input_tokens),
            "wrote": tokens_of(taken.output_tokens),
            "cost": short(taken.spend),
        }


def _note(guide: str, text: str) -> Line:
    return Line(guide=guide, label=text, is_note=True)


def _counts(statuses: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {printable(status or 'unknown')}" for status, number in statuses.items())
