"""Bands: one total order of everything that stands between a step and its provider."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmflow import Band

ORDER = [
    "OBSERVE",
    "DEADLINE",
    "FALLBACK",
    "CACHE",
    "REPAIR",
    "RETRY",
    "HEDGE",
    "BREAKER",
    "BUDGET",
    "RATE",
    "BULKHEAD",
    "TIMEOUT",
]

bands = st.sampled_from([getattr(Band, name) for name in ORDER])


def test_the_order_is_that_of_the_onions():
    """As DESIGN 3 draws it."""
    assert [getattr(Band, name) for name in ORDER] == sorted(getattr(Band, name) for name in ORDER)


@given(bands, bands)
def test_law_before_and_after_stand_next_to_their_band(band, other):
    """Nothing else comes between a band and the places just outside and inside of it."""
    assert Band.before(band) < band < Band.after(band)
    assert not Band.before(band) < other < Band.after(band) or other == band


@pytest.mark.parametrize("name", ORDER)
def test_the_call_layers_end_with_repair(name):
    """What a policy wraps follows from its band alone."""
    band = getattr(Band, name)

    assert (ORDER.index(name) <= ORDER.index("REPAIR")) == band.wraps_calls
    assert band.wraps_calls == Band.before(band).wraps_calls == Band.after(band).wraps_calls


def test_bands_are_shown_by_name():
    """As `plan` prints them."""
    assert ["Band(RETRY)", "Band(before RETRY)", "Band(after RETRY)"] == [
        repr(band) for band in (Band.RETRY, Band.before(Band.RETRY), Band.after(Band.RETRY))
    ]
