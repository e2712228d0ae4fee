"""Where boxes and arrows go: layers from top to bottom, with few crossings and short arrows.

The steps are Sugiyama's: a box stands one layer below the lowest box it needs; arrows over several layers bend at a
point in each; boxes are ordered within their layer by where their neighbours are, then pulled towards them.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from llmflow.graph._drawing import Arrow, Drawing

__all__ = ["Layout", "Point", "lay_out", "middle"]

_GAP = 28.0
_LAYER = 64.0
_SWEEPS = 12
_BEND = 14.0
_LETTER = 6.6

Point = tuple[float, float]
Slot = tuple[str, int]
"""A box `(id, -1)`, or where arrow number n passes a layer: `("", n * layers + layer)`."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes and positions in pixels; positions are centres.

    Attributes:
        routes: For each arrow the points it goes through, from below its source to above its target.
    """

    width: float
    height: float
    sizes: Mapping[str, Point]
    centres: Mapping[str, Point]
    routes: list[list[Point]]


def lay_out(drawing: Drawing, sizes: Mapping[str, Point]) -> Layout:
    """Return where everything goes."""
    layers = _layers(drawing)
    rows, links = _rows(drawing, layers)
    _order(rows, links)
    widths = {slot: sizes[slot[0]][0] if slot[0] else _BEND for row in rows for slot in row}
    across = _columns(rows, links, widths)
    return _place(drawing, _Grid(rows, layers, across, sizes))


def _layers(drawing: Drawing) -> dict[str, int]:
    """Return each box's layer; one that needs nothing stands just above the first box that needs it."""
    needs: dict[str, list[str]] = defaultdict(list)
    feeds: dict[str, list[str]] = defaultdict(list)
    for arrow in drawing.arrows:
        needs[arrow.target].append(arrow.source)
        feeds[arrow.source].append(arrow.target)
    layers: dict[str, int] = {}
    for box in drawing.boxes:
        layers[box.id] = max((layers[one] + 1 for one in needs[box.id]), default=0)
    if drawing.boxes and not needs["result"]:
        layers["result"] = max(layers.values()) + (len(drawing.boxes) > 1)
    for box in drawing.boxes:
        if not needs[box.id] and feeds[box.id]:
            layers[box.id] = min(layers[one] for one in feeds[box.id]) - 1
    return layers


def _rows(drawing: Drawing, layers: Mapping[str, int]) -> tuple[list[list[Slot]], list[tuple[Slot, Slot]]]:
    """Return the layers as rows of slots, and the links between slots of neighbouring rows."""
    rows: list[list[Slot]] = [[] for _ in range(max(layers.values(), default=0) + 1)]
    for box in drawing.boxes:
        rows[layers[box.id]].append((box.id, -1))
    links: list[tuple[Slot, Slot]] = []
    for number, arrow in enumerate(drawing.arrows):
        before: Slot = (arrow.source, -1)
        for layer in range(layers[arrow.source] + 1, layers[arrow.target]):
            bend: Slot = ("", number * len(rows) + layer)
            rows[layer].append(bend)
            links.append((before, bend))
            before = bend
        links.append((before, (arrow.target, -1)))
    return rows, links


def _neighbours(links: Iterable[tuple[Slot, Slot]]) -> tuple[dict[Slot, list[Slot]], dict[Slot, list[Slot]]]:
    above: dict[Slot, list[Slot]] = defaultdict(list)
    below: dict[Slot, list[Slot]] = defaultdict(list)
    for upper, lower in links:
        above[lower].append(upper)
        below[upper].append(lower)
    return above, below


def _order(rows: list[list[Slot]], links: list[tuple[Slot, Slot]]) -> None:
    """Sort each row by the mean position of the neighbours in the row before, down and up in turn."""
    above, below = _neighbours(links)
    best, fewest = [list(row) for row in rows], _crossings(rows, below)
    for sweep in range(_SWEEPS):
        downwards = sweep % 2 == 0
        near = above if downwards else below
        for row in rows if downwards else rows[::-1]:
            place = {slot: index for other in rows for index, slot in enumerate(other)}
            now = {slot: index for index, slot in enumerate(row)}
            row.sort(key=lambda slot: _mean([place[one] for one in near[slot]], now[slot]))  # used at once
        crossings = _crossings(rows, below)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    rows[:] = best


def _crossings(rows: list[list[Slot]], below: Mapping[Slot, list[Slot]]) -> int:
    count = 0
    for upper, lower in itertools.pairwise(rows):
        place = {slot: index for index, slot in enumerate(lower)}
        ends = [place[one] for slot in upper for one in sorted(below.get(slot, ()), key=place.__getitem__)]
        count += sum(ends[i] > ends[j] for i in range(len(ends)) for j in range(i + 1, len(ends)))
    return count


