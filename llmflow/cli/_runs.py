"""`llmflow runs`: what was run, the latest first."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from rich.text import Text

from llmflow.cli._journal_file import reports
from llmflow.cli._moments import moment, window
from llmflow.cli._printable import printable
from llmflow.cli._report import count, seconds
from llmflow.cli._spend import plain_spend, plain_usd, short
from llmflow.cli._terminal import out_console, say, table, write_json
from llmflow.stores._journal_reports import RunFilter
from llmflow.stores._report_records import RunSummary

__all__ = ["STATUS_STYLES", "parsed", "plain_run", "show_runs", "status_of"]

STATUS_STYLES = {
    "ok": "green",
    "cached": "cyan",
    "failed": "red",
    "running": "blue",
    "in flight": "blue",
    "cancelled": "yellow",
    "interrupted": "yellow",
    "uncertain": "yellow",
}


def show_runs(
    *,
    target: str | None,
    status: str | None,
    tenant: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Write a line for each run."""
    with reports() as found:
        wanted = RunFilter(target=target, status=status, tenant=tenant, window=window(since, until, found.now))
        runs = list(found.runs(wanted, limit=limit + 1))
        now = found.now
    more, runs = len(runs) > limit, runs[:limit]
    if as_json:
        write_json({"runs": [plain_run(one) for one in runs]})
        return
    if not runs:
        say("no runs" if wanted == RunFilter() else "no such runs")
        return
    listed = table("run", "target", "status", "when", "took", "calls", "cost", right=("took", "calls", "cost"))
    for one in runs:
        listed.add_row(
            printable(one.run_id),
            printable(one.target) + ("" if one.replay_of is None else " (replay)"),
            status_of(one),
            moment(one.started, now),
            seconds(one.latency_s),
            f"{one.calls:,}",
            short(one.spend),
        )
    out_console().print(listed)
    if more:
        say(f"the latest {limit:,}; --limit {limit * 5} shows more", "dim")


def status_of(run: RunSummary, style: str = "") -> Text:
    """Return the status of a run, and how many items of a map failed: it may be ok all the same."""
    said = Text(run.status, style=f"{style} {STATUS_STYLES.get(run.status, '')}".strip())
    if run.failed_items:
        said.append(f", {run.failed_items:,} of {count(run.items or 0, 'item')} failed", style=STATUS_STYLES["failed"])
    return said


def plain_run(run: RunSummary) -> dict[str, Any]:
    """Return a run as JSON can hold it; times are seconds since the epoch."""
    plain = asdict(run)
    del plain["spend"], plain["saved_nano"]
    return {**plain, "tags": parsed(run.tags), **plain_spend(run.spend), "saved_usd": plain_usd(run.saved_nano)}


def parsed(text: str | None) -> Any:
    """Return what JSON of the journal says; as it stands, should it be none."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text
