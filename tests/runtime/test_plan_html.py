"""How plans look in a notebook."""

from __future__ import annotations

import base64
import re

from llmflow import Budget, Deadline, Fallback, flow, plan, prompt, step, task, when
from llmflow.testing import scripted

ONE, TWO = scripted(default="one"), scripted(default="two", name="scripted/two")


@step(ONE, Fallback(TWO))
def triage(message: str) -> str:
    return prompt(message)


@step(ONE)
def draft(message: str, kind: str) -> str:
    return prompt(f"{kind} {message}")


@task
def is_bug(kind: str) -> bool:
    return kind == "bug"


@flow(Deadline(20))
async def support(message: str) -> str:
    kind = await triage(message)
    return await when(await is_bug(kind), draft(message, kind), triage(message))


@flow
async def everyone(messages: list[str]) -> list[str]:
    return await triage.map(messages)


def test_a_plan_shows_its_bounds_graph_and_nodes(runtime):
    """With every policy, folded away."""
    html = plan(support)._repr_html_()
    text = re.sub(r"<[^>]+>", " ", html)

    assert "<b>flow support</b>" in html
    assert "at worst" in text
    assert "support/triage" in text
    assert f"{ONE.name} then {TWO.name}" in text
    assert "&nbsp;&nbsp;" in html  # a branch stands below its choice
    assert "policies: kept for the whole run" in html
    assert "<code>Deadline(seconds=20)</code>" in html


def test_the_graph_is_a_picture_of_its_own(runtime):
    """The styles of an SVG in the page would be those of the whole notebook."""
    html = plan(support)._repr_html_()
    data = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', html)[1]

    assert base64.b64decode(data).startswith(b"<svg xmlns=")
    assert "<style" not in html


def test_a_plan_of_a_step_has_no_graph(runtime):
    """It is one node."""
    html = plan(draft)._repr_html_()

    assert "<img" not in html
    assert "1 node ·" in html


def test_a_map_is_counted_per_item(runtime):
    """How many there are is not known before it runs."""
    assert "for each item" in plan(everyone)._repr_html_()


def test_a_plan_tells_what_a_budget_refuses_and_what_is_fixed(runtime):
    """In the same words as its text."""

    @step(scripted(default="x"), Budget(calls=1, per="run"))
    def one(message: str) -> str:
        return prompt(message)

    made = plan(one)
    html = type(made)(
        target="<b>", kind="flow", nodes=made.nodes, constants=(("today", "<now>"),), refused=("step '<x>'",), items=3
    )._repr_html_()

    assert "for all 3 items" in html
    assert "refused: step &#x27;&lt;x&gt;&#x27;" in html
    assert "constant today = &#x27;&lt;now&gt;&#x27;, read once" in html
    assert "<b>flow &lt;b&gt;</b>" in html
