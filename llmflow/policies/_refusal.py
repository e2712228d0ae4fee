"""What is said when a budget cannot pay for a request."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from llmflow.errors import BudgetExceeded, ProviderTimeout
from llmflow.events import BudgetRefused
from llmflow.prices import dollars

if TYPE_CHECKING:
    from llmflow.messages import Request
    from llmflow.policies._pot import Pot, Short
    from llmflow.policy import Site

__all__ = ["announce", "in_dollars", "refused", "timed_out"]


def refused(short: Short, *, waiting: Literal["", "hedge", "sync"] = "") -> BudgetExceeded:
    """Return the error for a request that a pot cannot pay for, or not without the waiting that it must not do."""
    pot, unit = short.pot, short.unit
    if unit is None:
        error = BudgetExceeded(f"{_label(pot)}: others wait for it already{_WHY[waiting]}")
    else:
        error = BudgetExceeded(f"{_label(pot)}: {_amounts(short)}{_WHY[waiting]}")
        error.unit = unit
        error.asked, error.left = _amount(unit, short.asked), _amount(unit, max(0, short.left))
    error.budget = pot.terms.name
    if waiting == "sync":
        error.add_note("Inside a running loop, `await` the call instead of using .sync().")
    elif not waiting and unit != "calls":
        error.add_note(
            "The worst case is the estimated prompt and max_tokens of answer; a lower max_tokens asks for less."
        )
    return error


_WHY = {
    "": "",
    "hedge": " while other requests are under way, and a hedge does not wait for them",
    "sync": " while other requests are under way, and .sync() must not wait for them in the thread of a running loop",
}


def timed_out(pots: int, model: str) -> ProviderTimeout:
    """Return the error for a wait that took longer than the deadline leaves."""
    which = "a budget" if pots == 1 else f"{pots} budgets"
    msg = f"the deadline passed while a request to {model} waited for what others had reserved in {which}"
    error = ProviderTimeout(msg, cut=True, model=model)
    error.sent = False
    return error


def announce(site: Site, request: Request, short: Short) -> None:
    """Tell whoever listens that a request was refused."""
    if short.unit is None or not site.listens(BudgetRefused):
        return
    call = request.call
    site.emit(
        BudgetRefused(
            run_id=call.run_id,
            call_id=call.call_id,
            step=call.step,
            model=request.model.name,
            budget=short.pot.terms.name,
            key=short.pot.key,
            unit=short.unit,
            asked=_amount(short.unit, short.asked),
            left=_amount(short.unit, max(0, short.left)),
        )
    )


def in_dollars(nano: int) -> str:
    """Return nano-dollars as a person writes them: at least cents, and no more zeros than that."""
    whole, _, cents = f"{dollars(nano):f}".partition(".")
    return f"${whole}.{cents.rstrip('0').ljust(2, '0')}"


def _label(pot: Pot) -> str:
    key = "" if pot.key is None else f", key {pot.key!r}"
    return f"budget {pot.terms.name!r} ({'in total' if pot.terms.per == 'total' else f'per {pot.terms.per}'}{key})"


def _amounts(short: Short) -> str:
    pot, left = short.pot, max(0, short.left)
    if short.unit == "usd":
        asked, rest, cap = in_dollars(short.asked), in_dollars(left), in_dollars(pot.cap_usd)
        return f"this request may cost up to {asked}, {rest} of {cap} is left"
    if short.unit == "tokens":
        return f"this request may take up to {short.asked:,} tokens, {left:,} of {pot.cap_tokens:,} are left"
    return f"this request is one more, {left:,} of {pot.cap_calls:,} calls are left"


def _amount(unit: str, number: int) -> Decimal:
    return dollars(number) if unit == "usd" else Decimal(number)
