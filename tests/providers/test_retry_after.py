"""What a provider asks to wait is read exactly, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmflow.providers._retry_after import retry_after

NOW = 1735689600.0  # 2025-01-01T00:00:00Z


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "junk", "retry-after": "2"}, 2.0),
        ({"retry-after": "Wed, 01 Jan 2025 01:00:00 GMT"}, 3600.0),
        ({"retry-after": "Wed, 01 Jan 2025 00:00:10 -0000"}, 10.0),
        ({"retry-after": "Tue, 31 Dec 2024 23:59:59 GMT"}, None),
        ({"retry-after": "Wed, 01 Jan 99999 00:00:00 GMT"}, None),
    ],
)
def test_values(headers, seconds):
    """Seconds, milliseconds and dates."""
    assert seconds == retry_after(headers, NOW)


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "-1", "1e400", "1_000", "", "a while", "9" * 400, "0x10"])
def test_nonsense_is_ignored(value):
    """Then the caller's own backoff applies."""
    assert retry_after({"retry-after": value, "retry-after-ms": value}, NOW) is None


@given(st.text(), st.text())
def test_any_value_is_none_or_a_wait(seconds, milliseconds):
    """No header makes this fail, or a wait negative."""
    wait = retry_after({"retry-after": seconds, "retry-after-ms": milliseconds}, NOW)

    assert wait is None or 0 <= wait < 10**12
