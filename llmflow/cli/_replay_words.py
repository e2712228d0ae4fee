"""What a replay came to, as tables for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, get_args

from rich.table import Table

from llmflow.cli._printable import printable
from llmflow.cli._report import count, seconds
from llmflow.cli._terminal import error_console, say, table
from llmflow.prices import money
from llmflow.replay import Verdict, share, verdict

if TYPE_CHECKING:
    from llmflow.replay import Agreement, Figures, Pair, Report, RunReplay

__all__ = ["run_sentence", "show_report", "show_run_replay"]

_MOST = 20
_NUMBERS = ("equal", "different", "missing", "added")


def show_report(report: Report) -> None:
    """Write the tables of a report and its verdict to stderr."""
    _show_tables(report)
    for why, number in report.skipped.items():
        say(f"{count(number, 'answer')} left out: {printable(why)}", "dim")
    say(printable(verdict(report)), "bold")


def _show_tables(report: Report) -> None:
    if not report.asked:
        return
    console = error_console()
    console.print(_fields(report.fields))
    console.print()
    console.print(_figures(report))
    inexact = sum(not one.is_exact for one in report.pairs)
    if inexact:
        say(
            f"{count(inexact, 'answer')} asked with inputs that are not what they were: their types have changed", "dim"
        )
    for why, number in report.unjudged.items():
        say(f"the judge gave no verdict on {number}: {printable(why)}", "dim")


def _fields(found: Mapping[str, Agreement]) -> Table:
    shown = [name for name in _NUMBERS if name in _NUMBERS[:2] or any(getattr(one, name) for one in found.values())]
    made = table("field", *shown, "agreement", right=(*shown, "agreement"))
    for path, one in list(found.items())[:_MOST]:
        made.add_row(printable(path), *(f"{getattr(one, name):,}" for name in shown), share(one.equal, one.total))
    if len(found) > _MOST:
        made.add_row(f"and {len(found) - _MOST} more")
    return made


def _figures(report: Report) -> Table:
    made = table("", "then", "now", right=("then", "now"))
    asked, then, now = report.asked, report.then, report.now
    made.add_row("model", _names(one.recorded_model for one in asked), _names(one.model for one in asked))
    made.add_row("prompt", _names(one.recorded_prompt_version for one in asked), _names(_versions(asked)))
    valid = sum(one.error is None for one in asked)
    made.add_row("valid", share(len(asked), len(asked)), share(valid, len(asked)))
    made.add_row("cost of a call", _cost(then), _cost(now))
    made.add_row("p50", *_each(then, now, lambda one: seconds(one.p50_s)))
    made.add_row("p95", *_each(then, now, lambda one: seconds(one.p95_s)))
    if report.judged:
        judged = sum(report.judged.values())
        for word in get_args(Verdict):
            made.add_row(f"judged {word}", "", share(report.judged.get(word, 0), judged))
    if report.judge_score is not None:
        made.add_row("mean score", "", f"{report.judge_score:.2f}")
    return made


def _versions(pairs: Sequence[Pair]) -> Iterable[str | None]:
    return (one.prompt_version for one in pairs)


def _names(names: Iterable[str | None]) -> str:
    found = list(dict.fromkeys(one for one in names if one is not None))
    more = f" and {len(found) - 2} more" if len(found) > 2 else ""  # noqa: PLR2004  # a table has room for two
    return ", ".join(found[:2]) + more or "-"


def _each(then: Figures, now: Figures, said: Callable[[Figures], str]) -> tuple[str, str]:
    return said(then), said(now)


def _cost(figures: Figures) -> str:
    unknown = f", {figures.unpriced:,} unknown" if figures.unpriced else ""
    each = figures.cost_each_usd
    if each is None:
        return "unknown" if figures.unpriced else "-"
    return f"{money(each)} ({figures.priced:,} known{unknown})"


# -- a whole run -------------------------------------------------------------------------------------------------------


def show_run_replay(played: RunReplay) -> None:
    """Write what is different in a run that was played again to stderr."""
    if played.divergences:
        made = table("node", "kind", "what is different")
        for one in played.divergences[:_MOST]:
            made.add_row(printable(one.key), one.kind, printable(one.what))
        if len(played.divergences) > _MOST:
            made.add_row(f"and {len(played.divergences) - _MOST} more")
        error_console().print(made)
        error_console().print()
    _show_tables(played.report)
    if played.report.asked:
        say(printable(verdict(played.report)))
    say(printable(run_sentence(played)), "bold")


def run_sentence(played: RunReplay) -> str:
    """Return what became of a run that was played again."""
    parts = [f"{count(played.nodes, 'node')} as recorded", f"{count(len(played.divergences), 'divergence')}"]
    parts.append(count(played.requests, "request"))
    if played.requests:
        parts.append(f"cost {'unknown' if played.cost_usd is None else money(played.cost_usd)}")
    if played.error is not None:
        said = f"fails with {type(played.error).__name__}: {played.error}"
        parts.append(f"{said}, as it did" if played.failed_before and not played.divergences else said)
    elif played.equal is None:
        parts.append("its value then was not stored, so it cannot be compared")
    else:
        parts.append("the value is equal" if played.equal else "the value is another one")
    return f"run {played.run_id}: {', '.join(parts)}"
