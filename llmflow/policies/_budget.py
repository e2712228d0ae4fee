"""Budget: dollars, tokens and calls that are reserved before they can be spent."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from llmflow.context import blocked_loop
from llmflow.errors import DefinitionError
from llmflow.policies._charges import charge, spent
from llmflow.policies._fund import Fund, Key, period_of_day, period_of_month
from llmflow.policies._pot import UNLIMITED, Terms
from llmflow.policies._purse import Claim, Purse
from llmflow.policies._refusal import announce, in_dollars, refused, timed_out
from llmflow.policy import Band, Options, RequestLayer, Site, check_count, check_key, check_name
from llmflow.prices import nanos, worst_case_nano
from llmflow.tokens import Answers, token_estimator, worst_case_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmflow.messages import Reply, Request
    from llmflow.policies._pot import Pot

__all__ = ["Budget", "BudgetTooSmallWarning", "UnpricedModelWarning"]

Per = Literal["call", "run", "day", "month", "total"]
OnUnpriced = Literal["refuse", "allow"]

Waiting = Literal["", "hedge", "sync"]

_LAYER = "__llmflow_budget__"
_MOST_USD = Decimal(10) ** 12
_WAYS_OUT = "lower max_tokens in params, or raise the budget"


class BudgetTooSmallWarning(UserWarning):
    """A budget is so small that it can never pay for a request of the step."""


class UnpricedModelWarning(UserWarning):
    """A budget in dollars counts the requests to a model as free, because nobody knows what they cost."""


@dataclass(frozen=True, slots=True)
class Budget(Options):
    """Caps what may be spent: the worst case of a request is reserved before it is sent, and settled afterwards.

    A request that fits only once others have been settled waits for them, first come first served, within its deadline;
    one that can no longer fit is refused with `BudgetExceeded` before anything is sent.

    Args:
        usd: Dollars, best as text: `"0.10"`.
        tokens: Tokens, of prompts and answers together.
        calls: Requests.
        per: For what: each `call` of a step, each `run`, each `day` or `month` (UTC), or in `total`.
        key: Gives each key a budget of its own: `"tenant"` of `llmflow.context(tenant=...)`, or a function of the request.
        name: Budgets of one name are one; by default each place of declaration has its own.
        on_unpriced: What to do with a model whose price nobody knows: `refuse` it, or `allow` it and count no dollars.

    Raises:
        DefinitionError: For caps that cannot be, or without any.
    """

    usd: Decimal | str | float | None = None
    tokens: int | None = None
    calls: int | None = None
    per: Per = "run"
    key: Literal["tenant"] | Key | None = None
    name: str | None = None
    on_unpriced: OnUnpriced = "refuse"

    band: ClassVar[Band] = Band.BUDGET
    stacking: ClassVar[Literal["nearest", "all"]] = "all"
    sends: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.usd is not None:
            object.__setattr__(self, "usd", _checked_usd(self.usd))
        for unit in ("tokens", "calls"):
            if getattr(self, unit) is not None:
                check_count(getattr(self, unit), name=f"Budget: {unit}")
        if self.usd is None and self.tokens is None and self.calls is None:
            msg = "Budget() caps nothing; give it usd=, tokens= or calls="
            raise DefinitionError(msg)
        _check_choice("per", self.per, get_args(Per))
        _check_choice("on_unpriced", self.on_unpriced, get_args(OnUnpriced))
        check_key(self.key, policy="Budget")
        check_name(self.name, policy="Budget")

    def wrap(self, proceed: RequestLayer, site: Site, /) -> RequestLayer:
        """Return `proceed` behind this budget; budgets that follow each other become one layer with all their pots."""
        self._check_price(site)
        if (shortfall := self.shortfall(site)) is not None:
            _warn_once(site, shortfall, BudgetTooSmallWarning)
        fund = self._fund(site)
        inner: _Layer | None = getattr(proceed, _LAYER, None)
        if inner is None:
            return _Layer((fund,), proceed, site, priced=self.usd is not None, counted=self.tokens is not None).build()
        return _Layer(
            (fund, *inner.funds),
            inner.proceed,
            site,
            priced=inner.priced or self.usd is not None,
            counted=inner.counted or self.tokens is not None,
        ).build()

    def shortfall(self, site: Site, /) -> str | None:
        """Say why not even a request with an empty prompt fits, None when one does."""
        answer = Answers(site.model).longest(site.params)
        budget = f"step {site.step!r}: budget {self.name or site.declared!r} (per {self.per})"
        model = f"cannot pay for any request to {site.model.name}"
        if self.tokens is not None and answer > self.tokens:
            return f"{budget} of {self.tokens:,} tokens {model}, whose answer alone may have {answer:,}; {_WAYS_OUT}"
        worst = 0 if site.price is None else worst_case_nano(0, answer, site.price)
        if self.usd is not None and worst > nanos(Decimal(self.usd)):
            cap, asked = in_dollars(nanos(Decimal(self.usd))), in_dollars(worst)
            return f"{budget} of {cap} {model}, whose answer alone may cost {asked}; {_WAYS_OUT}"
        return None

    def _check_price(self, site: Site) -> None:
        if self.usd is None or site.price is not None:
            return
        model = site.model.name
        if self.on_unpriced == "refuse":
            msg = f"step {site.step!r} has a budget in dollars, and nobody knows what {model!r} costs"
            error = DefinitionError(msg)
            error.add_note(
                f"Say it with Runtime(prices={{{model!r}: Price(input=..., output=...)}}) or Model({model!r}, price=...), "
                f"or let it pass uncounted with Budget(on_unpriced='allow')."
            )
            raise error
        _warn_once(site, f"nobody knows what {model!r} costs: budgets count its requests as $0", UnpricedModelWarning)

    def _fund(self, site: Site) -> Fund:
        """Return the fund of this budget in the runtime; one name means one fund."""
        if self.name is not None:
            known = site.shared(("budget", self.name), lambda: self)
            if known != self:
                msg = f"two budgets are called {self.name!r} and differ: {known!r} and {self!r}"
                raise DefinitionError(msg)
        purse, time = purse_of(site), site.clock.time
        # Without a name, one that is declared anew with other options (`with_`, a notebook) is another one.
        key = ("budget", self.name or (site.declared, self), "fund")
        terms, declared = self._terms(self.name or site.declared), "" if self.name else site.declared
        return site.shared(key, lambda: Fund(terms, self.key, purse, time, declared=declared))

    def _terms(self, name: str) -> Terms:
        return Terms(
            name=name,
            per=self.per,
            usd=UNLIMITED if self.usd is None else nanos(Decimal(self.usd)),
            tokens=UNLIMITED if self.tokens is None else self.tokens,
            calls=UNLIMITED if self.calls is None else self.calls,
            period={"day": period_of_day, "month": period_of_month}.get(self.per),
        )


def _warn_once(site: Site, text: str, kind: type[Warning]) -> None:
    """Warn once in a runtime: a step is bound for its plan, for each flow it is in, and for its calls."""
    said = site.shared((kind, text), list[bool])
    if not said:
        said.append(True)
        warnings.warn(text, kind, stacklevel=4)


def purse_of(site: Site) -> Purse:
    """Return the purse of the runtime."""
    return site.shared("purse", lambda: Purse(site.clock.time))


class _Layer:
    """Budgets that follow each other on the way to one model, as one layer."""

    def __init__(
        self, funds: tuple[Fund, ...], proceed: RequestLayer, site: Site, *, priced: bool, counted: bool
    ) -> None:
        self.funds = funds
        self.proceed = proceed
        self.priced = priced
        self.counted = counted
        self._site = site
        self._purse = purse_of(site)

    def build(self) -> RequestLayer:
        """Return the function that every request goes through."""
        purse, proceed, pots_of = self._purse, self.proceed, self._pots_of()
        price = self._site.price if self.priced else None
        worst_case = worst_case_of(self._site, price, counted=self.priced or self.counted)
        learn = token_estimator(self._site).learn if self.priced or self.counted else None

        async def budget(request: Request) -> Reply:
            pots = pots_of(request)
            usd, tokens = worst_case(request)
            if not purse.take(pots, usd, tokens):
                await self._wait(request, pots, usd, tokens)
            call, sent = request.call, request.sent
            started = call.started
            try:
                reply = await proceed(request)
                usage = reply.usage
                charged = (usd, tokens, 1) if usage is None else spent(usage, price, usd, tokens)
            except BaseException as error:
                # Without a `Sent` nothing runs beside this request in its call, so the count says whether it was sent.
                was_sent = call.started != started if sent is None else sent.at is not None
                charged = charge(error, usd, tokens, was_sent=was_sent)
                settle = purse.settle_abandoned if isinstance(error, GeneratorExit) else purse.settle
                settle(pots, usd, tokens, charged)
                raise
            purse.settle(pots, usd, tokens, charged)
            if learn is not None:
                learn(request, usage)
            return reply

        setattr(budget, _LAYER, self)
        return budget

    def _pots_of(self) -> Callable[[Request], Sequence[Pot]]:
        only = [fund.only for fund in self.funds]
        fixed = tuple(pot for pot in only if pot is not None)
        if len(fixed) == len(only):
            return lambda _: fixed
        funds = self.funds
        if len(funds) == 1:
            pot_of = funds[0].pot
            return lambda request: (pot_of(request),)
        return lambda request: [fund.pot(request) for fund in funds]

    async def _wait(self, request: Request, pots: Sequence[Pot], usd: int, tokens: int) -> None:
        """Reserve once others have been settled, or say why not."""
        waiting: Waiting = "hedge" if request.hedge else "sync" if blocked_loop.get() is not None else ""
        claim = Claim(pots, usd, tokens)
        short = self._purse.line_up(claim, patient=not waiting)
        if short is None and not claim.held:
            clock, call = self._site.clock, request.call
            began = clock.monotonic()
            try:
                if not await self._purse.wait(claim, request.deadline - began):
                    raise timed_out(len(pots), request.model.name)
            finally:
                call.waited_s += clock.monotonic() - began
            short = claim.short
        if short is None:
            return
        if waiting and claim.missing(held=False) is not None:
            waiting = ""
        if not waiting:
            announce(self._site, request, short)
        raise refused(short, waiting=waiting)


def _checked_usd(value: object) -> Decimal:
    """Return dollars as a decimal, refusing what is none, is not positive, or is less than a nano-dollar."""
    try:
        usd = Decimal(str(value)) if isinstance(value, str | int | float | Decimal) else None
    except InvalidOperation:
        usd = None
    if usd is None or isinstance(value, bool) or not usd.is_finite() or usd > _MOST_USD or nanos(usd) < 1:
        msg = f"Budget: usd is {value!r}, expected dollars such as '0.10', more than nothing"
        raise DefinitionError(msg)
    return usd


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        msg = f"Budget: {name} is {value!r}, expected one of {', '.join(choices)}"
        raise DefinitionError(msg)
