"""What a request may cost, and what it is charged in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmflow.errors import StepError
from llmflow.prices import Price, nano_cost

if TYPE_CHECKING:
    from llmflow.messages import Usage

__all__ = ["charge", "spent"]

_FIRST_ERROR = 400
"""A 200 that nobody can read may have been billed."""


def spent(usage: Usage, price: Price | None, usd: int, tokens: int) -> tuple[int, int, int]:
    """Return what a reply is charged: what the provider counted, and the whole reservation where that is junk."""
    prompt, answer = usage.input_tokens, usage.output_tokens
    if type(prompt) is not int or type(answer) is not int or prompt < 0 or answer < 0:
        return usd, tokens, 1
    if price is None:
        return usd, prompt + answer, 1
    cost = nano_cost(usage, price)
    return (usd if cost is None else cost), prompt + answer, 1


def charge(error: BaseException, usd: int, tokens: int, *, was_sent: bool) -> tuple[int, int, int]:
    """Return the dollars, tokens and calls that a request is charged which ended without a reply.

    A provider does not bill what it answers with an error. What was cut off it may have answered, and billed: the whole
    reservation is charged, so that what was spent is never more than what is counted.
    """
    if not was_sent:
        return 0, 0, 0
    if isinstance(error, StepError):
        if not error.sent:
            return 0, 0, 0
        if error.status is not None and error.status >= _FIRST_ERROR:
            return 0, 0, 1
    return usd, tokens, 1
