"""How results look in a notebook: HTML that needs nothing else, is readable in light and dark, and escapes what it shows.

Colours are half transparent or the text's own, and stand in the elements: a notebook has one page for all its cells.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from llmflow.prices import money

if TYPE_CHECKING:
    from decimal import Decimal

    from llmflow.messages import Attempt, Result, Usage

__all__ = ["bar", "box", "faint", "head", "page", "result_html", "table"]

_ROWS = 50
"""How many calls or attempts are shown."""
_LETTERS = 4000
"""How much of a value is shown."""
_CELL = "border:none;padding:1px 12px 1px 0;text-align:{side};vertical-align:top;white-space:nowrap"
_GREEN, _RED, _BLUE = "#3fa45b", "#d9534f", "#4c8bf5"


# -- parts of a page ---------------------------------------------------------------------------------------------------


def page(*parts: str) -> str:
    """Return HTML of parts that are HTML themselves."""
    style = "font-family:ui-sans-serif,system-ui,sans-serif;font-size:13px;line-height:1.5;max-width:72em"
    return f'<div style="{style}">{"".join(parts)}</div>'


def head(title: str, *facts: str) -> str:
    """Return a headline and, less loud, what there is to say beside it."""
    return f"<div><b>{escape(title)}</b> &nbsp;{faint(' · '.join(facts))}</div>"


def faint(text: str) -> str:
    """Return a text that stands back."""
    return f'<span style="opacity:.7">{escape(text)}</span>'


def box(text: str) -> str:
    """Return a text as it is, in a frame."""
    style = (
        "margin:6px 0;padding:6px 10px;border:1px solid rgba(128,128,128,.35);border-radius:4px;background:none;"
        "color:inherit;white-space:pre-wrap;overflow:auto;max-height:24em;font-size:12px"
    )
    return f'<pre style="{style}">{escape(text)}</pre>'


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> str:
    """Return a table of cells that are HTML themselves; `right` names the columns of numbers."""
    styles = [_CELL.format(side="right" if name in right else "left") for name in headings]
    top = _row("th", [escape(name) for name in headings], [f"{style};opacity:.7" for style in styles])
    body = "".join(_row("td", row, styles) for row in rows)
    return f'<table style="border-collapse:collapse;margin:4px 0;font-size:12px">{top}{body}</table>'


def _row(tag: str, cells: Sequence[str], styles: Sequence[str]) -> str:
    inside = (f'<{tag} style="{style}">{cell}</{tag}>' for cell, style in zip(cells, styles, strict=True))
    return f'<tr style="background:none">{"".join(inside)}</tr>'


def bar(share: float, colour: str) -> str:
    """Return a bar, as long as its share of the longest."""
    width = max(1.0, min(100.0, 100 * share))
    return (
        '<div style="width:120px;height:9px;margin-top:5px;background:rgba(128,128,128,.18);border-radius:2px">'
        f'<div style="width:{width:.0f}%;height:100%;background:{colour};border-radius:2px"></div></div>'
    )


# -- a result ----------------------------------------------------------------------------------------------------------


def result_html(result: Result[Any]) -> str:
    """Return the value of a result, what it took, and how long each call of a flow or each attempt of a step took."""
    parts = [head(result.step or "result", *_facts(result)), box(_shown(result.value))]
    if result.calls:
        parts.append(_calls(result.calls))
    elif result.attempts:
        parts.append(_attempts(result.attempts))
    return page(*parts)


def _facts(result: Result[Any]) -> Iterator[str]:
    if result.model:
        yield result.model
    yield _seconds(result.latency_s)
    if result.usage is not None:
        yield f"{_tokens(result.usage)} tokens"
    yield "cost unknown" if result.cost_usd is None else money(result.cost_usd)
    if result.cached:
        yield "cached" if result.saved_usd is None else f"cached, saved {money(result.saved_usd)}"
    if result.repaired:
        yield "repaired"
    if result.prompt_version:
        yield f"prompt {result.prompt_version}"
    if result.run_id:
        yield f"run {result.run_id}"


def _calls(calls: Sequence[Result[Any]]) -> str:
    longest = max(call.latency_s for call in calls)
    rows = [
        (
            escape(call.step),
            escape(call.model or ""),
            bar(call.latency_s / longest if longest else 0.0, _BLUE if call.cached else _GREEN),
            _seconds(call.latency_s),
            f"{len(call.attempts)}",
            _tokens(call.usage),
            _cost(call.cost_usd),
            faint(", ".join(word for word, so in (("cached", call.cached), ("repaired", call.repaired)) if so)),
        )
        for call in calls[:_ROWS]
    ]
    numbers = ("took", "attempts", "tokens", "cost")
    return table(("step", "model", "", *numbers, " "), rows, right=numbers) + _more(len(calls))


def _attempts(attempts: Sequence[Attempt]) -> str:
    longest = max(one.latency_s for one in attempts)
    rows = [
        (
            f"{one.number}",
            escape(one.model),
            escape(f"{one.outcome} {one.status or ''}{', hedge' if one.hedge else ''}"),
            bar(one.latency_s / longest if longest else 0.0, _GREEN if one.outcome == "ok" else _RED),
            _seconds(one.latency_s),
            _tokens(one.usage),
            _cost(one.cost_usd),
        )
        for one in attempts[:_ROWS]
    ]
    numbers = ("took", "tokens", "cost")
    return table(("attempt", "model", "outcome", "", *numbers), rows, right=("attempt", *numbers)) + _more(
        len(attempts)
    )


def _more(number: int) -> str:
    return faint(f"and {number - _ROWS:,} more") if number > _ROWS else ""


def _shown(value: object) -> str:
    """Return a text as it is, anything else as JSON, and only the beginning of what is long."""
    text = value if isinstance(value, str) else _json(value)
    if len(text) <= _LETTERS:
        return text
    return f"{text[:_LETTERS]}\n… and {len(text) - _LETTERS:,} characters more"


def _json(value: object) -> str:
    try:
        plain = to_jsonable_python(value, by_alias=True, fallback=str, bytes_mode="base64")
        return json.dumps(plain, ensure_ascii=False, indent=2)
    except (ValueError, TypeError, RecursionError):  # what holds itself has no JSON
        return repr(value)


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def _tokens(usage: Usage | None) -> str:
    if usage is None:
        return "-"
    return " + ".join("?" if number is None else f"{number:,}" for number in (usage.input_tokens, usage.output_tokens))


def _cost(usd: Decimal | None) -> str:
    return "unknown" if usd is None else money(usd)
