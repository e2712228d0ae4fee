"""What one call of a step or a task takes at worst, from the policies of its chain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

from llmflow.policies import (
    Budget,
    Bulkhead,
    Cache,
    CircuitBreaker,
    Deadline,
    Fallback,
    Hedge,
    RateLimit,
    Repair,
    Retry,
    Timeout,
)
from llmflow.policy import Band, Bounds, Declared, SaysItsWorst
from llmflow.prices import Price, dollars, worst_case_nano
from llmflow.tokens import Answers

if TYPE_CHECKING:
    from llmflow.models import Model
    from llmflow.step import BoundStep

__all__ = ["Pot", "Prompts", "pots_of", "refusal", "worst_of_step", "worst_of_task"]

CORRECTION_TOKENS = 512
"""Of the message that tells a model what is wrong with its answer; the longest lists twenty problems."""
_SUMMED = 100
"""Re-asks that are added up one by one; of more of them each counts like the last."""

Prompts: TypeAlias = "Callable[[Model], int]"
"""How many tokens the first prompt of a step has at most, by the model that counts them."""
_Asks: TypeAlias = Callable[[int], Bounds]
"""What one ask takes at worst that comes after so many others of the same call."""


class Pot(NamedTuple):
    """A budget that all requests of a run share."""

    identity: object
    calls: int | None
    usd: Decimal | None


# -- steps -------------------------------------------------------------------------------------------------------------


def worst_of_step(bound: BoundStep, prompts: Prompts) -> Bounds:
    """Return what one call takes at worst, waits for its turn in limits and queues included."""
    bounds = _capped(_fold_step(bound, prompts, queues=True), bound)
    busy = _fold_step(bound, prompts, queues=False).seconds
    if bounds.seconds is not None and busy is not None and busy < bounds.seconds:
        return bounds.because(
            f"{bound.step.name!r}: all but {busy:.3g} s of its time can only go by while it waits for its turn"
        )
    return bounds


def _fold_step(bound: BoundStep, prompts: Prompts, *, queues: bool) -> Bounds:
    outer = [one for one in bound.layers if one.band <= Band.FALLBACK]
    inner = [one for one in bound.layers if one.band > Band.FALLBACK]
    routes = [_route(bound, model, inner, prompts(model), queues=queues) for model in bound.models]
    for layer in reversed(outer):
        if isinstance(layer.policy, Fallback):
            routes = [_in_turn(routes)]
        else:
            routes = [_outside(layer, one, queues=queues) for one in routes]
    worst = routes[0]
    for route in routes[1:]:
        worst = worst.either(route)
    return worst


def _route(bound: BoundStep, model: Model, layers: Sequence[Declared], prompt: int, *, queues: bool) -> Bounds:
    """Return what asking one model takes at worst, with re-asks and retries."""
    answer, price = Answers(model).longest(bound.params(model)), bound.runtime.price(model)
    requests = [one for one in layers if not one.band.wraps_calls]

    def ask(earlier: int) -> Bounds:
        tokens = prompt + earlier * (answer + CORRECTION_TOKENS)
        return _requests(_request(model, price, tokens, answer), requests, queues=queues)

    asks: _Asks = ask
    for layer in reversed([one for one in layers if one.band.wraps_calls]):
        asks = _call_layer(layer, asks, queues=queues)
    return asks(0)


def _request(model: Model, price: Price | None, prompt: int, answer: int) -> Bounds:
    if price is None:
        return Bounds(calls=1, notes=(f"no price is known for {model.name!r}, so its dollars have no bound",))
    return Bounds(calls=1, usd=dollars(worst_case_nano(prompt, answer, price)))


def _call_layer(layer: Declared, asks: _Asks, *, queues: bool) -> _Asks:
    policy = layer.policy
    if isinstance(policy, Repair):
        return lambda earlier: _asked_again(asks, earlier, policy.reasks)
    return lambda earlier: _outside(layer, asks(earlier), queues=queues)


def _asked_again(asks: _Asks, earlier: int, reasks: int) -> Bounds:
    """Return what an ask and its re-asks take; each shows the model one more answer and what is wrong with it."""
    summed = min(reasks, _SUMMED)
    worst = _in_turn([asks(earlier + number) for number in range(summed + 1)])
    return worst.then(asks(earlier + reasks).times(reasks - summed)) if reasks > summed else worst


def _outside(layer: Declared, inner: Bounds, *, queues: bool) -> Bounds:
    """Return what a call layer other than Repair and Fallback makes of what it wraps."""
    policy = layer.policy
    if isinstance(policy, Deadline):
        return inner.at_most(seconds=_seconds(policy.seconds))
    if isinstance(policy, Cache):  # who waits for another call's answer waits as long as its deadline lets it
        return inner.lasting(None) if queues else inner
    return _foreign(policy, inner)


def _in_turn(routes: Iterable[Bounds]) -> Bounds:
    worst = Bounds.nothing()
    for one in routes:
        worst = worst.then(one)
    return worst


# -- requests ----------------------------------------------------------------------------------------------------------


def _requests(request: Bounds, layers: Iterable[Declared], *, queues: bool) -> Bounds:
    """Return what the request layers make of one request, from the innermost to the outermost."""
    worst = request
    for layer in reversed(tuple(layers)):
        worst = _request_layer(layer.policy, worst, queues=queues)
    return worst


def _request_layer(policy: Any, inner: Bounds, *, queues: bool) -> Bounds:
    if isinstance(policy, Timeout):
        return inner.at_most(seconds=_seconds(policy.seconds))
    if isinstance(policy, Retry):
        tried = inner.times(policy.attempts)
        return tried.lasting(None if tried.seconds is None else tried.seconds + _longest_waits(policy))
    if isinstance(policy, Bulkhead | RateLimit | Budget):
        return inner.lasting(None) if queues and getattr(policy, "queue", None) != 0 else inner
    if isinstance(
        policy, Hedge
    ):  # the next one is sent while those before it are under way, so each adds its own time at most
        return inner.times(1 + policy.max)
    if isinstance(policy, CircuitBreaker):
        return inner
    return _foreign(policy, inner)


def _longest_waits(retry: Retry) -> float:
    """Return the seconds between the tries when each wait is the longest there is.

    A provider may ask for `retry_after_max` before every try, and some seconds of spread come on top of that.
    """
    asked, longest = _seconds(retry.retry_after_max), _seconds(retry.wait_max)
    spread = asked + min(0.25 * asked + 0.25, 5.0)
    waits = retry.attempts - 1
    different = min(waits, 64)
    doubled = [min(longest, _seconds(retry.wait_initial) * 2.0**number) for number in range(different)]
    return sum(max(spread, wait) for wait in doubled) + (waits - different) * max(spread, longest)


# -- policies of others ------------------------------------------------------------------------------------------------


def _foreign(policy: Any, inner: Bounds) -> Bounds:
    """Return what a policy that is not llmflow's own says of itself, or that it says nothing."""
    if isinstance(policy, SaysItsWorst):
        return policy.worst_case(inner)
    if (sends := _sends(policy)) is not None:
        return inner.times(sends)
    kind = type(policy).__name__
    return Bounds(notes=inner.notes).because(
        f"{kind} does not say how often it sends, so nothing inside of it has a bound; "
        f"its author can tell with `sends = 1` or `worst_case`"
    )


