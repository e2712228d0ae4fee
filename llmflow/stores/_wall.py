"""The wall clock, which people and servers set, made safe for measuring ages."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmflow.ports import Clock

__all__ = ["WallClock"]

_NOTICED = 0.5
"""Seconds by which the clock must be set back to be taken for that; less is how clocks are kept right."""


class WallClock:
    """Notices when the wall clock is set back, so that nothing seems younger than it is.

    A clock that is set forward makes everything look older, which only shortens lives. One that is set back would
    lengthen them; the monotonic clock beside it says by how much. What is older than this process cannot be watched.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead: float | None = None
        """How far the wall clock was ahead of the monotonic one at most."""
        self._lost = 0.0
        self._lock = threading.Lock()

    def now(self) -> tuple[float, float, float]:
        """Return the time, by how much what was kept before seems too young, and what of that is new."""
        wall = self._clock.time()
        ahead = wall - self._clock.monotonic()
        with self._lock:
            jumped = 0.0
            if self._ahead is None or ahead > self._ahead:
                self._ahead = ahead
            elif self._ahead - ahead > _NOTICED:
                jumped = self._ahead - ahead
                self._ahead = ahead
                self._lost += jumped
            return wall, self._lost, jumped

    def caught_up(self, seconds: float) -> None:
        """Take note that everything kept was made older by so much."""
        with self._lock:
            self._lost -= seconds
