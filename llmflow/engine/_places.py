"""The scopes that the nodes of a graph stand in, and what each run makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmflow.context import Frame, Scope
from llmflow.policy import Band, Off

__all__ = ["Places", "enter"]


class Places:
    """The scopes of one graph, rebased onto the scope its flow is bound in.

    Attributes:
        scopes: Every scope, a parent before those inside it.
        parents: Position of each one's parent, None for the flow's own.
        limits: Seconds that each one's flow may take. The flow's own limit is None: it keeps that itself.
    """

    def __init__(self, around: Scope | None) -> None:
        self._around = around
        self._known: dict[Scope, int] = {}
        self.scopes: list[Scope] = []
        self.parents: list[int | None] = []
        self.limits: list[float | None] = []

    def of(self, relative: Scope) -> int:
        """Return the position of a node's scope."""
        if (known := self._known.get(relative)) is not None:
            return known
        parent = None if relative.parent is None else self.of(relative.parent)
        place = self._known[relative] = len(self.scopes)
        self.scopes.append(
            Scope(relative.flow, relative.policies, self._around if parent is None else self.scopes[parent])
        )
        self.parents.append(parent)
        self.limits.append(None if parent is None else _limit(relative))
        return place

    def limited_by(self, place: int) -> str | None:
        """Return the innermost inlined flow round a place that has a deadline of its own, if there is one."""
        return next((self.scopes[one].flow for one in self._outwards(place) if self.limits[one] is not None), None)

    def _outwards(self, place: int | None) -> Iterator[int]:
        while place is not None:
            yield place
            place = self.parents[place]


def _limit(scope: Scope) -> float | None:
    """Return the tightest deadline a flow declares; read by its band, as any plugin's could be one."""
    declared: Sequence[object] = [
        one for one in scope.policies if not isinstance(one, Off) and one.band == Band.DEADLINE
    ]
    return min((float(found) for one in declared if (found := getattr(one, "seconds", None)) is not None), default=None)


def enter(places: Places, frames: list[Frame | None], place: int, around: Frame, now: float) -> Frame:
    """Return the frame of a place in one run, made when its first node starts: that is when an inlined flow begins."""
    if (known := frames[place]) is not None:
        return known
    parent = places.parents[place]
    outer = around if parent is None else enter(places, frames, parent, around, now)
    limit = places.limits[place]
    deadline = outer.deadline if limit is None else min(outer.deadline, now + limit)
    frames[place] = made = Frame(around.run, places.scopes[place], deadline)
    return made
