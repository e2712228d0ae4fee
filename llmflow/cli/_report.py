"""What runs took, in words and tables: tokens, dollars, seconds, and how often things had to be put right."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from rich.table import Table

from llmflow.cli._failures import plain_attempt
from llmflow.cli._terminal import jsonable, table
from llmflow.messages import Result, Usage
from llmflow.observers import Stats, StepStats
from llmflow.prices import money

__all__ = ["count", "dollars", "plain_result", "plain_stats", "result_line", "seconds", "step_table", "tokens"]

_THOUSAND = 1000
_MINUTE = 60


def count(number: int, what: str) -> str:
    """Return `1 item`, `2 items`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def seconds(value: float | None) -> str:
    """Return a duration as short as it can be read."""
    if value is None:
        return "-"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < _MINUTE:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), _MINUTE)
    return f"{minutes} min {rest} s"


def tokens(number: int | None) -> str:
    """Return a number of tokens, in thousands where that is enough to know."""
    if number is None:
        return "unknown"
    return f"{number}" if number < 10 * _THOUSAND else f"{number / _THOUSAND:.1f}k"


def dollars(cost: Decimal | None, unpriced: int = 0) -> str:
    """Return a cost; what is not known is said to be unknown, never shown as nothing."""
    if cost is None or (unpriced and not cost):
        return "unknown"
    return f"> {money(cost)}" if unpriced else money(cost)


# -- one call ----------------------------------------------------------------------------------------------------------


def result_line(result: Result[Any]) -> str:
    """Return the line that follows a run: who answered, how long it took, how much it read and wrote."""
    usage = result.usage or Usage()
    parts = [*_models(result), seconds(result.latency_s)]
    if result.usage is not None:
        parts.append(f"{tokens(usage.input_tokens)} tokens in, {tokens(usage.output_tokens)} out")
    if result.attempts:
        parts.append(count(len(result.attempts), "attempt"))
    if repaired := sum(call.repaired for call in result.calls or (result,)):
        parts.append(f"{repaired} repaired" if result.calls else "repaired")
    if result.attempts:
        parts.append(f"cost {dollars(result.cost_usd)}")
    parts += _savings(result)
    return f"{result.step}: {', '.join(parts)}"


def _savings(result: Result[Any]) -> list[str]:
    """Return what caches answered, and what that had cost when it was asked for."""
    cached = [call for call in result.calls or (result,) if call.cached]
    if not cached:
        return []
    saved = sum((call.saved_usd or Decimal(0) for call in cached), Decimal(0))
    said = "cached" if not result.calls else f"{len(cached)} cached"
    return [f"{said}, saved {dollars(saved)}" if saved else said]


def _models(result: Result[Any]) -> list[str]:
    return list(dict.fromkeys(call.model for call in result.calls or (result,) if call.model))


def plain_result(result: Result[Any]) -> dict[str, Any]:
    """Return a result with its record as JSON can hold it."""
    usage = result.usage or Usage()
    return {
        "value": jsonable(result.value),
        "step": result.step,
        "model": result.model,
        "run_id": result.run_id,
        "prompt_version": result.prompt_version,
        "prompt_label": result.prompt_label,
        "latency_s": round(result.latency_s, 3),
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_usd": None if result.cost_usd is None else str(result.cost_usd),
        "repaired": result.repaired or any(call.repaired for call in result.calls),
        "cached": result.cached,
        "saved_usd": None if result.saved_usd is None else str(result.saved_usd),
        "attempts": [plain_attempt(one) for one in result.attempts],
        "calls": [
            {
                "step": call.step,
                "model": call.model,
                "attempts": len(call.attempts),
                "repaired": call.repaired,
                "cost_usd": None if call.cost_usd is None else str(call.cost_usd),
                "cached": call.cached,
                "saved_usd": None if call.saved_usd is None else str(call.saved_usd),
            }
            for call in result.calls
        ],
    }


# -- many calls --------------------------------------------------------------------------------------------------------

_WIDE = 104
_COLUMNS: tuple[tuple[str, str], ...] = (
    ("calls", "calls"),
    ("failed", "failed"),
    ("attempts", "at-\ntempts"),
    ("re-asks", "re-\nasks"),
    ("repaired", "re-\npaired"),
    ("retries", "re-\ntries"),
    ("fallbacks", "fall-\nbacks"),
    ("p50", "p50"),
    ("p95", "p95"),
    ("tokens in", "tokens\nin"),
    ("out", "\nout"),
    ("cost", "cost"),
)
"""Headings, and what is left of them on a narrow terminal."""
_DISPENSABLE = frozenset({"failed", "retries", "fallbacks"})
"""Columns that a narrow terminal goes without when they hold nothing but zeros."""


def step_table(stats: Stats, *, width: int) -> Table:
    """Return the table of what each step took, fit for so many columns."""
    rows = {name: _numbers(one) for name, one in stats.steps.items()}
    narrow = width < _WIDE
    kept = [
        index
        for index, (name, _) in enumerate(_COLUMNS)
        if not (narrow and name in _DISPENSABLE and all(row[index] == "0" for row in rows.values()))
    ]
    headings = [_COLUMNS[index][narrow] for index in kept]
    made = table("step", *headings, right=headings, gap=1)
    for column in made.columns:
        column.vertical = "bottom"  # headings of one and of two lines stand on the same line
    for name, row in rows.items():
        made.add_row(name, *(row[index] for index in kept))
    return made


def _numbers(one: StepStats) -> tuple[str, ...]:
    return (
        f"{one.calls}",
        f"{sum(one.errors.values())}",
        f"{one.attempts}",
        f"{one.reasks}",
        f"{one.repaired}",
        f"{one.retries}",
        f"{one.fallbacks}",
        seconds(one.latency_s.p50),
        seconds(one.latency_s.p95),
        tokens(one.input_tokens),
        tokens(one.output_tokens),
        dollars(one.cost_usd, one.unpriced),
    )


def plain_stats(stats: Stats) -> Mapping[str, Any]:
    """Return statistics as JSON can hold them."""
    return stats.to_dict()
