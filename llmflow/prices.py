"""What a model costs, in dollars per million tokens, and what a request costs in nano-dollars.

Money is counted in whole nano-dollars: floats drift, and two reports that ought to agree would not. A price is read as
the decimal number that was written and becomes a pair of integers, so no float takes part in any sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import TYPE_CHECKING, NamedTuple

from llmflow.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llmflow.messages import Usage

__all__ = ["Price", "Tier", "cost", "dollars", "money", "nano_cost", "nanos", "total", "worst_case_nano"]

_NANO = Decimal(1_000_000_000)
_EXACT = Context(prec=100)
"""The caller's own decimal context may round to a few digits."""
_LITTLE = Decimal("0.001")
_RATES = ("input", "output", "cached_input", "cache_write")


class _Rates(NamedTuple):
    """What a token costs in units of `1 / scale` nano-dollars, for requests of more than `above` prompt tokens."""

    above: int
    fresh: int
    output: int
    cached: int
    written: int
    worst_prompt: int
    """The dearest rate a prompt token can have up to this length, and below that of an answer's."""
    worst_output: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Other rates for long prompts: all tokens of a request with more than `above` prompt tokens cost these.

    What is not given costs what it costs below.
    """

    above: int
    input: float | None = None
    output: float | None = None
    cached_input: float | None = None
    cache_write: float | None = None

    def __post_init__(self) -> None:
        _check_count("Tier", "above", self.above)
        _check_rates("Tier", self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Dollars per million tokens.

    Args:
        input: For each million tokens of the prompt.
        output: For each million tokens of the answer, reasoning included.
        cached_input: For prompt tokens the provider had cached; `input` when it is not said.
        cache_write: For prompt tokens the provider wrote to its cache; `input` when it is not said.
        tiers: Other rates for long prompts.
        context_window: How many tokens the model takes in, None when unknown.
        max_output: How many tokens the model can answer, None when unknown.

    Raises:
        DefinitionError: For a rate that is not a finite number of at least 0, or a limit that is no positive int.
    """

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None
    tiers: tuple[Tier, ...] = ()
    context_window: int | None = None
    max_output: int | None = None
    _scale: int = field(init=False, repr=False, compare=False)
    _table: tuple[_Rates, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_rates("Price", self, needed=("input", "output"))
        for name in ("context_window", "max_output"):
            if (value := getattr(self, name)) is not None:
                _check_count("Price", name, value)
        if not isinstance(self.tiers, tuple) or not all(isinstance(one, Tier) for one in self.tiers):
            msg = f"Price: tiers is {self.tiers!r}, expected a tuple of Tier(above=..., ...)"
            raise DefinitionError(msg)
        scale, table = _tabulate(self)
        object.__setattr__(self, "_scale", scale)
        object.__setattr__(self, "_table", table)


def nano_cost(usage: Usage | None, price: Price | None) -> int | None:
    """Return what a request cost in nano-dollars, rounded to the nearest; None when usage or price is unknown.

    A usage that cannot be (negative, no whole number, more cached than sent) is unknown: a negative cost would be a
    refund.
    """
    if usage is None or price is None:
        return None
    prompt, answer = usage.input_tokens, usage.output_tokens
    cached = 0 if usage.cached_tokens is None else usage.cached_tokens
    written = 0 if usage.cache_write_tokens is None else usage.cache_write_tokens
    if type(prompt) is not int or type(answer) is not int or type(cached) is not int or type(written) is not int:
        return None
    fresh = prompt - cached - written
    if fresh < 0 or cached < 0 or written < 0 or answer < 0:
        return None
    rates = _rates_for(price, prompt)
    units = fresh * rates.fresh + cached * rates.cached + written * rates.written + answer * rates.output
    scale = price._scale  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # this very module's
    return units if scale == 1 else (2 * units + scale) // (2 * scale)


def worst_case_nano(prompt_tokens: int, max_tokens: int, price: Price) -> int:
    """Return the most nano-dollars a request can cost, whatever the provider reports, as long as the counts hold.

    Every prompt token is taken at the dearest of the rates it may be billed at, and of the tiers up to that length.
    """
    rates = _rates_for(price, prompt_tokens)
    scale = price._scale  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return -(-(prompt_tokens * rates.worst_prompt + max_tokens * rates.worst_output) // scale)


def cost(usage: Usage | None, price: Price | None) -> Decimal | None:
    """Return dollars, exact to the nano-dollar; None when the usage or the price is unknown, never a guess."""
    nano = nano_cost(usage, price)
    return None if nano is None else dollars(nano)


def dollars(nano: int) -> Decimal:
    """Return nano-dollars as dollars, exactly."""
    return _EXACT.divide(Decimal(nano), _NANO)


def money(usd: Decimal) -> str:
    """Return dollars as people read them: cents of a dollar and more, two digits of what is very little."""
    if not usd or abs(usd) >= 1:
        return f"${usd:,.2f}"
    if abs(usd) >= _LITTLE:
        return f"${usd:.4f}"
    return f"${_EXACT.quantize(usd, Decimal(1).scaleb(usd.adjusted() - 1)):f}"


def total(costs: Iterable[Decimal | None]) -> Decimal | None:
    """Add dollars up exactly, None as soon as one is unknown."""
    nano = 0
    for one in costs:
        if one is None:
            return None
        nano += nanos(one)
    return dollars(nano)


def nanos(usd: Decimal) -> int:
    """Return dollars as nano-dollars, rounded to the nearest."""
    return int(_EXACT.to_integral_value(_EXACT.multiply(usd, _NANO)))


def _rates_for(price: Price, prompt_tokens: int) -> _Rates:
    table = price._table  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    found = table[0]
    if len(table) == 1:
        return found
    for one in table[1:]:
        if prompt_tokens > one.above:
            found = one
    return found


def _tabulate(price: Price) -> tuple[int, tuple[_Rates, ...]]:
    """Return the scale and the rates from short prompts to long ones, all of them as integers."""
    above = [-1, *sorted(one.above for one in price.tiers)]
    if len(set(above)) < len(above):
        msg = f"Price: two tiers begin above the same number of tokens: {sorted(above)[1:]}"
        raise DefinitionError(msg)
    # One dollar per million tokens is 1,000 nano-dollars per token.
    rows = [[_EXACT.multiply(rate, Decimal(1000)) for rate in row] for row in _rows(price)]
    scale = math.lcm(*(rate.as_integer_ratio()[1] for row in rows for rate in row))
    table: list[_Rates] = []
    worst_prompt = worst_output = 0
    for start, row in zip(above, rows, strict=True):
        fresh, output, cached, written = (int(_EXACT.multiply(rate, Decimal(scale))) for rate in row)
        worst_prompt, worst_output = max(worst_prompt, fresh, cached, written), max(worst_output, output)
        table.append(_Rates(start, fresh, output, cached, written, worst_prompt, worst_output))
    return scale, tuple(table)


def _rows(price: Price) -> Iterable[tuple[Decimal, Decimal, Decimal, Decimal]]:
    """Yield input, output, cached and written, of the price itself and then of its tiers."""
    said: dict[str, float | None] = dict.fromkeys(_RATES)
    for one in (price, *sorted(price.tiers, key=lambda tier: tier.above)):
        said |= {name: rate for name in _RATES if (rate := getattr(one, name)) is not None}
        fresh, output = Decimal(str(said["input"])), Decimal(str(said["output"]))
        cached, written = (
            fresh if (rate := said[name]) is None else Decimal(str(rate)) for name in ("cached_input", "cache_write")
        )
        yield fresh, output, cached, written


def _check_rates(owner: str, price: Price | Tier, needed: tuple[str, ...] = ()) -> None:
    for name in _RATES:
        value: object = getattr(price, name)
        if value is None and name not in needed:
            continue
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float, Decimal))
            or not math.isfinite(value)
            or value < 0
        ):
            msg = f"{owner}: {name} is {value!r}, expected dollars per million tokens, at least 0"
            raise DefinitionError(msg)


def _check_count(owner: str, name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        msg = f"{owner}: {name} is {value!r}, expected a number of tokens, at least 1"
        raise DefinitionError(msg)
