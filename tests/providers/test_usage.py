"""Token counts are what the provider said, or unknown."""

from __future__ import annotations

import pytest

from llmflow.messages import Usage
from llmflow.providers._usage import count, usage_of


@pytest.mark.parametrize("junk", [None, -1, 1.5, "7", True, [], {}, float("nan"), 10**13])
def test_junk_counts_as_unknown(junk):
    """Nothing but a possible number of tokens is taken."""
    assert count(junk) is None


def test_no_totals_is_no_usage():
    """Without both totals there is nothing to say."""
    assert usage_of(None, "junk", 3, 4) is None


def test_parts_that_exceed_their_total_are_unknown():
    """Otherwise a cost could become negative."""
    assert Usage(input_tokens=5, output_tokens=5) == usage_of(5, 5, 6, 7)
