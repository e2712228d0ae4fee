"""Variants: every key has one label, for ever and everywhere, and a weight that changes moves only who must move."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmflow import DefinitionError
from llmflow.prompts import Variants, read_variants

KEYS = [f"user-{number}" for number in range(2_000)]
LABELS = ["production", "canary", "third", "fourth", "fifth"]

weights = st.lists(st.integers(0, 1_000) | st.floats(1e-6, 1e9), min_size=1, max_size=5).filter(any)
keys = st.text(max_size=20)


def variants(*given: float, step: str = "triage") -> Variants:
    """Return variants with these weights."""
    return Variants(step, dict(zip(LABELS, given, strict=False)))


@given(given=weights, key=keys)
def test_every_key_has_a_label_with_a_weight(given: list[float], key: str) -> None:
    """A label of weight 0 is asked for nobody."""
    made = variants(*given)

    assert given[made.index(key)] > 0


@given(given=weights, key=keys)
def test_a_key_keeps_its_label(given: list[float], key: str) -> None:
    """Whoever is asked again, in whichever object."""
    assert variants(*given).index(key) == variants(*given).index(key)


@given(given=weights, key=keys, power=st.integers(-20, 20))
def test_only_the_proportion_of_weights_matters(given: list[float], key: str, power: int) -> None:
    """90 and 10 are 0.9 and 0.1."""
    scaled = [weight * 2.0**power for weight in given]

    assert any(scaled)
    assert variants(*given).index(key) == variants(*scaled).index(key)


@given(first=st.integers(0, 100), second=st.integers(0, 100), key=keys)
def test_a_canary_that_grows_takes_and_gives_nothing_back(first: int, second: int, key: str) -> None:
    """With 20 % it has everybody whom it had with 10 %."""
    small, large = sorted((first, second))

    assert variants(100 - small, small).index(key) <= variants(100 - large, large).index(key)


@given(given=st.lists(st.integers(0, 100), min_size=3, max_size=5), moved=st.integers(1, 50), key=keys, at=st.data())
def test_weight_between_neighbours_moves_only_theirs(given: list[int], moved: int, key: str, at: Any) -> None:
    """Who has another label than the two keeps it."""
    place = at.draw(st.integers(0, len(given) - 2))
    before = [weight + 50 for weight in given]
    after = list(before)
    after[place] -= moved
    after[place + 1] += moved
    old, new = variants(*before).index(key), variants(*after).index(key)

    assert old == new or (old, new) == (place, place + 1)


@pytest.mark.parametrize("given", [(9, 1), (1, 1), (0.98, 0.02), (1, 2, 3, 4), (0, 1, 0, 1)])
def test_labels_get_their_share(given: tuple[float, ...]) -> None:
    """Of 2,000 keys, within five standard deviations."""
    made = variants(*given)
    counts = [0] * len(given)
    for key in KEYS:
        counts[made.index(key)] += 1

    for count, share in zip(counts, made.shares.values(), strict=True):
        assert abs(count - share * len(KEYS)) <= 5 * math.sqrt(len(KEYS) * share * (1 - share))


def test_shares_are_parts_of_one() -> None:
    """As plans show them."""
    assert {"production": 0.9, "canary": 0.1} == variants(9, 1).shares


def test_each_step_deals_anew() -> None:
    """Else the same people would get every canary there is."""
    both = sum(variants(1, 1).index(key) == variants(1, 1, step="draft").index(key) for key in KEYS)

    assert 900 < both < 1_100


def test_step_and_key_are_not_mixed_up() -> None:
    """A step `a` with the key `b:c` is not a step `a:b` with the key `c`."""
    hundred = (1,) * 5

    pairs = [
        (variants(*hundred, step="a").index(f"b:{n}"), variants(*hundred, step="a:b").index(f"{n}")) for n in range(99)
    ]

    assert any(one != other for one, other in pairs)


GOLDEN = "0000110100111110111001000000110001110111"


def test_the_assignment_is_the_same_in_every_release() -> None:
    """Users keep the variant they have; this line changes with a decision, never by accident."""
    assert GOLDEN == "".join(str(variants(1, 1).index(key)) for key in KEYS[:40])


def test_the_assignment_is_the_same_in_every_process() -> None:
    """Whatever the seed of `hash` is."""
    program = (
        "from llmflow.prompts import Variants\n"
        "made = Variants('triage', {'a': 1, 'b': 1})\n"
        "print(''.join(str(made.index(f'user-{n}')) for n in range(40)))"
    )
    done = subprocess.run(
        (sys.executable, "-c", program), env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
    )

    assert GOLDEN == done.stdout.strip()


@pytest.mark.parametrize(
    ("given", "main"),
    [
        ({"production": 1, "canary": 1}, "production"),
        ({"canary": 1, "production": 0}, "production"),
        ({"canary": 1}, "canary"),
        ({"a": 1, "b": 1}, None),
    ],
)
def test_the_main_label_is_production_or_the_only_one(given: dict[str, float], main: str | None) -> None:
    """It needs no file of its own."""
    assert main == Variants("triage", given).main


def test_what_was_said_is_read_in_its_order() -> None:
    """The order decides who moves when a weight changes."""
    said = {"triage": {"production": 9, "canary": 1, "sticky": "user"}, "draft": {"short": 0.5, "long": 0.5}}

    assert {
        "triage": Variants("triage", {"production": 9, "canary": 1}, "user"),
        "draft": Variants("draft", {"short": 0.5, "long": 0.5}),
    } == read_variants(said, "here")


@pytest.mark.parametrize("weight", [10**400, 1e308, 5e-324, 1])
def test_any_finite_weight_will_do(weight: float) -> None:
    """Weights are added exactly."""
    assert {"production": 0.5, "canary": 0.5} == variants(weight, weight).shares


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([], "here is [], expected a mapping of steps"),
        ({7: {}}, "here: 7 is no name of steps"),
        ({"triage": 1}, "here: 'triage' is 1, expected a mapping of labels"),
        ({"triage": {}}, "here: 'triage' has no label; write {'production': 9, 'canary': 1}"),
        ({"triage": {"sticky": "user"}}, "here: 'triage' has no label"),
        ({"triage": {"a": 1, "sticky": 7}}, "sticky is 7, expected the name of a tag of llmflow.context(tags=...)"),
        ({"triage": {"a": 1, "sticky": " "}}, "sticky is ' '"),
        ({"triage": {" ": 1}}, "here: 'triage': ' ' is no name of labels"),
        ({"triage": {"a": -1}}, "here: 'triage': the weight of 'a' is -1, expected a number from 0"),
        ({"triage": {"a": math.nan}}, "the weight of 'a' is nan"),
        ({"triage": {"a": math.inf}}, "the weight of 'a' is inf"),
        ({"triage": {"a": True}}, "the weight of 'a' is True"),
        ({"triage": {"a": "1"}}, "the weight of 'a' is '1'"),
        ({"triage": {"a": 0, "b": 0.0}}, "here: 'triage': all weights are 0, so no variant would be asked"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(said: object, message: str) -> None:
    """When the runtime is made, with the step and the value."""
    with pytest.raises(DefinitionError) as caught:
        read_variants(said, "here")

    assert message in str(caught.value)
