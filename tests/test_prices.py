"""Money is whole nano-dollars, exact, and unknown when it is unknown."""

from __future__ import annotations

import pickle
from dataclasses import replace
from decimal import Context, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmflow import DefinitionError, Price, Tier, Usage
from llmflow.prices import cost, dollars, money, nano_cost, nanos, worst_case_nano

PRICE = Price(input=0.25, output=2.0, cached_input=0.025)
LONG = Price(
    input=1.25,
    output=10,
    cached_input=0.125,
    cache_write=1.5625,
    tiers=(Tier(above=200_000, input=2.5, output=15, cached_input=0.25),),
)

rates = st.integers(0, 10**8).map(lambda units: units / 10**5)
tiers = st.builds(
    Tier, above=st.integers(1, 3000), input=st.none() | rates, output=st.none() | rates, cached_input=st.none() | rates
)
prices = st.builds(
    Price,
    input=rates,
    output=rates,
    cached_input=st.none() | rates,
    cache_write=st.none() | rates,
    tiers=st.lists(tiers, max_size=3, unique_by=lambda tier: tier.above).map(tuple),
)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Usage as a provider may report it: parts never exceed their total."""
    prompt = draw(st.integers(0, 5000))
    cached = draw(st.integers(0, prompt))
    written = draw(st.integers(0, prompt - cached))
    answer = draw(st.integers(0, 5000))
    return Usage(input_tokens=prompt, cached_tokens=cached, cache_write_tokens=written, output_tokens=answer)


def exact(usage: Usage, price: Price) -> Fraction:
    """The cost in nano-dollars by the plainest arithmetic there is."""
    said = {"input": price.input, "output": price.output, "cached": price.cached_input, "written": price.cache_write}
    for tier in sorted(price.tiers, key=lambda one: one.above):
        if usage.input_tokens > tier.above:
            changed = {"input": tier.input, "output": tier.output, "cached": tier.cached_input}
            said |= {name: rate for name, rate in changed.items() if rate is not None}
    rate = {name: Fraction(str(said["input"] if value is None else value)) for name, value in said.items()}
    fresh = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
    units = fresh * rate["input"] + usage.cached_tokens * rate["cached"] + usage.cache_write_tokens * rate["written"]
    return 1000 * (units + usage.output_tokens * rate["output"])


def test_a_cost_is_dollars_per_million_tokens():
    """1,000 tokens of prompt, 800 of them cached, and 200 of answer."""
    usage = Usage(input_tokens=1000, cached_tokens=800, output_tokens=200)

    assert Decimal("0.00047") == cost(usage, PRICE)


def test_reasoning_is_part_of_the_answer():
    """It is not paid for twice."""
    usage = Usage(input_tokens=10, output_tokens=200)

    assert nano_cost(usage, PRICE) == nano_cost(replace(usage, reasoning_tokens=150), PRICE)


def test_cached_and_written_tokens_cost_as_fresh_ones_unless_said():
    """A price with two numbers is complete."""
    usage = Usage(input_tokens=10, cached_tokens=4, cache_write_tokens=3, output_tokens=0)

    assert 10_000 == nano_cost(usage, Price(input=1, output=1))


@pytest.mark.parametrize(("prompt", "expected"), [(200_000, 250_000_000), (200_001, 500_002_500)])
def test_a_long_prompt_costs_more_for_every_token(prompt, expected):
    """The dearer rate is for the whole prompt, not for what is above the limit."""
    assert expected == nano_cost(Usage(input_tokens=prompt, output_tokens=0), LONG)


def test_what_a_tier_does_not_say_stays_as_it_was():
    """The tier of this price has no rate of its own for what is written to the cache."""
    usage = Usage(input_tokens=200_002, cached_tokens=0, cache_write_tokens=200_002, output_tokens=0)

    assert 312_503_125 == nano_cost(usage, LONG)


@given(usages(), prices)
def test_a_cost_is_exact(usage, price):
    """No float takes part: the cost is the exact one, rounded to the nearest nano-dollar."""
    found = nano_cost(usage, price)

    assert found is not None
    assert abs(found - exact(usage, price)) <= Fraction(1, 2)


@given(usages(), prices, st.integers(0, 500), st.integers(0, 500))
def test_b1_nothing_costs_more_than_the_worst_case(usage, price, more_prompt, more_answer):
    """B1: whatever a provider reports, within the counts that were reserved for, and in every tier up to there."""
    worst = worst_case_nano(usage.input_tokens + more_prompt, usage.output_tokens + more_answer, price)

    assert nano_cost(usage, price) <= worst


def test_the_worst_case_is_reached():
    """It is no more than what a prompt that is all written to the cache costs."""
    usage = Usage(input_tokens=100, cache_write_tokens=100, output_tokens=50)

    assert nano_cost(usage, LONG) == worst_case_nano(100, 50, LONG)


def test_the_worst_case_rounds_up():
    """Half a nano-dollar that is not reserved could be spent."""
    assert 1 == worst_case_nano(1, 0, Price(input=0.0001, output=0))


def test_b4_a_million_charges_do_not_drift():
    """B4: the sum of a million charges of 0.1 dollars per million tokens is a million times one of them."""
    price = Price(input=0.1, output=0.3)
    usage = Usage(input_tokens=3, output_tokens=1)

    total = sum(nano_cost(usage, price) for _ in range(1_000_000))

    assert Decimal("0.6") == dollars(total)


JUNK = [
    Usage(),
    Usage(input_tokens=10),
    Usage(output_tokens=10),
    Usage(input_tokens=-10, output_tokens=10),
    Usage(input_tokens=10, output_tokens=-10),
    Usage(input_tokens=10, output_tokens=10, cached_tokens=11),
    Usage(input_tokens=10, output_tokens=10, cached_tokens=-1),
    Usage(input_tokens=10, output_tokens=10, cached_tokens=6, cache_write_tokens=6),
    Usage(input_tokens=10, output_tokens=10, cache_write_tokens=-5),
    Usage(input_tokens=10.0, output_tokens=10),
    Usage(input_tokens="10", output_tokens="10"),
    Usage(input_tokens=True, output_tokens=True),
    Usage(input_tokens=float("nan"), output_tokens=1),
]


@pytest.mark.parametrize("usage", [None, *JUNK])
def test_v6_junk_has_no_cost(usage):
    """V6: what cannot be is unknown; a negative cost would be a refund."""
    assert cost(usage, PRICE) is None


def test_without_a_price_a_cost_is_unknown():
    """Unknown is not free."""
    assert cost(Usage(input_tokens=1, output_tokens=1), None) is None


@pytest.mark.parametrize("rate", [-1, float("nan"), float("inf"), True, "0.25", None])
@pytest.mark.parametrize("name", ["input", "output"])
def test_a_rate_is_a_number_that_can_be(name, rate):
    """A wrong rate is refused where it is written."""
    with pytest.raises(DefinitionError, match=f"Price: {name} is"):
        Price(**{"input": 1, "output": 1, name: rate})


@pytest.mark.parametrize("rate", [-1, float("nan"), True, "0.25"])
@pytest.mark.parametrize("name", ["cached_input", "cache_write"])
def test_a_further_rate_is_a_number_that_can_be(name, rate):
    """Also in a tier."""
    with pytest.raises(DefinitionError, match=f"Price: {name} is"):
        Price(input=1, output=1, **{name: rate})
    with pytest.raises(DefinitionError, match=f"Tier: {name} is"):
        Tier(above=1, **{name: rate})


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "many"])
def test_a_limit_is_a_number_of_tokens(limit):
    """So is where a tier begins."""
    with pytest.raises(DefinitionError, match="max_output is"):
        Price(input=1, output=1, max_output=limit)
    with pytest.raises(DefinitionError, match="context_window is"):
        Price(input=1, output=1, context_window=limit)
    with pytest.raises(DefinitionError, match="above is"):
        Tier(above=limit)


@pytest.mark.parametrize("wrong", [[Tier(above=1)], ({"above": 1},), Tier(above=1)])
def test_tiers_are_a_tuple_of_tiers(wrong):
    """A price can be a key of a dictionary, so nothing in it may change."""
    with pytest.raises(DefinitionError, match="expected a tuple of Tier"):
        Price(input=1, output=1, tiers=wrong)


def test_two_tiers_cannot_begin_at_one_place():
    """It could not be told which of them holds."""
    with pytest.raises(DefinitionError, match="two tiers begin above"):
        Price(input=1, output=1, tiers=(Tier(above=5, input=2), Tier(above=5, input=3)))


def test_a_price_is_a_value():
    """Equal ones are equal, can be keys, and survive a pickle."""
    same = Price(input=0.25, output=2.0, cached_input=0.025)

    assert {PRICE: 1} == {same: 1}
    assert "Price(input=0.25, output=2.0, cached_input=0.025" == repr(PRICE)[:48]
    assert 470_000 == nano_cost(
        Usage(input_tokens=1000, cached_tokens=800, output_tokens=200), pickle.loads(pickle.dumps(PRICE))
    )


def test_the_caller_s_decimal_context_changes_nothing():
    """A program that computes with three digits is still charged exactly."""
    usage = Usage(input_tokens=123_456, output_tokens=0)
    with localcontext(Context(prec=3)):
        found = cost(usage, Price(input=1.23457, output=0))
        again = nanos(found)

    assert (Decimal("0.152415074"), 152_415_074) == (found, again)


@given(st.integers(0, 10**40))
def test_dollars_and_nano_dollars_are_the_same_money(nano):
    """Going there and back loses nothing."""
    assert nano == nanos(dollars(nano))


@pytest.mark.parametrize(
    ("usd", "said"),
    [
        ("0", "$0.00"),
        ("1234.5", "$1,234.50"),
        ("1", "$1.00"),
        ("0.0312", "$0.0312"),
        ("0.001", "$0.0010"),
        ("0.000123456", "$0.00012"),
        ("1e-9", "$0.0000000010"),
    ],
)
def test_money_in_words(usd, said):
    """Very little is never shown as nothing."""
    assert said == money(Decimal(usd))
