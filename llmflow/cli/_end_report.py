"""What stands at the end of a run beside its steps: models, tenants, and what breakers, budgets and limits hold."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from llmflow.cli._report import dollars, seconds, step_table, tokens
from llmflow.cli._terminal import table
from llmflow.observers import Stats
from llmflow.policy import State

__all__ = ["end_report", "state_line"]


def end_report(stats: Stats, *, width: int) -> Iterator[RenderableType]:
    """Yield tables and lines for what there is more than one of, and for what policies have to say."""
    if len(stats.steps) > 1:
        yield step_table(stats, width=width)
        if any(one.hits or one.waited_s or one.throttled for one in stats.steps.values()):
            yield _pressure(stats)
    if len(stats.models) > 1:
        yield _models(stats)
    if stats.tenants:
        yield _tenants(stats)
    for state in stats.states:
        if (line := state_line(state)) is not None:
            yield Text(line, style="dim")


def _pressure(stats: Stats) -> Table:
    """Return what caches, limits and the throttle of retries did for each step; columns of zeros are left out."""
    columns: dict[str, list[str]] = {
        "cache hits": [f"{one.hits:,}" if one.hits else "" for one in stats.steps.values()],
        "saved": [dollars(one.saved_usd) if one.saved_usd else "" for one in stats.steps.values()],
        "waited": [seconds(one.waited_s) if one.waited_s else "" for one in stats.steps.values()],
        "not retried": [f"{one.throttled:,}" if one.throttled else "" for one in stats.steps.values()],
    }
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    made = table("step", *columns, right=columns)
    for number, name in enumerate(stats.steps):
        made.add_row(name, *(cells[number] or "-" for cells in columns.values()))
    return made


def _models(stats: Stats) -> Table:
    made = table(
        "model", "requests", "failed", "p95", "tokens", "cost", right=("requests", "failed", "p95", "tokens", "cost")
    )
    for name, one in stats.models.items():
        made.add_row(
            name,
            f"{one.attempts:,}",
            f"{sum(number for kind, number in one.errors.items() if kind != 'cancelled'):,}",  # losers of hedges are
            seconds(one.latency_s.p95),
            tokens(one.input_tokens + one.output_tokens),
            dollars(one.cost_usd, one.unpriced),
        )
    return made


def _tenants(stats: Stats) -> Table:
    made = table("tenant", "calls", "hits", "cost", "saved", right=("calls", "hits", "cost", "saved"))
    for name, one in stats.tenants.items():
        made.add_row(
            name, f"{one.calls:,}", f"{one.hits:,}", dollars(one.cost_usd, one.unpriced), dollars(one.saved_usd)
        )
    return made


def state_line(state: State) -> str | None:
    """Return `breaker openai/gpt-5-mini: open, 10 of 12 requests failed`, None for what is as it should be."""
    values = state.values
    if state.kind == "breaker" and values.get("state") != "closed":
        return f"breaker {state.name}: {values['state']}, {values['failures']} of {values['calls']} requests failed"
    if state.kind == "budget":
        return f"budget {state.name}: {_spent(state)}"
    if state.kind == "rate_limit":
        used = [
            f"{values[unit]:,} of {values[f'{unit}_limit']:,} {unit}"
            for unit in ("requests", "tokens")
            if unit in values
        ]
        return f"rate limit {state.name}: {', '.join(used)} in {seconds(_number(values['per_s']))}, {values['waiting']} waiting"
    return None


def _spent(state: State) -> str:
    values, said = state.values, list[str]()
    for unit in ("usd", "tokens", "calls"):
        cap, settled = values.get(unit), values.get(f"{unit}_settled")
        if isinstance(cap, Decimal) and isinstance(settled, Decimal):
            said.append(f"{dollars(settled)} of {dollars(cap)}")
        elif cap is not None:
            said.append(f"{settled:,} of {cap:,} {unit}")
    per = values["per"]
    when = "in total" if per == "total" else f"this {per}, by this process"  # one before it has counted for itself
    return f"{', '.join(said)} spent {when}"


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else 0.0
