"""How results look in a notebook."""

from __future__ import annotations

import re
from decimal import Decimal
from html.parser import HTMLParser

import pytest
from pydantic import BaseModel

from llmflow import Attempt, Result, Usage

EVIL = "<script>alert('x')</script>"


class Page(HTMLParser):
    """Reads HTML, and fails where it is not well formed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(html)
        self.close()

        assert [] == self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag == self.open.pop()

    def handle_data(self, data):
        self.text += data


class Ticket(BaseModel):
    category: str
    urgent: bool


def attempt(number=1, **said):
    return Attempt(**{"model": "a/b", "number": number, "outcome": "ok", "latency_s": 0.5, **said})


def shown(**said):
    return Page(Result(**{"value": 1, "step": "triage", **said})._repr_html_())


def test_a_result_shows_its_value_and_what_it_took():
    """Pretty JSON, and one line of facts."""
    page = shown(
        value=Ticket(category="billing", urgent=True), model="a/b", latency_s=1.25, usage=Usage(input_tokens=1200, output_tokens=40),
        cost_usd=Decimal("0.0004"), repaired=True, prompt_version="1a2b3c4d5e6f", run_id="order-42",
    )  # fmt: skip

    assert '{\n  "category": "billing",\n  "urgent": true\n}' in page.text
    assert "triage" in page.text
    assert "a/b · 1.2 s · 1,200 + 40 tokens · $0.00040 · repaired · prompt 1a2b3c4d5e6f · run order-42" in page.text


def test_what_is_unknown_is_said():
    """Cost and tokens."""
    page = shown(usage=Usage(input_tokens=3), attempts=(attempt(usage=None, cost_usd=None),))

    assert "3 + ? tokens · cost unknown" in page.text
    assert page.text.endswith("500 ms-unknown")


@pytest.mark.parametrize(("saved", "said"), [(None, "· cached"), (Decimal(2), "· cached, saved $2.00")])
def test_a_cached_result_says_so(saved, said):
    """With what it had cost, if that is known."""
    assert said in shown(cached=True, saved_usd=saved, cost_usd=Decimal(0)).text


def test_attempts_have_bars():
    """As long as their share of the longest; red when they failed."""
    first = attempt(outcome="ProviderUnavailable", status=503, latency_s=1.0, hedge=True, cost_usd=Decimal(0))
    html = Result(value=1, attempts=(first, attempt(2)))._repr_html_()

    assert ["100%;height:100%;background:#d9534f", "50%;height:100%;background:#3fa45b"] == re.findall(
        r"width:(\d+%;height:100%;background:#\w+)", html
    )
    assert "ProviderUnavailable 503, hedge" in html


def test_calls_of_a_flow_are_a_table():
    """With those that were cached or repaired marked."""
    calls = (
        Result(value=1, step="a", cached=True, latency_s=0.0, model="x/y"),
        Result(
            value=1, step="b", repaired=True, latency_s=2.0, cost_usd=Decimal("0.5"), attempts=(attempt(), attempt())
        ),
    )
    text = shown(calls=calls).text

    assert "ax/y0 ms0-unknowncached" in text
    assert "b2.0 s2-$0.5000repaired" in text


def test_what_takes_no_time_has_a_bar():
    """Nothing is divided by."""
    assert "width:1%" in Result(value=1, calls=(Result(value=1),))._repr_html_()
    assert "width:1%" in Result(value=1, attempts=(attempt(latency_s=0.0),))._repr_html_()


def test_only_some_of_many_are_shown():
    """A notebook is no log."""
    assert shown(calls=(Result(value=1, step="s"),) * 60).text.endswith("and 10 more")
    assert 51 == shown(attempts=(attempt(),) * 60).tags.count("tr")


def test_a_long_value_is_cut():
    """With how much is missing."""
    assert "… and 6,000 characters more" in shown(value="x" * 10_000).text


def test_nothing_of_it_is_html():
    """Neither the value nor any name; nothing is loaded from elsewhere, and no style reaches beyond its element."""
    one = attempt(model=EVIL, outcome=EVIL)
    call = Result(value=1, step=EVIL, model=EVIL)
    for page in (
        shown(value=EVIL, step=EVIL, model=EVIL, prompt_version=EVIL, run_id=EVIL, attempts=(one,)),
        shown(value={"x": EVIL}, calls=(call,)),
    ):
        assert not {"script", "style", "link", "img"} & set(page.tags)
        assert EVIL in page.text


def circle():
    made = []
    made.append(made)
    return made


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("a <b>", "a <b>"),
        (None, "null"),
        (b"\xff", '"_w=="'),
        ({1: float("inf")}, "Infinity"),
        (Ticket, f'"{Ticket}"'),
        (circle(), "[[...]]"),
    ],
)
def test_any_value_can_be_shown(value, said):
    """As JSON, else as its text."""
    assert said in shown(value=value).text