def _sends(policy: object) -> int | None:
    sends = getattr(policy, "sends", None)
    return sends if isinstance(sends, int) and not isinstance(sends, bool) else None


def _seconds(duration: object) -> float:
    return cast("float", duration)  # seconds, since the policy's __post_init__


# -- budgets -----------------------------------------------------------------------------------------------------------


def _capped(bounds: Bounds, bound: BoundStep) -> Bounds:
    """Return what budgets leave of the bounds of one call: what they refuse is never sent."""
    for pot in _budgets(bound, ("call", "run", "total")):
        bounds = bounds.at_most(calls=pot.calls, usd=pot.usd)
    return bounds


def pots_of(bound: BoundStep) -> frozenset[Pot]:
    """Return the budgets that hold for all requests of a run together."""
    return frozenset(_budgets(bound, ("run", "total")))


def _budgets(bound: BoundStep, periods: tuple[str, ...]) -> Iterable[Pot]:
    """Yield the budgets that no request of the step gets past."""
    for layer in bound.layers:
        policy = layer.policy
        # One with a key is one pot for each value, and nobody knows how many there will be.
        if not isinstance(policy, Budget) or policy.per not in periods or policy.key is not None:
            continue
        if not all(_sends_once(one.policy) for one in bound.layers if one.band > layer.band):
            continue
        priced = policy.on_unpriced == "refuse" or all(bound.runtime.price(one) is not None for one in bound.models)
        usd = Decimal(policy.usd) if policy.usd is not None and priced else None
        yield Pot((policy.name or layer.source, policy), policy.calls, usd)


def refusal(bound: BoundStep, prompts: Prompts) -> str | None:
    """Say which budget can pay for no request of a step, whichever model is asked; None when one may be sent."""
    said = [_too_dear(bound, model, prompts(model)) for model in bound.models]
    return said[0] if all(said) else None


def _too_dear(bound: BoundStep, model: Model, prompt: int) -> str | None:
    answer, price = Answers(model).longest(bound.params(model)), bound.runtime.price(model)
    usd = Decimal(0) if price is None else dollars(worst_case_nano(prompt, answer, price))
    for layer in bound.layers:
        policy = layer.policy
        if not isinstance(policy, Budget):
            continue
        which = f"step {bound.step.name!r}: budget {policy.name or layer.source!r}"
        if policy.usd is not None and usd > Decimal(policy.usd):
            return (
                f"{which} of ${Decimal(policy.usd):f} cannot pay for a request to {model.name}, which may cost ${usd:f}"
            )
        if policy.tokens is not None and prompt + answer > policy.tokens:
            return f"{which} of {policy.tokens:,} tokens cannot pay for a request to {model.name}, which may take {prompt + answer:,}"
    return None


def _sends_once(policy: object) -> bool:
    """Whether what was admitted further out is sent once at most."""
    return isinstance(policy, RateLimit | Bulkhead | Timeout | Budget) or _sends(policy) in (0, 1)


# -- tasks -------------------------------------------------------------------------------------------------------------


def worst_of_task(layers: Sequence[Declared]) -> Bounds:
    """Return what one call of a task takes at worst by the policies that are named on it."""
    worst = _requests(Bounds.nothing().lasting(None), (one for one in layers if not one.band.wraps_calls), queues=True)
    for layer in reversed([one for one in layers if one.band.wraps_calls]):
        worst = _outside(layer, worst, queues=True)
    return worst
