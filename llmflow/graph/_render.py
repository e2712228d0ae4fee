"""Graphs as Mermaid, Graphviz and SVG text."""

from __future__ import annotations

from html import escape

from llmflow.graph._drawing import Arrow, Box, Drawing, Shape, draw
from llmflow.graph._ir import Graph
from llmflow.graph._layout import Layout, Point, lay_out, middle

__all__ = ["dot", "mermaid", "svg"]

# -- mermaid -----------------------------------------------------------------------------------------------------------

_MERMAID: dict[Shape, tuple[str, str]] = {
    "input": ("([", "])"),
    "node": ("[", "]"),
    "choice": ("{{", "}}"),
    "result": ("([", "])"),
}


def mermaid(graph: Graph) -> str:
    """Return the graph as a Mermaid flowchart, which GitHub and most documentation tools draw."""
    drawing = draw(graph)
    lines = ["flowchart TD"]
    for box in drawing.boxes:
        opening, closing = _MERMAID[box.shape]
        lines.append(
            f'    {box.id}{opening}"{_mermaid_text(box.title)}<br/><small>{_mermaid_text(box.subtitle)}</small>"{closing}'
        )
    lines.extend(f"    {_mermaid_arrow(arrow)}" for arrow in drawing.arrows)
    return "\n".join(lines) + "\n"


def _mermaid_arrow(arrow: Arrow) -> str:
    line = "-.->" if arrow.dashed else "-->"
    label = f'|"{_mermaid_text(arrow.label)}"|' if arrow.label else ""
    return f"{arrow.source} {line}{label} {arrow.target}"


def _mermaid_text(text: str) -> str:
    """Escape text as Mermaid wants it: as HTML entities written with `#` in place of `&`."""
    named = text.replace("#", "#35;")
    return "".join(_MERMAID_ENTITIES.get(letter, letter) for letter in named)


_MERMAID_ENTITIES = {
    '"': "#quot;",
    "<": "#lt;",
    ">": "#gt;",
    "&": "#amp;",
    "|": "#124;",
    "[": "#91;",
    "]": "#93;",
    "`": "#96;",
}

# -- graphviz ----------------------------------------------------------------------------------------------------------

_DOT: dict[Shape, str] = {
    "input": 'shape=box, style="rounded,dashed"',
    "node": 'shape=box, style="rounded"',
    "choice": "shape=diamond",
    "result": 'shape=box, style="rounded,bold"',
}


def dot(graph: Graph) -> str:
    """Return the graph in the language of Graphviz."""
    drawing = draw(graph)
    lines = [
        f"digraph {_quoted(graph.name)} {{",
        '    node [fontname="Helvetica", fontsize=11];',
        '    edge [fontname="Helvetica", fontsize=9];',
    ]
    lines.extend(
        f"    {_quoted(box.id)} [label={_quoted(box.title, box.subtitle)}, {_DOT[box.shape]}];" for box in drawing.boxes
    )
    for arrow in drawing.arrows:
        options = [
            *([f"label={_quoted(arrow.label)}"] if arrow.label else []),
            *(["style=dashed"] if arrow.dashed else []),
        ]
        described = f" [{', '.join(options)}]" if options else ""
        lines.append(f"    {_quoted(arrow.source)} -> {_quoted(arrow.target)}{described};")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(*lines: str) -> str:
    text = "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines if line)
    return f'"{text}"'


# -- svg ---------------------------------------------------------------------------------------------------------------

_MARGIN = 20.0
_HEIGHT = 46.0
_STYLE = """\
text{font-family:ui-sans-serif,system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;text-anchor:middle}
.title{font-size:13px;font-weight:600;fill:#1f2933}.subtitle{font-size:11px;fill:#616e7c}
.label,.halo{font-size:11px;fill:#52606d}.halo{stroke:#ffffff;stroke-width:4px;stroke-linejoin:round}
.box{stroke-width:1.2px}.node{fill:#f5f7fa;stroke:#9aa5b1}.input,.result{fill:#e3eefb;stroke:#7ba4d9}.choice{fill:#fdf3dc;stroke:#d9b15f}
.arrow{fill:none;stroke:#7b8794;stroke-width:1.3px}.dashed{stroke-dasharray:5 4}.head{fill:#7b8794}
@media (prefers-color-scheme:dark){.title{fill:#e4e7eb}.subtitle,.label{fill:#b3bcc5}.halo{stroke:#0d1117}
.node{fill:#252c34;stroke:#616e7c}.input,.result{fill:#1c2f45;stroke:#4a78ad}.choice{fill:#3b3118;stroke:#a98638}
.arrow{stroke:#8b96a2}.head{fill:#8b96a2}}"""

