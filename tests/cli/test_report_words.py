"""Words of reports: points of time, money that is not known, and strings that are not the terminal's to obey."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmflow.cli._failures import UsageError
from llmflow.cli._moments import day_and_time, moment, window
from llmflow.cli._printable import escaped, printable
from llmflow.cli._runs import parsed
from llmflow.cli._spend import plain_spend, range_of, short, spend_notes
from llmflow.cli._stats import share
from llmflow.stores._report_groups import Window
from llmflow.stores._report_records import Spend

NOON = datetime(2026, 3, 31, 12).timestamp()


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("24h", NOON - 86400),
        ("7d", NOON - 7 * 86400),
        ("1h30m", NOON - 5400),
        ("2026-03-31", NOON - 12 * 3600),
        ("2026-03-31T11:30", NOON - 1800),
        ("2026-03-31T11:30:00+00:00", 1774956600.0),
        ("2026-03-31T11:30:00Z", 1774956600.0),
    ],
)
def test_a_point_of_time(text, point):
    """How long ago, or when; what names no time zone is local."""
    assert Window(since=point) == window(text, None, NOON)
    assert Window(until=point) == window(None, text, NOON)


@pytest.mark.parametrize("text", ["", "x", "5", "-1h", "2026-02-30", "0001-01-01"])
def test_what_is_no_time(text):
    """Named, with what would be one; the first year of all may lie before what a computer counts from."""
    try:
        found = window(text, None, NOON)
    except UsageError as exc:
        assert f"--since {text!r} is no time" == str(exc)
        assert "90m, 24h or 7d" in exc.hints[0]
    else:
        assert "0001-01-01" == text
        assert found.since < 0


@pytest.mark.parametrize(
    ("ago", "said"),
    [
        (0, "0 s ago"),
        (59.4, "59 s ago"),
        (61, "1 min ago"),
        (3 * 3600, "today 09:00"),
        (13 * 3600, "2026-03-30 23:00"),
        (-60, "2026-03-31 12:01"),
    ],
)
def test_when_it_was(ago, said):
    """Relative for today; what seems to come was written by another clock."""
    assert said == moment(NOON - ago, NOON)


def test_a_day_with_its_time_zone():
    """All there is to say."""
    assert day_and_time(NOON).startswith("Tue 2026-03-31 12:00:00 ")


@pytest.mark.parametrize(
    ("spend", "column", "whole"),
    [
        (Spend(), "$0.00", "$0.00"),
        (Spend(known_nano=31_200_000), "$0.0312", "$0.0312"),
        (Spend(known_nano=31_200_000, unpriced=1, unbounded=1), "> $0.0312", "> $0.0312"),
        (Spend(known_nano=31_200_000, unpriced=1, open_nano=3_800_000), "> $0.0312", "$0.0312 to $0.0350"),
        (Spend(known_nano=31_200_000, unpriced=1), "$0.0312", "$0.0312"),
        (Spend(unpriced=1, open_nano=3_800_000), "< $0.0038", "$0.00 to $0.0038"),
        (Spend(known_nano=31_200_000, uncertain=1, open_nano=3_800_000), "> $0.0312", "$0.0312 to $0.0350"),
        (Spend(known_nano=31_200_000, uncertain=1, unbounded=1), "> $0.0312", "> $0.0312"),
        (Spend(unpriced=1, unbounded=1), "unknown", "unknown"),
        (Spend(in_flight=1, open_nano=3_800_000), "< $0.0038", "$0.00 to $0.0038"),
        (Spend(in_flight=1, unbounded=1), "unknown", "unknown"),
        (Spend(known_nano=1, unpriced=2, open_nano=1, unbounded=1), "> $0.0000000010", "> $0.0000000010"),
    ],
)
def test_money_in_words(spend, column, whole):
    """A bound says which way it goes; nothing is said to be known that is not."""
    assert (column, whole) == (short(spend), range_of(spend))


def test_notes_are_about_what_is_not_known():
    """None when all is."""
    assert [] == list(spend_notes(Spend(known_nano=5)))
    assert ["2 requests of unknown cost: nobody knows how much more"] == list(
        spend_notes(Spend(unpriced=2, unbounded=2))
    )
    assert ["1 request cut off when the process died, 1 in flight: at most $1.00 more"] == list(
        spend_notes(Spend(uncertain=1, in_flight=1, open_nano=10**9))
    )
    assert ["2 requests of unknown cost, 1 in flight: 1 of them at most $1.00 more, nobody knows about 2"] == list(
        spend_notes(Spend(unpriced=2, in_flight=1, open_nano=10**9, unbounded=2))
    )


def test_unknown_money_is_null():
    """Zero only where nothing was to be paid."""
    assert (None, None) == tuple(
        plain_spend(Spend(unpriced=1, unbounded=1))[name] for name in ("cost_usd", "cost_most_usd")
    )
    assert ("0", "0") == tuple(plain_spend(Spend())[name] for name in ("cost_usd", "cost_most_usd"))
    assert "0.000000005" == plain_spend(Spend(known_nano=5, unpriced=1))["cost_usd"]


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [(0, 0, "-"), (0, 5, "0 %"), (5, 5, "100 %"), (1, 10**6, "0.1 %"), (10**6 - 1, 10**6, "99.9 %"), (1, 3, "33.3 %")],
)
def test_a_share_is_all_only_when_it_is(part, whole, said):
    """99.99 % valid is not 100 %."""
    assert said == share(part, whole)


def test_json_of_the_journal_may_be_none():
    """Another program may have written it."""
    assert [None, 1, "x"] == [parsed(text) for text in (None, "1", "x")]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 漢", "plain ü 漢"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\r\n\tb", "a\\r\\n\\tb"),
        ("\u202e", "\\u202e"),
        ("\x9b", "\\x9b"),
        ("\ud800", "\\ud800"),
    ],
)
def test_a_text_on_its_way_to_a_terminal(text, shown):
    """What would be obeyed is shown."""
    assert shown == printable(text)


@given(st.text())
def test_json_on_its_way_to_a_terminal_means_the_same(text):
    """And holds nothing that a terminal obeys."""
    document = escaped(json.dumps(text, ensure_ascii=False))

    assert text == json.loads(document)
    assert document.isascii() or not any("\x7f" <= one < "\xa0" for one in document)
