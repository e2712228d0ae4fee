"""What is kept of a reply's headers: what says how much of a limit is left, and nothing that says anything else."""

from __future__ import annotations

import pytest

from llmflow.providers._limit_headers import limit_headers


@pytest.mark.parametrize(
    "value",
    ["0", "59", "149.5", "-1", "6m0s", "17ms", "1h2m3.5s", "2026-01-27T12:00:00Z", "2026-01-27T12:00:00+01:00"]
    + ["Wed, 21 Oct 2026 07:28:00 GMT"],
)
def test_numbers_durations_and_moments_are_kept(value):
    """These are the forms that services use."""
    assert {"x-ratelimit-reset-requests": value} == limit_headers({"X-RateLimit-Reset-Requests": value, "server": "a"})


@pytest.mark.parametrize("value", ["sk-test-0123456789abcdefghij", "Bearer abc", "soon", "", "1" * 101, "1\n2"])
def test_s2_what_is_no_measure_is_not_kept(value):
    """S2: headers hang on errors, and a gateway may echo a key in any of them."""
    assert limit_headers({"retry-after": value, "x-ratelimit-remaining-tokens": value}) is None
