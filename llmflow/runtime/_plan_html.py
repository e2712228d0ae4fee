"""How a plan looks in a notebook."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from llmflow.graph._render import svg
from llmflow.notebook import faint, head, page, table
from llmflow.runtime._words import bounds_in_words

if TYPE_CHECKING:
    from llmflow.graph import Graph
    from llmflow.runtime._plan import Layer, Plan, PlannedNode

__all__ = ["plan_html"]


def plan_html(plan: Plan) -> str:
    """Return the bounds of a plan, its graph, and every node with its policies."""
    number = len(plan.nodes)
    items = "" if plan.items is None else f" for all {plan.items:,} items"
    facts = (f"{number} node{'' if number == 1 else 's'}", f"at worst {bounds_in_words(plan.bounds)}{items}")
    return page(
        head(f"{plan.kind} {plan.target}", *facts),
        *(f'<div style="color:#d9534f">refused: {escape(why)}</div>' for why in plan.refused),
        *(f"<div>{faint(f'note: {note}')}</div>" for note in plan.bounds.notes),
        *(f"<div>{faint(f'constant {name} = {value!r}, read once')}</div>" for name, value in plan.constants),
        "" if plan.graph is None else _drawing(plan.graph),
        table(("node", "kind", "gives", "after", "model", "at worst"), list(_rows(plan.nodes, ""))),
        _layers(plan.layers, "kept for the whole run"),
        *(_layers(node.layers, node.key) for node in _all(plan.nodes)),
    )


def _drawing(graph: Graph) -> str:
    """Return the graph as a picture: the styles of an SVG in the page would be those of the whole notebook."""
    data = b64encode(svg(graph).encode()).decode()
    return f'<img alt="flow {escape(graph.name)}" style="max-width:100%" src="data:image/svg+xml;base64,{data}">'


def _rows(nodes: Sequence[PlannedNode], indent: str) -> Iterator[tuple[str, ...]]:
    for node in nodes:
        each = "" if node.kind != "map" else " for each item" if node.items is None else f" for each of {node.items:,}"
        yield (
            indent + escape(node.key),
            node.kind,
            escape(node.output),
            escape(", ".join(node.after)),
            escape(" then ".join(node.models)),
            escape(bounds_in_words(node.bounds) + each) if node.bounds.calls != 0 else "",
        )
        yield from _rows(node.branches, f"{indent}&nbsp;&nbsp;")


def _all(nodes: Sequence[PlannedNode]) -> Iterator[PlannedNode]:
    for node in nodes:
        yield node
        yield from _all(node.branches)


def _layers(layers: Sequence[Layer], of: str) -> str:
    """Return policies with who supplied them, folded away."""
    if not layers:
        return ""
    rows = [(escape(one.band), f"<code>{escape(one.policy)}</code>", escape(one.source)) for one in layers]
    return f"<details><summary>policies: {escape(of)}</summary>{table(('band', 'policy', 'from'), rows)}</details>"
