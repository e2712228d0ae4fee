"""Server-sent events, wherever the bytes are cut."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmflow.providers._sse import Event, EventReader


def read(*pieces: bytes) -> list[Event]:
    reader = EventReader()
    return [event for piece in pieces for event in reader.feed(piece)]


@pytest.mark.parametrize(
    ("text", "events"),
    [
        (b"data: a\n\n", [Event("", "a")]),
        (b"data:a\r\n\r\n", [Event("", "a")]),
        (b"data: a\r\rdata: b\r\r\n", [Event("", "a"), Event("", "b")]),
        (b"\xef\xbb\xbfdata: a\n\n", [Event("", "a")]),
        (b"event: ping\ndata: {}\n\n", [Event("ping", "{}")]),
        (b"data: a\ndata: b\n\n", [Event("", "a\nb")]),
        (b"data:  a\n\n", [Event("", " a")]),
        (b"data\n\n", [Event("", "")]),
        (b": keep-alive\n\n", []),
        (b"id: 1\nretry: 2\nnonsense\n\n", []),
        (b"event: lonely\n\ndata: a\n\n", [Event("", "a")]),
        (b"\n\n\n", []),
        (b"data: a", []),
        (b"data: a\n", []),
        ("data: ä€😀\n\n".encode(), [Event("", "ä€😀")]),
        (b"data: \xff\n\n", [Event("", "\ufffd")]),
        ("data: a\u2028b\n\n".encode(), [Event("", "a\u2028b")]),
    ],
)
def test_events_are_those_of_the_standard(text, events):
    """Line ends of all three kinds, comments, several data lines, a byte order mark; unknown fields are skipped."""
    assert events == read(text)
    assert events == read(*(bytes([one]) for one in text))


def test_the_end_of_a_stream_ends_its_last_event():
    """Services leave the last empty line out, and some the last line's end too."""
    reader = EventReader()

    assert [] == reader.feed(b"data: [DONE]")
    assert [Event("", "[DONE]")] == reader.finish()


def test_a_carriage_return_at_the_end_is_a_line_end():
    """What follows it will not come."""
    reader = EventReader()

    assert [] == reader.feed(b"data: a\r")
    assert [Event("", "a")] == reader.finish()


FIELDS = st.sampled_from(["data: a", "data:", "event: x", ": c", "", "data: ä😀", "id: 1", "dat", 'data: {"k": 1}'])
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@settings(max_examples=300, deadline=None)
@given(lines=st.lists(st.tuples(FIELDS, ENDS), max_size=12), cuts=st.lists(st.integers(0, 200), max_size=8))
@example(lines=[("data: a", "\r\n"), ("", "\r\n")], cuts=[8, 10])
def test_cuts_change_nothing(lines, cuts):
    """Cut between CR and LF, inside a line or inside a character, the events are the same."""
    text = "".join(line + end for line, end in lines).encode()
    at = sorted({0, len(text), *(one % (len(text) + 1) for one in cuts)})
    whole, cut = EventReader(), EventReader()

    expected = [*whole.feed(text), *whole.finish()]
    pieces = [text[start:end] for start, end in zip(at, at[1:], strict=False)]

    assert expected == [*(event for piece in pieces for event in cut.feed(piece)), *cut.finish()]


@pytest.mark.parametrize("text", [b"x" * 1000, b"\n" * 1000, b"\r" * 1000, b"data\n" * 200, b"data: x\n" * 125])
def test_s12_reading_is_linear(text):
    """S12: eight times as much of anything takes about eight times as long, not sixty-four times."""
    once, often = _seconds(text, 250), _seconds(text, 2000)

    assert often < 24 * once + 0.05


def _seconds(piece: bytes, times: int) -> float:
    reader = EventReader()
    started = time.process_time()
    for _ in range(times):
        reader.feed(piece)
    reader.finish()
    return time.process_time() - started
