"""Bars that show when something ran, on one axis for all of a run."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Axis"]

_BLOCKS = {(True, True): "█", (True, False): "▌", (False, True): "▐", (False, False): " "}
"""What a cell shows, by its left and its right half."""


@dataclass(frozen=True, slots=True)
class Axis:
    """From the first moment of a run to its last, over so many cells.

    Args:
        plain: Draw with `=` and `.`, for what does not show blocks.
    """

    started: float
    ended: float
    cells: int
    plain: bool = False

    def bar(self, started: float, ended: float | None) -> str:
        """Return the bar of what ran from one moment to another; up to the end of the axis when it still runs."""
        first = self._half(started)
        last = max(first + 1, self._half(self.ended if ended is None else ended))
        first = min(first, 2 * self.cells - 1)  # what takes no time at the very end is shown too
        halves = [first <= place < last for place in range(2 * self.cells)]
        pairs = zip(halves[::2], halves[1::2], strict=True)
        if self.plain:
            return "".join("=" if any(pair) else "." for pair in pairs)
        return "".join(_BLOCKS[pair] for pair in pairs)

    def _half(self, time: float) -> int:
        whole = self.ended - self.started
        share = (time - self.started) / whole if whole > 0 else 0.0
        return round(2 * self.cells * min(1.0, max(0.0, share)))
