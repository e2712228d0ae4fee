"""What happened, one dataclass for each notify hook. Prompts and answers are never part of an event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decimal import Decimal
    from typing import Literal

    from llmflow.messages import Usage

__all__ = [
    "AttemptFinished",
    "AttemptStarted",
    "BreakerChanged",
    "BudgetRefused",
    "CacheHit",
    "CallFinished",
    "CallStarted",
    "FallbackTaken",
    "RetryScheduled",
    "RunFinished",
    "RunStarted",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """The outermost call has begun."""

    run_id: str
    target: str
    kind: str = ""
    """`step`, `task`, `flow` or `map`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """The outermost call has ended; `error` is the name of the error class, None when it went well."""

    run_id: str
    target: str
    latency_s: float
    error: str | None = None
    kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStarted:
    """A step is about to ask; its prompt is built."""

    run_id: str
    call_id: str
    step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFinished:
    """A call of a step has ended, retries, re-asks and fallbacks included.

    `tenant` and `tags` are those of the `llmflow.context(...)` around the call, `node` is its place in a run that is
    recorded, `label` that of the variant of its prompt.
    """

    run_id: str
    call_id: str
    step: str
    latency_s: float
    attempts: int
    reasks: int
    model: str | None = None
    error: str | None = None
    repaired: bool = False
    cached: bool = False
    usage: Usage | None = None
    cost_usd: Decimal | None = None
    prompt_version: str | None = None
    label: str | None = None
    tenant: str | None = None
    tags: Mapping[str, str] | None = None
    saved_usd: Decimal | None = None
    waited_s: float = 0.0
    throttled: int = 0
    node: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted:
    """A physical request is about to be sent.

    `reserved_usd` and `reserved_tokens` are what it may take at worst; both None for a call without a run id whose journal is
    in memory, and the dollars also when the price is not known.
    """

    run_id: str
    call_id: str
    step: str
    model: str
    number: int
    hedge: bool = False
    reserved_usd: Decimal | None = None
    reserved_tokens: int | None = None
    prompt_version: str | None = None
    tenant: str | None = None
    node: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFinished:
    """A physical request has ended; `outcome` is `ok`, `cancelled`, `cut` or the name of the error class.

    `sent` is False when it certainly never reached the provider.
    """

    run_id: str
    call_id: str
    step: str
    model: str
    number: int
    outcome: str
    latency_s: float
    usage: Usage | None = None
    cost_usd: Decimal | None = None
    status: int | None = None
    sent: bool = True
    hedge: bool = False
    first_token_s: float | None = None
    prompt_version: str | None = None
    label: str | None = None
    tenant: str | None = None
    tags: Mapping[str, str] | None = None
    node: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled:
    """A transient failure will be tried again after `wait_s` seconds."""

    run_id: str
    call_id: str
    step: str
    model: str
    attempt: int
    wait_s: float
    error: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackTaken:
    """A model failed for good and the next one is asked."""

    run_id: str
    call_id: str
    step: str
    from_model: str
    to_model: str
    error: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheHit:
    """A call was answered without a request of its own.

    `kind` is `hit` for an answer that was kept, `stale` for one past its ttl but within `stale`, and `coalesced` for
    one that another call was just asking for. `saved_usd` is what the answer had cost, None when unknown.
    """

    run_id: str
    call_id: str
    step: str
    model: str
    kind: Literal["hit", "stale", "coalesced"]
    saved_usd: Decimal | None = None
    prompt_version: str | None = None
    tenant: str | None = None
    node: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerChanged:
    """A circuit breaker went from one state to another; `name` is the model whose connection it guards."""

    name: str
    old: Literal["closed", "open", "half_open"]
    new: Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRefused:
    """A request was not sent because a budget cannot pay for it.

    `asked` is the request's worst case and `left` what the budget has, in `unit`: `usd`, `tokens` or `calls`.
    """

    run_id: str
    call_id: str
    step: str
    model: str
    budget: str
    key: str | None
    unit: Literal["usd", "tokens", "calls"]
    asked: Decimal
    left: Decimal
