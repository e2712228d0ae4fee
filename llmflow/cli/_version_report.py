"""How each version of a prompt has gone, as far as runs are recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmflow.cli._failures import UsageError
from llmflow.cli._groups import plain_cost
from llmflow.cli._journal_file import reports
from llmflow.cli._moments import day_and_time
from llmflow.cli._printable import printable
from llmflow.cli._report import seconds
from llmflow.cli._spend import short
from llmflow.cli._stats import share
from llmflow.cli._terminal import table
from llmflow.prices import money

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from llmflow.stores._report_groups import VersionStats

__all__ = ["version_table", "versions_of"]

_NUMBERS = ("calls", "valid", "re-asks", "p50", "p95", "cost", "a call")


def version_table(step: str) -> Table | None:
    """Return the versions of a step's prompt, the latest first; None when no call of it is recorded."""
    found = _found(step)
    if not found:
        return None
    made = table(f"versions of {printable(step)}", "label", "last used", *_NUMBERS, right=_NUMBERS)
    for one in found:
        calls, each = one.stats, one.cost_per_call_usd
        made.add_row(
            printable(one.version or "-"),
            printable(one.label or "-"),
            "-" if one.last_seen is None else day_and_time(one.last_seen),
            f"{calls.calls:,}",
            share(calls.valid, calls.calls),
            f"{calls.reasks:,}",
            seconds(calls.latency.p50),
            seconds(calls.latency.p95),
            short(calls.cost.spend),
            "unknown" if each is None else money(each),
        )
    return made


def versions_of(step: str) -> list[dict[str, Any]]:
    """Return the same for a program."""
    return [
        {
            "version": one.version,
            "label": one.label,
            "first_seen": one.first_seen,
            "last_seen": one.last_seen,
            "calls": one.stats.calls,
            "valid": one.stats.valid,
            "reasks": one.stats.reasks,
            "repaired": one.stats.repaired,
            "p50_s": one.stats.latency.p50,
            "p95_s": one.stats.latency.p95,
            **plain_cost(one.stats.cost),
        }
        for one in _found(step)
    ]


def _found(step: str) -> Sequence[VersionStats]:
    try:
        with reports() as found:
            return found.versions_of(step)
    except UsageError:  # nothing is recorded here, which is no reason not to show a prompt
        return ()
