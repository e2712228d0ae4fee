"""What `stats` and `cost` have in common: what groups are named, and what their requests took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from llmflow.cli._moments import day_and_time
from llmflow.cli._printable import printable
from llmflow.cli._spend import plain_spend, plain_usd
from llmflow.cli._terminal import say
from llmflow.prices import money
from llmflow.stores._report_groups import GroupCost
from llmflow.stores._report_sums import GROUPS, Group

__all__ = ["HEADINGS", "Labels", "key_cells", "plain_cost", "plain_key", "said_since", "saved"]

Labels: TypeAlias = Mapping[tuple[str, str], str]
"""The label of each version of a prompt that has one, by step and version."""

HEADINGS = {"prompt_version": "prompt", "day": "day (UTC)"}


def said_since(since: str | None, until: str | None, began: float | None) -> None:
    """Say what was counted, when nobody asked for less than everything."""
    if since is None and until is None and began is not None:
        say(f"everything since {day_and_time(began)}; --since 24h or 7d counts less", "dim")


def key_cells(by: Group, key: Sequence[str | None], labels: Labels) -> list[str]:
    """Return the cells that name a group."""
    cells = ["-" if one is None else printable(one) for one in key]
    if by == "prompt" and (label := _label(key, labels)) is not None:
        cells[-1] += f" ({printable(label)})"
    return cells


def plain_key(by: Group, key: Sequence[str | None], labels: Labels) -> dict[str, str | None]:
    """Return what names a group, as JSON can hold it."""
    named = dict(zip(GROUPS[by], key, strict=True))
    return {**named, "label": _label(key, labels)} if by == "prompt" else named


def _label(key: Sequence[str | None], labels: Labels) -> str | None:
    step, version = key
    return None if step is None or version is None else labels.get((step, version))


def saved(cost: GroupCost) -> str:
    """Return what hits had cost when they were asked for, as far as it is known."""
    if not cost.hits:
        return "-"
    if cost.unsaved and not cost.saved_nano:
        return "unknown"
    return f"{'> ' if cost.unsaved else ''}{money(cost.saved_usd)}"


def plain_cost(one: GroupCost) -> dict[str, Any]:
    """Return what a group took, as JSON can hold it."""
    return {
        "requests": one.requests,
        "input_tokens": one.input_tokens,
        "output_tokens": one.output_tokens,
        **plain_spend(one.spend),
        "hits": one.hits,
        "saved_usd": plain_usd(one.saved_nano),
        "unsaved": one.unsaved,
    }
