"""`llmflow cost`: where the money went."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

from llmflow.cli._groups import HEADINGS, key_cells, plain_cost, plain_key, said_since, saved
from llmflow.cli._journal_file import reports
from llmflow.cli._moments import window
from llmflow.cli._spend import short, spend_notes, tokens_of
from llmflow.cli._terminal import out_console, say, table, write_json
from llmflow.stores._report_groups import GroupCost
from llmflow.stores._report_records import Spend, add_tokens
from llmflow.stores._report_sums import GROUPS, Group

__all__ = ["show_cost"]


def show_cost(*, by: Group, since: str | None, until: str | None, as_json: bool) -> None:
    """Write what each step, model, day, tenant or prompt cost, and all of them together."""
    with reports() as found:
        wanted = window(since, until, found.now)
        groups = found.cost(by, wanted)
        labels, began = found.labels(), found.began()
    whole = _whole(groups)
    if as_json:
        plain = [{**plain_key(by, one.key, labels), **plain_cost(one)} for one in groups]
        write_json(
            {"by": by, "since": wanted.since, "until": wanted.until, "groups": plain, "total": plain_cost(whole)}
        )
        return
    if not groups:
        say("no requests" if (since, until) == (None, None) else "no such requests")
        return
    names = [HEADINGS.get(name, name) for name in GROUPS[by]]
    numbers = ["requests", "tokens in", "out", "cost", *(["hits", "saved"] if whole.hits else [])]
    made = table(*names, *numbers, right=numbers)
    for one in groups:
        made.add_row(*key_cells(by, one.key, labels), *_cells(one, hits=bool(whole.hits)))
    made.add_row("total", *[""] * (len(names) - 1), *_cells(whole, hits=bool(whole.hits)), style="bold")
    out_console().print(made)
    for note in spend_notes(whole.spend):
        say(note, "dim")
    said_since(since, until, began)


def _whole(groups: Iterable[GroupCost]) -> GroupCost:
    """Add all groups up."""
    groups = list(groups)
    return GroupCost(
        key=(),
        requests=sum(one.requests for one in groups),
        input_tokens=reduce(add_tokens, (one.input_tokens for one in groups), None),
        output_tokens=reduce(add_tokens, (one.output_tokens for one in groups), None),
        hits=sum(one.hits for one in groups),
        saved_nano=sum(one.saved_nano for one in groups),
        unsaved=sum(one.unsaved for one in groups),
        spend=sum((one.spend for one in groups), Spend()),
    )


def _cells(one: GroupCost, *, hits: bool) -> list[str]:
    cells = [f"{one.requests:,}", tokens_of(one.input_tokens), tokens_of(one.output_tokens), short(one.spend)]
    return [*cells, f"{one.hits:,}", saved(one)] if hits else cells
