"""The places of a run, as a tree: branches, and series of items for maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmflow.stores._report_groups import Percentiles
from llmflow.stores._report_records import AttemptRecord, CallRecord, NodeRecord, Spend, add_tokens

__all__ = ["Branch", "Series", "Taken"]


@dataclass(frozen=True, slots=True)
class Taken:
    """What a node and all inside it took; tokens are None when nobody counted any."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    spend: Spend = Spend()  # noqa: RUF009  # frozen

    def __add__(self, other: Taken) -> Taken:
        return Taken(
            add_tokens(self.input_tokens, other.input_tokens),
            add_tokens(self.output_tokens, other.output_tokens),
            self.spend + other.spend,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A place in a run, with what is recorded of it and what is inside it.

    Attributes:
        key: The whole path.
        name: The last part of it.
        node: None while it has not ended, and for a place that only others are in.
        status: `ok`, `cached`, `failed`, `cancelled`, `in flight`, `uncertain`; empty when nobody knows.
        ended: None while it is in flight.
    """

    key: str
    name: str
    node: NodeRecord | None
    calls: tuple[CallRecord, ...]
    attempts: tuple[AttemptRecord, ...]
    children: tuple[Branch | Series, ...]
    status: str
    started: float
    ended: float | None
    taken: Taken

    @property
    def model(self) -> str | None:
        """Who gave the answer, or was asked last."""
        own = () if self.node is None else (self.node.model,)
        asked = (*(one.model for one in self.attempts), *(one.model for one in self.calls), *own)
        return next((one for one in reversed(asked) if one), None)

    @property
    def prompt_version(self) -> str | None:
        """Which version of the prompt was used."""
        own = () if self.node is None else (self.node,)
        return next((one.prompt_version for one in (*own, *self.calls, *self.attempts) if one.prompt_version), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The items of a map.

    Attributes:
        name: What was mapped.
        number: How many items there are.
        statuses: How many of them ended how.
        items: Some of them, in the order in which they began: the first, and those that failed.
        latency: Of the items that ended.
    """

    key: str
    name: str
    number: int
    statuses: Mapping[str, int]
    items: tuple[Branch, ...]
    latency: Percentiles
    started: float
    ended: float | None
    taken: Taken
