"""Options of policies: durations and counts, refused where they are written."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmflow import DefinitionError, Off, Retry, Timeout
from llmflow.policy import check_count, check_seconds, seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("1h 30m", 5400),
        ("0s", 0),
    ],
)
def test_durations_may_be_text(text, expected):
    """Numbers with units, one behind the other."""
    assert expected == seconds(text, name="x")


@pytest.mark.parametrize("text", ["", "5", "m", "5 minutes", "-5s", "5s5", "1h-3m", "5S"])
def test_text_that_is_no_duration_is_refused(text):
    """The message shows the value and how it is written."""
    with pytest.raises(DefinitionError, match="1h30m") as caught:
        seconds(text, name="Timeout: seconds")

    assert repr(text) in str(caught.value)


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=1000)))
def test_law_a_timedelta_is_its_seconds(delta):
    """For every one of them."""
    assert delta.total_seconds() == seconds(delta, name="x")


@given(st.floats(allow_nan=True, allow_infinity=True) | st.integers(-5, 5))
def test_law_checked_seconds_are_positive_and_finite(value):
    """Whatever number is given: a positive, finite duration, or a DefinitionError."""
    try:
        checked = check_seconds(value, name="x")
    except DefinitionError:
        assert not 0 < value < float("inf")
    else:
        assert 0 < checked < float("inf")


@given(st.integers() | st.booleans() | st.floats() | st.text() | st.none())
def test_law_counts_are_whole_numbers(value):
    """Whatever is given: an int that is no bool and not below the minimum, or a DefinitionError."""
    try:
        checked = check_count(value, name="x", minimum=0)
    except DefinitionError:
        assert isinstance(value, bool) or not isinstance(value, int) or value < 0
    else:
        assert checked == value
        assert type(checked) is int


def test_options_are_frozen():
    """A policy that is shared by a hundred steps cannot be changed by one of them."""
    with pytest.raises(AttributeError):
        Retry().attempts = 5


def test_equal_options_are_equal():
    """Options are data."""
    assert (Retry(2), Timeout("1m")) == (Retry(attempts=2), Timeout(60))
    assert hash(Retry(2)) == hash(Retry(2))


def test_off_names_its_class():
    """`Retry.off` is about Retry and shows itself so."""
    assert Off(Retry) == Retry.off
    assert "Retry.off" == repr(Retry.off)