def _mean(values: list[float] | list[int], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _columns(rows: list[list[Slot]], links: list[tuple[Slot, Slot]], widths: Mapping[Slot, float]) -> dict[Slot, float]:
    """Return the centre of each slot from left to right: as near to its neighbours as its row allows."""
    above, below = _neighbours(links)
    across: dict[Slot, float] = {}
    for row in rows:
        _spread(row, {slot: _mean([across[one] for one in above[slot]], 0.0) for slot in row}, widths, across)
    for sweep in range(_SWEEPS):
        near = below if sweep % 2 == 0 else above
        for row in rows[::-1] if sweep % 2 == 0 else rows:
            wanted = {slot: _mean([across[one] for one in near[slot]], across[slot]) for slot in row}
            _spread(row, wanted, widths, across)
    left = min(across[slot] - widths[slot] / 2 for slot in across)
    return {slot: centre - left for slot, centre in across.items()}


def _spread(
    row: list[Slot], wanted: Mapping[Slot, float], widths: Mapping[Slot, float], across: dict[Slot, float]
) -> None:
    """Put a row's slots where they want to be, pushed apart as little as possible.

    Slots that would overlap become one block, which stands at the mean of what its members want.
    """
    blocks: list[tuple[list[Slot], list[float], float]] = []
    for slot in row:
        members, offsets, centre = [slot], [0.0], wanted[slot]
        while blocks:
            other, inner, position = blocks[-1]
            room = (widths[other[-1]] + widths[members[0]]) / 2 + _GAP
            if position + inner[-1] + room <= centre:
                break
            blocks.pop()
            shift = inner[-1] + room
            members, offsets = [*other, *members], [*inner, *(shift + one for one in offsets)]
            centre = _mean([wanted[one] - offset for one, offset in zip(members, offsets, strict=True)], 0.0)
        blocks.append((members, offsets, centre))
    for members, offsets, centre in blocks:
        across.update((slot, centre + offset) for slot, offset in zip(members, offsets, strict=True))


@dataclass(slots=True)
class _Grid:
    """The rows with their places: how far each slot is from the left, how far each row is from the top."""

    rows: list[list[Slot]]
    layers: Mapping[str, int]
    across: Mapping[Slot, float]
    sizes: Mapping[str, Point]
    heights: list[float] = field(default_factory=list[float])
    middles: list[float] = field(default_factory=list[float])

    def __post_init__(self) -> None:
        y = 0.0
        for row in self.rows:
            height = max((self.sizes[name][1] for name, _ in row if name), default=0.0)
            self.heights.append(height)
            self.middles.append(y + height / 2)
            y += height + _LAYER

    def centre(self, name: str) -> Point:
        """Return the middle of a box."""
        return self.across[name, -1], self.middles[self.layers[name]]

    def route(self, arrow: Arrow, number: int) -> list[Point]:
        """Return the points an arrow goes through: straight past each layer between its ends."""
        (x, y), half = self.centre(arrow.source), self.sizes[arrow.source][1] / 2
        points = [(x, y + half)]
        for layer in range(self.layers[arrow.source] + 1, self.layers[arrow.target]):
            x, y, half = self.across["", number * len(self.rows) + layer], self.middles[layer], self.heights[layer] / 2
            points += [(x, y - half), (x, y + half)]
        (x, y), half = self.centre(arrow.target), self.sizes[arrow.target][1] / 2
        return [*points, (x, y - half)]


def _place(drawing: Drawing, grid: _Grid) -> Layout:
    centres = {box.id: grid.centre(box.id) for box in drawing.boxes}
    routes = [grid.route(arrow, number) for number, arrow in enumerate(drawing.arrows)]
    rights = [x + grid.sizes[name][0] / 2 for name, (x, _) in centres.items()]
    for arrow, route in zip(drawing.arrows, routes, strict=True):
        rights += [middle(route)[0] + len(arrow.label) * _LETTER / 2, *(x for x, _ in route)]
    height = grid.middles[-1] + grid.heights[-1] / 2
    return Layout(width=max(rights), height=height, sizes=grid.sizes, centres=centres, routes=routes)


def middle(route: list[Point]) -> Point:
    """Return where the label of an arrow goes: half-way between its last two points."""
    (x1, y1), (x2, y2) = route[-2:]
    return (x1 + x2) / 2, (y1 + y2) / 2
