"""What happened, one dataclass for each notify hook. Prompts and answers are never part of an event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decimal import Decimal

    from llmflow.messages import Usage

__all__ = [
    "AttemptFinished",
    "AttemptStarted",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """The outermost call has ended; `error` is the name of the error class, None when it went well."""

    run_id: str
    target: str
    latency_s: float
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStarted:
    """A step is about to ask; its prompt is built."""

    run_id: str
    call_id: str
    step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFinished:
    """A call of a step has ended, retries, re-asks and fallbacks included.

    `tenant` and `tags` are those of the `llmflow.context(...)` around the call.
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
    tenant: str | None = None
    tags: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted:
    """A physical request is about to be sent."""

    run_id: str
    call_id: str
    step: str
    model: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFinished:
    """A physical request has ended; `outcome` is `ok`, `cancelled`, `cut` or the name of the error class."""

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
