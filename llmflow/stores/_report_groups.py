"""Sums of the journal: how the calls of a step, model, day, tenant or prompt went, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from llmflow.prices import dollars
from llmflow.stores._report_records import Spend

__all__ = ["GroupCost", "GroupStats", "Percentiles", "VersionStats", "Window"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """From when to when, in seconds since the epoch; None where it has no end."""

    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Seconds, by the nearest rank; None when there is nothing to rank."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCost:
    """What one step, model, day, tenant or prompt took.

    Attributes:
        key: What it is the sum of: one value, or step and version for a prompt; None for what has none.
        input_tokens: As far as they were counted, None when none were; as `output_tokens`.
        hits: Answers that took no request.
        saved_nano: Nano-dollars that they had cost when they were asked for, as far as that is known.
        unsaved: How many of them nobody knows that of.
    """

    key: tuple[str | None, ...]
    requests: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    hits: int = 0
    saved_nano: int = 0
    unsaved: int = 0
    spend: Spend = Spend()  # noqa: RUF009  # frozen

    @property
    def saved_usd(self) -> Decimal:
        """Dollars that the hits had cost."""
        return dollars(self.saved_nano)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStats:
    """How calls of one step, model, day, tenant or prompt went.

    By model, `errors` and `latency` are those of its requests; else those of the calls, whatever they took.

    Attributes:
        calls: Calls that ended; by model those that it answered.
        valid: Those with a valid answer.
        errors: How often which error ended one.
        reasks: Asks that were repeated for an invalid answer.
        repaired: Calls whose answer was mended or asked for again.
        throttled: Retries that were not made because too many of the connection's requests were retries.
        cost: What their requests took.
    """

    key: tuple[str | None, ...]
    calls: int = 0
    valid: int = 0
    errors: Mapping[str, int] = field(default_factory=dict[str, int])
    reasks: int = 0
    repaired: int = 0
    waited_s: float = 0.0
    throttled: int = 0
    latency: Percentiles = Percentiles()
    cost: GroupCost

    @property
    def failed(self) -> int:
        """How many of what is counted failed."""
        return sum(self.errors.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionStats:
    """How the calls with one version of a step's prompt went.

    Attributes:
        label: The label it was last used under, such as `production`.
        first_seen: When it was first used; None when its wording was never recorded and no call of it is in the window.
        last_seen: When its last call ended.
    """

    step: str
    version: str | None
    label: str | None
    first_seen: float | None
    last_seen: float | None
    stats: GroupStats

    @property
    def validity(self) -> float | None:
        """Which part of the calls has a valid answer, None before there is any."""
        return self.stats.valid / self.stats.calls if self.stats.calls else None

    @property
    def cost_per_call_usd(self) -> Decimal | None:
        """Dollars a call to the nearest nano-dollar, None when nothing is known; a lower bound when `stats.cost.spend` has more than is known."""
        spend = self.stats.cost.spend
        if not self.stats.calls or (spend.unpriced and not spend.known_nano):
            return None
        return dollars((spend.known_nano + self.stats.calls // 2) // self.stats.calls)
