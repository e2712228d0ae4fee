"""`llmflow stats`: how calls went, by step, model, day, tenant or prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from llmflow.cli._groups import HEADINGS, Labels, key_cells, plain_cost, plain_key, said_since, saved
from llmflow.cli._journal_file import reports
from llmflow.cli._moments import window
from llmflow.cli._printable import printable
from llmflow.cli._report import count, seconds
from llmflow.cli._similar import guess
from llmflow.cli._spend import short, spend_notes, tokens_of
from llmflow.cli._terminal import out_console, say, table, write_json
from llmflow.stores._report_groups import GroupStats
from llmflow.stores._report_records import Spend
from llmflow.stores._report_sums import GROUPS, Group

__all__ = ["share", "show_stats"]

_WIDE = 140
_MOST_ERRORS = 12

Cell = Callable[[GroupStats], str]


def show_stats(*, by: Group, step: str | None, since: str | None, until: str | None, as_json: bool) -> None:
    """Write how calls went, and what went wrong how often."""
    with reports() as found:
        wanted = window(since, until, found.now)
        groups = found.stats(by, wanted, step=step)
        labels, began = found.labels(), found.began()
        meant = guess(step, found.steps()) if step is not None and not groups else ()
    if as_json:
        write_json(
            {
                "by": by,
                "since": wanted.since,
                "until": wanted.until,
                "groups": [_plain(by, one, labels) for one in groups],
            }
        )
        return
    if not groups:
        say("no calls" if (since, until, step) == (None, None, None) else "no such calls")
        for hint in meant:
            say(f"hint: {hint}", "dim")
        return
    console = out_console()
    for place, part in enumerate(_tables(by, groups, labels, wide=console.width >= _WIDE)):
        console.print(*([""] if place else []), part, sep="\n")
    for line in _errors(by, groups, labels):
        console.print(line)
    for note in spend_notes(sum((one.cost.spend for one in groups), Spend())):
        say(note, "dim")
    said_since(since, until, began)


# -- tables ------------------------------------------------------------------------------------------------------------

_CALLS: dict[str, Cell] = {
    "calls": lambda one: f"{one.calls:,}",
    "valid": lambda one: share(one.valid, one.calls),
    "failed": lambda one: f"{one.failed:,}",
    "re-asks": lambda one: f"{one.reasks:,}",
    "repaired": lambda one: f"{one.repaired:,}",
    "p50": lambda one: seconds(one.latency.p50),
    "p95": lambda one: seconds(one.latency.p95),
    "p99": lambda one: seconds(one.latency.p99),
}
_REQUESTS: dict[str, Cell] = {
    "requests": lambda one: f"{one.cost.requests:,}",
    "tokens in": lambda one: tokens_of(one.cost.input_tokens),
    "out": lambda one: tokens_of(one.cost.output_tokens),
    "cost": lambda one: short(one.cost.spend),
    "hits": lambda one: f"{one.cost.hits:,}",
    "saved": lambda one: saved(one.cost),
    "waited": lambda one: seconds(one.waited_s) if one.waited_s else "0",
    "not retried": lambda one: f"{one.throttled:,}",
}
_OF_MODELS: dict[str, Cell] = {
    "requests": _REQUESTS["requests"],
    "failed": _CALLS["failed"],
    "p50": _CALLS["p50"],
    "p95": _CALLS["p95"],
    "p99": _CALLS["p99"],
    "tokens in": _REQUESTS["tokens in"],
    "out": _REQUESTS["out"],
    "cost": _REQUESTS["cost"],
}
_DISPENSABLE = frozenset({"failed", "re-asks", "repaired", "hits", "saved", "waited", "not retried"})
"""Columns that are left out when they hold nothing but zeros."""
_NOTHING = frozenset({"0", "-", "$0.00"})


def _tables(by: Group, groups: Sequence[GroupStats], labels: Labels, *, wide: bool) -> Iterable[Table]:
    """Return one table where there is room for all columns, else one of the calls and one of their requests."""
    few = {name: cell for name, cell in _CALLS.items() if name != "failed"}  # what is not valid has failed
    of_calls = [{**_CALLS, **_REQUESTS}] if wide else [few, _REQUESTS]
    names = [HEADINGS.get(name, name) for name in GROUPS[by]]
    for columns in [_OF_MODELS] if by == "model" else of_calls:
        cells = {name: [cell(one) for one in groups] for name, cell in columns.items()}
        cells = {name: made for name, made in cells.items() if not (name in _DISPENSABLE and _NOTHING.issuperset(made))}
        yield _table(names, [key_cells(by, one.key, labels) for one in groups], cells)


def _table(names: Sequence[str], keys: Sequence[Sequence[str]], cells: Mapping[str, Collection[str]]) -> Table:
    made = table(*names, *cells, right=cells)
    for key, *row in zip(keys, *cells.values(), strict=True):
        made.add_row(*key, *row)
    return made


def share(part: int, whole: int) -> str:
    """Return a percentage that says 100 % of nothing but all."""
    if not whole:
        return "-"
    if part in (0, whole):
        return "100 %" if part else "0 %"
    return f"{min(99.9, max(0.1, 100 * part / whole)):.1f} %"


def _errors(by: Group, groups: Iterable[GroupStats], labels: Labels) -> Iterable[Text]:
    """Yield a line for each kind of error, the most frequent first, with where it happened."""
    kinds: Counter[str] = Counter()
    where: dict[str, list[str]] = {}
    for one in groups:
        for kind, number in one.errors.items():
            kinds[kind] += number
            where.setdefault(kind, []).append(f"{' '.join(key_cells(by, one.key, labels))} {number:,}")
    if kinds:
        yield Text("")
        yield Text("errors", style="bold")
    for kind, number in kinds.most_common(_MOST_ERRORS):
        yield Text(f"  {number:,} {printable(kind)}: {', '.join(where[kind])}")
    if len(kinds) > _MOST_ERRORS:
        yield Text(f"  and {count(len(kinds) - _MOST_ERRORS, 'other kind')}")


# -- JSON --------------------------------------------------------------------------------------------------------------


def _plain(by: Group, one: GroupStats, labels: Labels) -> dict[str, Any]:
    return {
        **plain_key(by, one.key, labels),
        "calls": one.calls,
        "valid": one.valid,
        "failed": one.failed,
        "errors": dict(one.errors),
        "reasks": one.reasks,
        "repaired": one.repaired,
        "waited_s": one.waited_s,
        "throttled": one.throttled,
        "p50_s": one.latency.p50,
        "p95_s": one.latency.p95,
        "p99_s": one.latency.p99,
        **plain_cost(one.cost),
    }
