"""What a request may cost, and what it is charged in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmflow.errors import StepError
from llmflow.models import DEFAULT_MAX_TOKENS
from llmflow.prices import Price, nano_cost, worst_case_nano
from llmflow.tokens import token_estimator

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmflow.messages import Request, Usage
    from llmflow.models import Model, Params
    from llmflow.policy import Site

__all__ = ["Answers", "charge", "spent", "worst_case_of"]

_FIRST_ERROR = 400
"""A 200 that nobody can read may have been billed."""
_LONGER_ANSWERS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_MORE_ANSWERS = ("n", "candidate_count")


class Answers:
    """How long the answers of a model may be, by what its requests carry."""

    __slots__ = ("_least", "_times")

    def __init__(self, model: Model) -> None:
        options = {name: value for name, value in model.options.items() if type(value) is int and value > 0}
        # Options go into the body as they are, and may say otherwise than `params`.
        self._least = max((options[name] for name in _LONGER_ANSWERS if name in options), default=0)
        self._times = max((options[name] for name in _MORE_ANSWERS if name in options), default=1)

    def longest(self, params: Params) -> int:
        """Return the most tokens that a request with these parameters may be answered with."""
        return max(params.get("max_tokens") or DEFAULT_MAX_TOKENS, self._least) * self._times


def worst_case_of(site: Site, price: Price | None, *, counted: bool) -> Callable[[Request], tuple[int, int]]:
    """Return what says the most nano-dollars and tokens that a request may take.

    Args:
        site: Where the budget stands.
        price: What the model costs; without one no dollars are counted.
        counted: Whether anything but requests is counted at all.
    """
    if not counted:
        return lambda _: (0, 0)
    estimate, longest = token_estimator(site).estimate, Answers(site.model).longest
    if price is None:
        return lambda request: (0, estimate(request) + longest(request.params))

    def worst_case(request: Request) -> tuple[int, int]:
        prompt, answer = estimate(request), longest(request.params)
        return worst_case_nano(prompt, answer, price), prompt + answer

    return worst_case


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
