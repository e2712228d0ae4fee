"""The scopes that the nodes of a graph stand in."""

from __future__ import annotations

from llmflow.context import Frame, Scope

__all__ = ["Places"]


class Places:
    """The scopes of one graph, rebased onto the scope its flow is bound in; a place is a position among them."""

    def __init__(self, around: Scope | None) -> None:
        self._around = around
        self._known: dict[Scope, int] = {}
        self.scopes: list[Scope] = []

    def of(self, relative: Scope) -> int:
        """Return the place of a node's scope."""
        if (known := self._known.get(relative)) is not None:
            return known
        parent = self._around if relative.parent is None else self.scopes[self.of(relative.parent)]
        place = self._known[relative] = len(self.scopes)
        self.scopes.append(Scope(relative.flow, relative.policies, parent))
        return place

    def frames(self, around: Frame) -> list[Frame]:
        """Return what the calls of each place inherit in one run.

        The deadline is the same everywhere: a flow with one of its own is never taken apart into another's nodes.
        """
        return [Frame(around.run, scope, around.deadline, around.node) for scope in self.scopes]
