"""A report in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmflow.replay._report import Report

__all__ = ["share", "verdict"]

_FIELDS_SAID = 3


def verdict(report: Report) -> str:
    """Return what a replay came to: how many answers agree, what differs, what it costs and how long it takes."""
    return "; ".join(_parts(report))


def share(part: int, whole: int) -> str:
    """Return a part of a whole in percent, with what it was counted of."""
    return f"{100 * part / whole:.1f} % ({part:,} of {whole:,})" if whole else "-"


def _parts(report: Report) -> Iterator[str]:
    total, asked = len(report.pairs), len(report.asked)
    if not total:
        yield "there was nothing to replay"
    elif not asked:
        yield f"{_answers(total)} {_stand(total)}: same prompt, same model, 0 requests"
    else:
        yield f"{report.equal:,} of {total:,} answers {'agrees' if report.equal == 1 else 'agree'}"
        if asked < total:
            yield f"{total - asked:,} {_stand(total - asked)}"
        yield from _differences(report)
        yield from _judged(report)
        yield from _cost(report)
        yield from _latency(report)
    if skipped := sum(report.skipped.values()):
        yield f"{_answers(skipped)} could not be replayed"


def _answers(number: int) -> str:
    return f"{number:,} answer{'' if number == 1 else 's'}"


def _stand(number: int) -> str:
    return "stands as recorded" if number == 1 else "stand as recorded"


def _differences(report: Report) -> Iterator[str]:
    if report.failed_count:
        kinds = ", ".join(f"{kind} {number}" for kind, number in report.failed.items())
        yield f"{report.failed_count:,} failed ({kinds})"
    found = [(path, one.total - one.equal) for path, one in report.fields.items() if one.equal < one.total]
    if found:
        said = [f"{number:,} in {path}" for path, number in found[:_FIELDS_SAID]]
        more = f" and in {len(found) - _FIELDS_SAID} more fields" if len(found) > _FIELDS_SAID else ""
        yield f"{found[0][1]:,} {'differs' if found[0][1] == 1 else 'differ'} {', '.join(said).partition(' ')[2]}{more}"


def _judged(report: Report) -> Iterator[str]:
    if report.judged:
        said = ", ".join(f"{report.judged.get(word, 0):,} {word}" for word in ("better", "same", "worse"))
        yield f"of {sum(report.judged.values()):,} that were judged {said}"
    if report.unjudged:
        yield f"the judge gave no verdict on {sum(report.unjudged.values()):,}"


def _cost(report: Report) -> Iterator[str]:
    then, now = report.then, report.now
    if then.unpriced or now.unpriced or then.cost_each_usd is None or now.cost_each_usd is None:
        yield "whether it costs more is unknown"
    elif not then.cost_each_usd:
        yield "costs nothing, as before" if not now.cost_each_usd else "costs something, and cost nothing before"
    else:
        percent = round(100 * (now.cost_each_usd / then.cost_each_usd - 1), 1)
        yield "costs as much" if not percent else f"costs {_number(abs(percent))} % {'more' if percent > 0 else 'less'}"


def _number(value: Decimal) -> str:
    return f"{value:.0f}" if value == value.to_integral_value() or abs(value) >= 10 else f"{value:.1f}"  # noqa: PLR2004


def _latency(report: Report) -> Iterator[str]:
    if report.then.p95_s is not None and report.now.p95_s is not None:
        yield f"p95 {_seconds(report.now.p95_s)} instead of {_seconds(report.then.p95_s)}"


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
