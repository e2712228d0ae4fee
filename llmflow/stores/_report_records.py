"""What reports of the journal are made of: runs, nodes, calls and attempts as they are recorded, and sums of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from llmflow.prices import dollars

__all__ = [
    "AttemptRecord",
    "CallRecord",
    "GroupCost",
    "GroupStats",
    "NodeRecord",
    "Percentiles",
    "PromptUse",
    "RunSummary",
    "Spend",
    "VersionStats",
    "Window",
]


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
class Spend:
    """What requests cost, as far as it is known, and what of it is not.

    Attributes:
        known_nano: Nano-dollars of the requests whose cost is known.
        unpriced: Requests that ended and whose cost nobody knows.
        uncertain: Requests that were in flight when their process died; each cost nothing, or what was reserved for it.
        in_flight: Requests that have not ended yet.
        open_nano: Nano-dollars that the uncertain ones and those in flight cost at most.
        unbounded: How many of these have no such bound.
    """

    known_nano: int = 0
    unpriced: int = 0
    uncertain: int = 0
    in_flight: int = 0
    open_nano: int = 0
    unbounded: int = 0

    def __add__(self, other: Spend) -> Spend:
        return Spend(
            known_nano=self.known_nano + other.known_nano,
            unpriced=self.unpriced + other.unpriced,
            uncertain=self.uncertain + other.uncertain,
            in_flight=self.in_flight + other.in_flight,
            open_nano=self.open_nano + other.open_nano,
            unbounded=self.unbounded + other.unbounded,
        )

    @property
    def known_usd(self) -> Decimal:
        """Dollars of the requests whose cost is known: what was spent at least."""
        return dollars(self.known_nano)

    @property
    def most_usd(self) -> Decimal | None:
        """Dollars that were spent at most, None when that has no bound."""
        return None if self.unpriced or self.unbounded else dollars(self.known_nano + self.open_nano)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run, with what its requests took.

    Attributes:
        status: As recorded; `interrupted` too when it says `running` and its process is gone.
        calls: Calls of steps that have ended.
        requests: Physical requests, those in flight included.
        resumed: How often it was taken up again.
    """

    run_id: str
    target: str
    kind: str
    status: str
    started: float
    finished: float | None
    latency_s: float | None
    error: str | None
    message: str | None
    tenant: str | None
    tags: str | None
    resumed: int
    calls: int
    requests: int
    input_tokens: int
    output_tokens: int
    spend: Spend
    saved_nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    """One node of a run that has ended."""

    node: str
    name: str
    kind: str
    status: str
    started: float
    latency_s: float
    model: str | None
    prompt_version: str | None
    error: str | None
    message: str | None
    content: str
    input_hash: str | None
    inputs: str | None = None
    output: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """One call of a step that has ended; `node` is its step's name where it stands at no place of its own."""

    call_id: str
    node: str
    step: str
    model: str | None
    prompt_version: str | None
    label: str | None
    finished: float
    latency_s: float
    error: str | None
    attempts: int
    reasks: int
    repaired: bool
    cached: bool
    input_tokens: int | None
    output_tokens: int | None
    cost_nano: int | None
    saved_nano: int | None
    waited_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One physical request, or one answer that took none (`kind` is then `hit`, `stale` or `coalesced`).

    Attributes:
        outcome: `ok`, `cancelled`, `cut`, an error class, `uncertain`; None while it is in flight.
        reserved_nano: What it costs at most, reckoned before it was sent.
    """

    call_id: str
    number: int
    kind: str
    node: str
    step: str
    model: str
    started: float
    latency_s: float | None
    outcome: str | None
    status: int | None
    input_tokens: int | None
    output_tokens: int | None
    cost_nano: int | None
    reserved_nano: int | None
    saved_nano: int | None
    first_token_s: float | None
    hedge: bool
    prompt_version: str | None

    @property
    def spend(self) -> Spend:
        """What it cost."""
        if self.kind != "attempt":
            return Spend(known_nano=self.cost_nano or 0)
        if self.outcome is not None and self.outcome != "uncertain":
            return Spend(known_nano=self.cost_nano or 0, unpriced=int(self.cost_nano is None))
        bound = self.reserved_nano if self.cost_nano is None else self.cost_nano
        return Spend(
            uncertain=int(self.outcome is not None),
            in_flight=int(self.outcome is None),
            open_nano=bound or 0,
            unbounded=int(bound is None),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptUse:
    """A version of a prompt that a run used, and how many of its calls did."""

    step: str
    prompt_version: str
    label: str | None
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCost:
    """What one step, model, day, tenant or prompt took.

    Attributes:
        key: What it is the sum of: one value, or step and version for a prompt; None for what has none.
        hits: Answers that took no request.
        saved_nano: Nano-dollars that they had cost when they were asked for, as far as that is known.
        unsaved: How many of them nobody knows that of.
    """

    key: tuple[str | None, ...]
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
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
