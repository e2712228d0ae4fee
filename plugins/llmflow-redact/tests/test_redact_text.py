"""What is replaced, what is left alone, and how long that takes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmflow_redact._text import redacted, redacted_turn

from llmflow import Message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Write to ann@example.com.", "Write to [EMAIL]."),
        ("<ann.lee+news@mail.example.co.uk>", "<[EMAIL]>"),
        ("a@b.de,c@d.de", "[EMAIL],[EMAIL]"),
        ("müller@exämple.de", "[EMAIL]"),
        ("card 4111 1111 1111 1111, please", "card [CARD], please"),
        ("4111-1111-1111-1111", "[CARD]"),
        ("4111111111111111", "[CARD]"),
        ("3782 822463 10005", "[CARD]"),
        ("call +49 171 1234567", "call [PHONE]"),
        ("call +1 (555) 123-4567 now", "call [PHONE] now"),
        ("0171/1234567", "[PHONE]"),
        ("020 7946 0958", "[PHONE]"),
        ("(555) 123-4567", "[PHONE]"),
        ("555.123.4567", "[PHONE]"),
    ],
)
def test_what_must_not_be_sent_is_replaced(text: str, expected: str) -> None:
    """Each kind of address or number becomes its placeholder, and the text around it stays."""
    assert expected == redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "a @ b and user@host",
        "On 2026-11-23 at 14:05:09, on 01.02.2026 and on 1/2/26",
        "It costs 1,234,567.89 or 1 234 567 in all",
        "version 3.11.7, order 12345678, build 20261123.4",
        "127.0.0.1:8080",
        "0.123456789012",
        "id_4111111111111111 and 41111111111111111111111",
        "{{ name }} 100 % \x1b[0m",
        "",
    ],
)
def test_everything_else_stays(text: str) -> None:
    """Dates, amounts, versions, addresses of machines and identifiers are not taken for something else."""
    assert text == redacted(text)


@given(st.text(alphabet=st.characters(exclude_characters="@", exclude_categories=["Nd"])))
def test_a_text_without_at_signs_and_digits_stays(text: str) -> None:
    """There is nothing to find in it."""
    assert text == redacted(text)


@given(st.text(), st.emails(domains=st.just("example.com")).filter(lambda one: one[0].isalnum()), st.text())
def test_redacting_twice_changes_nothing_more(before: str, address: str, after: str) -> None:
    """A placeholder is no address, so what is redacted at every re-ask stays what it was."""
    once = redacted(f"{before} {address} {after}")

    assert once == redacted(once)


@given(st.from_regex(r"[a-z0-9]{1,20}(\.[a-z0-9]{1,20}){0,3}@[a-z0-9]{1,20}(\.[a-z]{2,10}){1,3}", fullmatch=True))
def test_no_plain_address_is_left(address: str) -> None:
    """Whatever stands around it, an address of the usual form is gone."""
    assert address not in redacted(f"Mail {address}, or <{address}>.")


@pytest.mark.parametrize(
    "piece", ["a", "a.", "a@", "a@a", "@", "+", "1", "1-", "1 ", "(1", "0171", "+1 ", "4111 ", "a@a.", "é", ".-+"]
)
def test_time_grows_with_the_length_and_no_faster(piece: str) -> None:
    """A megabyte of what a pattern almost matches takes the processor seconds at most; backtracking would take hours."""
    text = piece * (1_000_000 // len(piece))
    started = time.thread_time()
    redacted(text)

    assert time.thread_time() - started < 10


def test_a_turn_of_any_form_is_redacted() -> None:
    """Messages, and the dicts that SDKs take, at any depth."""
    turn = {"role": "user", "content": [{"type": "text", "text": "not ann@example.com"}]}

    assert {"role": "user", "content": [{"type": "text", "text": "not [EMAIL]"}]} == redacted_turn(turn)
    assert Message("user", "not [EMAIL]") == redacted_turn(Message("user", "not ann@example.com"))


def test_identifiers_of_a_turn_stay() -> None:
    """The provider gave them and wants to see them again."""
    turn = {"role": "tool", "tool_call_id": "4111111111111111", "content": "4111111111111111", "index": 0}

    assert {**turn, "content": "[CARD]"} == redacted_turn(turn)
