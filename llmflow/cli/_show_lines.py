"""Lines of a tree in columns, fit for the terminal: what does not fit beside the others stands on a line below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from llmflow.cli._show_tree import Line

__all__ = ["WIDE", "laid_out"]

WIDE = 118
"""From how many columns on models and prompts stand beside the rest."""
_NARROWEST = 16
"""How narrow the tree may become before lines are longer than the terminal."""
_COLUMNS = ("status", "bar", "took", "read", "wrote", "cost", "model", "prompt")
_RIGHT = frozenset({"took", "read", "wrote", "cost"})
_HEADINGS = {"bar": "when", "read": "in", "wrote": "out"}
_BELOW = ("model", "prompt")
_SAID = {"prompt": "prompt "}
_GAP = "  "


def laid_out(lines: Sequence[Line], width: int) -> Iterator[Text]:
    """Yield a heading and the lines, in columns as wide as they must be."""
    shown = [name for name in _COLUMNS if any(getattr(one, name) for one in lines)]
    if width < WIDE:
        shown = [name for name in shown if name not in _BELOW]
    widths = {name: max(cell_len(heading(name)), *(cell_len(getattr(one, name)) for one in lines)) for name in shown}
    taken = sum(widths.values()) + len(_GAP) * len(shown)
    longest = max(cell_len(one.guide + one.label) for one in lines if not one.is_note)
    tree = max(cell_len("node"), min(longest, max(_NARROWEST, width - taken)))
    yield _joined([Text(_fit("node", tree), "bold"), *(_cell(heading(name), name, widths, "bold") for name in shown)])
    said: tuple[str, list[str]] | None = None
    for one in lines:
        if one.is_note:
            yield Text.assemble((one.guide, "dim"), (one.label, "dim"))
            continue
        columns, room = shown, tree
        if not one.status and shown[0] == "status":  # the label may stand in its place
            columns, room = shown[1:], tree + len(_GAP) + widths["status"]
        yield _joined(
            [_label(one, room), *(_cell(getattr(one, name), name, widths, _style(one, name)) for name in columns)]
        )
        below = [
            f"{_SAID.get(name, '')}{getattr(one, name)}" for name in _BELOW if name not in shown and getattr(one, name)
        ]
        if below and said != (one.below, below):  # what was said of the item before need not be said again
            said = (one.below, below)
            yield Text.assemble((f"{one.below}{_GAP}", "dim"), (", ".join(below), "dim"))


def heading(name: str) -> str:
    """Return what stands over a column."""
    return _HEADINGS.get(name, name)


def _label(one: Line, width: int) -> Text:
    guide = Text(one.guide, "dim")
    label = _fit(one.label, max(1, width - cell_len(one.guide)))
    return guide.append(label, one.style if not one.status and one.style else "not dim")


def _fit(text: str, width: int) -> str:
    """Return a text in exactly so many cells, its end left out when it is longer."""
    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def _cell(text: str, name: str, widths: dict[str, int], style: str) -> Text:
    pad = " " * (widths[name] - cell_len(text))
    return Text(pad + text if name in _RIGHT else text + pad, style)


def _style(one: Line, name: str) -> str:
    if name in ("status", "bar"):
        return one.style
    return "dim" if name in _BELOW else ""


def _joined(cells: Sequence[Text]) -> Text:
    line = Text(_GAP).join(cells)
    line.rstrip()
    return line
