"""What the journal has of one run: the run, its nodes, calls and attempts, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from llmflow.prices import dollars

__all__ = [
    "AttemptRecord",
    "CallRecord",
    "NodeRecord",
    "PromptUse",
    "RunSummary",
    "Spend",
    "add_tokens",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """What requests cost, as far as it is known, and what of it is not.

    Attributes:
        known_nano: Nano-dollars of the requests whose cost is known.
        unpriced: Requests that ended and whose cost nobody knows, as no usage came, or they have no price.
        uncertain: Requests that were in flight when their process died; each cost nothing, or what was reserved for it.
        in_flight: Requests that have not ended yet.
        open_nano: Nano-dollars that all of these cost at most, as far as something was reserved for them.
        unbounded: For how many of them nothing was.
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
        return None if self.unbounded else dollars(self.known_nano + self.open_nano)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run, with what its requests took.

    Attributes:
        status: As recorded; `interrupted` too when it says `running` and its process is gone.
        calls: Calls of steps that have ended.
        unended: Calls that have sent a request and have no end: they are still at it, or their process died.
        requests: Physical requests, those in flight included.
        resumed: How often it was taken up again.
        failed_items: Of a map: how many of its items failed. It may be `ok` all the same, when it collects them.
        items: How many there are, None unless some of them failed.
        replay_of: The run, or the step, whose recorded answers it played again; None for what is no replay.
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
    replay_of: str | None
    failed_items: int
    items: int | None
    calls: int
    unended: int
    requests: int
    input_tokens: int | None
    output_tokens: int | None
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
        sent: False when it certainly never reached the provider, or was no request.
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
    sent: bool

    @property
    def spend(self) -> Spend:
        """What it cost: all that was reserved for it at most, where nobody knows."""
        has_ended = self.outcome not in (None, "uncertain")
        if has_ended and (self.cost_nano is not None or not self.sent or self.kind != "attempt"):
            return Spend(known_nano=self.cost_nano or 0)
        bound = self.reserved_nano if self.cost_nano is None else self.cost_nano
        return Spend(
            unpriced=int(has_ended),
            uncertain=int(self.outcome == "uncertain"),
            in_flight=int(self.outcome is None),
            open_nano=bound or 0,
            unbounded=int(bound is None),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptUse:
    """A version of a prompt that a run used, and how many of its calls did; `calls` and `unended` as in `RunSummary`."""

    step: str
    prompt_version: str
    label: str | None
    calls: int
    unended: int


def add_tokens(one: int | None, other: int | None) -> int | None:
    """Add tokens as far as they were counted; None when none were."""
    return other if one is None else one + (other or 0)