_ARROW_HEAD = """\
<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">
<path class="head" d="M0,1 L10,5 L0,9 z"/></marker></defs>"""


def svg(graph: Graph) -> str:
    """Return the graph as a drawing that a browser shows, in light and dark, without any other program."""
    drawing = draw(graph)
    layout = lay_out(drawing, {box.id: (_width(box), _HEIGHT) for box in drawing.boxes})
    width, height = layout.width + 2 * _MARGIN, layout.height + 2 * _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}"',
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(f"flow {graph.name}")}">',
        f"<style>{_STYLE}</style>",
        _ARROW_HEAD,
        f'<g transform="translate({_MARGIN:.0f},{_MARGIN:.0f})">',
        *(_svg_arrow(arrow, route) for arrow, route in zip(drawing.arrows, layout.routes, strict=True)),
        *(_svg_box(box, layout) for box in drawing.boxes),
        *_svg_labels(drawing, layout),
        "</g></svg>",
    ]
    return "\n".join(parts) + "\n"


def _width(box: Box) -> float:
    return max(96.0, 8.0 * len(box.title) + 30, 6.4 * len(box.subtitle) + 30) + (24 if box.shape == "choice" else 0)


def _svg_arrow(arrow: Arrow, route: list[Point]) -> str:
    """Draw a smooth line through the points of a route, vertical at both ends."""
    x, y = route[0]
    path = [f"M{x:.1f},{y:.1f}"]
    for end_x, end_y in route[1:]:
        middle = (y + end_y) / 2
        path.append(f"C{x:.1f},{middle:.1f} {end_x:.1f},{middle:.1f} {end_x:.1f},{end_y:.1f}")
        x, y = end_x, end_y
    return f'<path class="arrow{" dashed" if arrow.dashed else ""}" marker-end="url(#head)" d="{" ".join(path)}"/>'


def _svg_box(box: Box, layout: Layout) -> str:
    (x, y), (width, height) = layout.centres[box.id], layout.sizes[box.id]
    return (
        f"<g><title>{escape(box.title)} {escape(box.subtitle)}</title>{_svg_shape(box, x, y, width, height)}"
        f'<text class="title" x="{x:.1f}" y="{y - 3:.1f}">{escape(box.title)}</text>'
        f'<text class="subtitle" x="{x:.1f}" y="{y + 14:.1f}">{escape(box.subtitle)}</text></g>'
    )


def _svg_shape(box: Box, x: float, y: float, width: float, height: float) -> str:
    left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if box.shape == "choice":
        corner = 16.0
        points = (
            (left + corner, top),
            (right - corner, top),
            (right, y),
            (right - corner, bottom),
            (left + corner, bottom),
            (left, y),
        )
        return f'<polygon class="box choice" points="{" ".join(f"{px:.1f},{py:.1f}" for px, py in points)}"/>'
    radius = 8.0 if box.shape == "node" else height / 2
    return f'<rect class="box {box.shape}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius:.1f}"/>'


def _svg_labels(drawing: Drawing, layout: Layout) -> list[str]:
    """Write the labels last, so that no line runs over them."""
    written: list[str] = []
    for arrow, route in zip(drawing.arrows, layout.routes, strict=True):
        if arrow.label:
            x, y = middle(route)
            place = f'x="{x:.1f}" y="{y + 4:.1f}">{escape(arrow.label)}</text>'
            written += [f'<text class="halo" aria-hidden="true" {place}', f'<text class="label" {place}']
    return written
