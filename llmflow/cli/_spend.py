"""Money that was spent, as far as anybody knows; what is not known is said, and never shown as nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmflow.cli._report import count, tokens
from llmflow.prices import dollars as usd_of
from llmflow.prices import money
from llmflow.stores._report_records import Spend

__all__ = ["plain_spend", "plain_usd", "range_of", "short", "spend_notes", "tokens_of"]


def short(spend: Spend) -> str:
    """Return what was spent, for a column: `> $0.01` when it may be more, `< $0.01` when it may have been nothing."""
    if spend.known_nano:
        return f"> {money(spend.known_usd)}" if spend.open_nano or spend.unbounded else money(spend.known_usd)
    if spend.most_usd is None:
        return "unknown"
    return f"< {money(spend.most_usd)}" if spend.most_usd else money(spend.most_usd)


def range_of(spend: Spend) -> str:
    """Return `$0.0312 to $0.0350` when some of it is uncertain, `> $0.0312` when it has no bound."""
    if spend.most_usd is None or not spend.open_nano:
        return short(spend)
    return f"{money(spend.known_usd)} to {money(spend.most_usd)}"


def spend_notes(spend: Spend) -> Iterator[str]:
    """Yield a line about the requests whose cost is not known, and so is in no sum, if there are any."""
    numbers = (
        (spend.unpriced, "of unknown cost"),
        (spend.uncertain, "cut off when the process died"),
        (spend.in_flight, "in flight"),
    )
    (first, what), *more = [one for one in numbers if one[0]] or [(0, "")]
    if first:
        kinds = [f"{count(first, 'request')} {what}", *(f"{number:,} {what}" for number, what in more)]
        yield f"{', '.join(kinds)}: {_most(spend)}"


def _most(spend: Spend) -> str:
    bounded = spend.unpriced + spend.uncertain + spend.in_flight - spend.unbounded
    if not bounded:
        return "nobody knows how much more"
    most = f"at most {money(usd_of(spend.open_nano))} more"
    return f"{bounded:,} of them {most}, nobody knows about {spend.unbounded:,}" if spend.unbounded else most


def tokens_of(number: int | None) -> str:
    """Return a number of tokens for a column, `-` when nobody counted them."""
    return "-" if number is None else tokens(number)


def plain_usd(nano: int | None) -> str | None:
    """Return nano-dollars as JSON holds dollars: as text, since a number would be rounded."""
    return None if nano is None else f"{usd_of(nano):f}"


def plain_spend(spend: Spend) -> dict[str, Any]:
    """Return it as JSON can hold it: what is known, and what it is at most, null when that has no bound."""
    known = spend.known_nano or not spend.unpriced
    return {
        "cost_usd": plain_usd(spend.known_nano) if known else None,
        "cost_most_usd": None if spend.most_usd is None else f"{spend.most_usd:f}",
        "unpriced": spend.unpriced,
        "uncertain": spend.uncertain,
        "in_flight": spend.in_flight,
    }
