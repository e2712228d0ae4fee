"""Graphs as text: deterministic, escaped, and complete."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Literal

import pytest

from llmflow.errors import DefinitionError
from llmflow.graph import Flow, dot, flow, mermaid, or_else, svg, switch, task, when


@task
def length(text: str) -> int:
    return len(text)


@task
def is_long(text: str) -> bool:
    return len(text) > 3


@task
def kind(text: str) -> Literal["a<b", 'say "hi"']:
    return "a<b"


@task
def shout(text: str) -> str:
    return text.upper()


@flow
async def inner(text: str) -> tuple[str, int]:
    return await shout(text), await length(text)


@flow
async def subject(text: str, other: str) -> list[object]:
    word, _ = await inner(text)
    chosen = await when(await is_long(text), shout(word), inner(text))
    named = await switch(await kind(text), {"a<b": shout(text), 'say "hi"': shout(other)})
    mapped = await shout.map([text, other])
    return [chosen, named, mapped[0], await or_else(shout(text), other)]


MERMAID = """\
flowchart TD
    in_text(["text<br/><small>str</small>"])
    n0["shout<br/><small>task → str</small>"]
    n1["length<br/><small>task → int</small>"]
    result(["result<br/><small>tuple#91;str, int#93;</small>"])
    in_text --> n0
    in_text --> n1
    n0 --> result
    n1 --> result
"""

DOT = """\
digraph "inner" {
    node [fontname="Helvetica", fontsize=11];
    edge [fontname="Helvetica", fontsize=9];
    "in_text" [label="text\\nstr", shape=box, style="rounded,dashed"];
    "n0" [label="shout\\ntask → str", shape=box, style="rounded"];
    "n1" [label="length\\ntask → int", shape=box, style="rounded"];
    "result" [label="result\\ntuple[str, int]", shape=box, style="rounded,bold"];
    "in_text" -> "n0";
    "in_text" -> "n1";
    "n0" -> "result";
    "n1" -> "result";
}
"""


def test_a_flow_as_mermaid() -> None:
    """Every input, node and edge is there, in the graph's order."""
    assert MERMAID == mermaid(inner.graph())


def test_a_flow_as_dot() -> None:
    """The same in the language of Graphviz."""
    assert DOT == dot(inner.graph())


@pytest.mark.parametrize("render", [mermaid, dot, svg])
def test_choices_are_labelled_and_dashed(render: object) -> None:
    """What may not run is drawn differently, and says when it does."""
    text = render(subject.graph())  # type: ignore[operator]

    assert text == render(subject.graph())  # type: ignore[operator]
    assert {"yes": True, "no": True, "try": True} == {word: word in text for word in ("yes", "no", "try")}
    assert ("-.->" in text) or ("dashed" in text)


def test_names_cannot_break_out() -> None:
    """A case of a switch may hold quotes and angle brackets."""
    graph = subject.graph()

    assert "a#lt;b" in mermaid(graph)
    assert "say #quot;hi#quot;" in mermaid(graph)
    assert 'say \\"hi\\"' in dot(graph)
    assert "a&lt;b" in svg(graph)


def boxes_of(text: str) -> list[tuple[float, float, float, float]]:
    root = ET.fromstring(text)  # noqa: S314  # our own drawing
    shapes = root.iter("{http://www.w3.org/2000/svg}rect")
    return [tuple(float(one.attrib[name]) for name in ("x", "y", "width", "height")) for one in shapes]  # type: ignore[misc]


def test_the_drawing_is_well_formed_and_nothing_overlaps() -> None:
    """Boxes stand apart and inside of the picture."""
    text = svg(subject.graph())
    root = ET.fromstring(text)  # noqa: S314
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = boxes_of(text)

    assert all(x >= -1 and y >= -1 and x + w <= width and y + h <= height for x, y, w, h in boxes)
    for index, (x, y, w, h) in enumerate(boxes):
        for other_x, other_y, other_w, other_h in boxes[index + 1 :]:
            assert x + w <= other_x or other_x + other_w <= x or y + h <= other_y or other_y + other_h <= y


def test_a_flow_without_nodes_is_drawn() -> None:
    """Even one that only hands its input on."""

    @flow
    async def same(text: str) -> str:
        return text

    @flow
    async def nothing() -> int:
        return 3

    assert "in_text --> result" in mermaid(same.graph())
    assert "result" in svg(nothing.graph())


def test_a_notebook_shows_the_drawing() -> None:
    """And nothing for a flow that has no graph."""
    eager = Flow(inner.function, name="eager", eager=True)

    assert svg(inner.graph()) == inner._repr_svg_()
    assert eager._repr_svg_() is None
    with pytest.raises(DefinitionError):
        eager.graph()
