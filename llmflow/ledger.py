"""The rows of the ledger: one for each physical request, and one for each answer that took none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeAlias

from llmflow.prices import dollars

__all__ = ["LedgerRow", "RowKind"]

RowKind: TypeAlias = Literal["attempt", "hit", "stale", "coalesced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """What one request took, or one answer that took none.

    Attributes:
        time: When it ended, in seconds since the epoch.
        kind: `attempt` for a physical request: a retry, a re-ask, a hedge, one that failed or was cancelled. `hit`,
            `stale` and `coalesced` for an answer that a cache or another call gave.
        number: Counted from 1 over all requests of the call; 0 for what was no request.
        outcome: `ok`, `cancelled`, `cut`, or the name of the error class.
        input_tokens: Of the prompt, `cached_tokens` and `cache_write_tokens` included; None when nobody said.
        output_tokens: Of the answer, `reasoning_tokens` included.
        cost_nano: Nano-dollars; None when unknown, 0 for what was no request.
        saved_nano: For a `hit` and its kin: what the answer had cost, None when unknown.
        latency_s: Seconds from sending to the end of the answer.
        hedge: Whether it was a second request beside a slow one.
    """

    time: float
    kind: RowKind
    run_id: str
    call_id: str
    step: str
    model: str
    number: int = 0
    outcome: str = "ok"
    input_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_nano: int | None = None
    saved_nano: int | None = None
    latency_s: float = 0.0
    first_token_s: float | None = None
    status: int | None = None
    hedge: bool = False
    prompt_version: str | None = None
    tenant: str | None = None
    tags: Mapping[str, str] | None = None

    @property
    def cost_usd(self) -> Decimal | None:
        """The cost in dollars, None when unknown."""
        return None if self.cost_nano is None else dollars(self.cost_nano)

    @property
    def saved_usd(self) -> Decimal | None:
        """What was saved in dollars, None when unknown."""
        return None if self.saved_nano is None else dollars(self.saved_nano)
