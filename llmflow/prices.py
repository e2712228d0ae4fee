"""What a model costs, in dollars per million tokens."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmflow.messages import Usage

__all__ = ["Price", "cost"]

_NANO = Decimal(1_000_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Dollars per million tokens.

    Args:
        input: For each million tokens of the prompt.
        output: For each million tokens of the answer, reasoning included.
        cached_input: For prompt tokens the provider had cached; `input` when it is not said.
    """

    input: float
    output: float
    cached_input: float | None = None


def cost(usage: Usage | None, price: Price | None) -> Decimal | None:
    """Return dollars, exact to the nano-dollar; None when the usage or the price is unknown, never a guess."""
    if usage is None or price is None or usage.input_tokens is None or usage.output_tokens is None:
        return None
    cached = usage.cached_tokens or 0
    if not 0 <= cached <= usage.input_tokens or usage.output_tokens < 0:
        return None  # junk: a negative cost would be a refund
    per_cached = price.input if price.cached_input is None else price.cached_input
    # One dollar per million tokens is 1,000 nano-dollars per token.
    nano = (usage.input_tokens - cached) * price.input + cached * per_cached + usage.output_tokens * price.output
    return Decimal(round(nano * 1000)) / _NANO
