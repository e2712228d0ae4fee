"""What becomes of the engine's chunks, with chunks that the test makes up."""

from __future__ import annotations

from typing import Any

import pytest
from llmflow_local._failures import LocalFailure
from llmflow_local._generation import Collector, Generation


def collected(*chunks: dict[str, Any]) -> Generation:
    collector = Collector(lambda _text: None, lambda: False)
    for chunk in chunks:
        collector.receive(chunk)
    return collector.generation()


TEXT = {"choices": [{"delta": {"content": "{"}}]}


def test_an_answer_the_engine_cannot_parse_is_still_an_answer() -> None:
    """Judging it, and asking again, is the caller's business."""
    error = {"error": {"code": 500, "message": "output that does not match the expected peg-native format"}}

    assert "{" == collected(TEXT, error).text
    with pytest.raises(LocalFailure, match="the engine failed"):
        collected(error)


def test_an_answer_without_an_end_is_a_failure() -> None:
    """It is not taken for a short answer."""
    with pytest.raises(LocalFailure, match="in the middle"):
        collected(TEXT)


def test_an_error_in_a_callback_is_not_lost() -> None:
    """The engine drops what its callback raises."""
    with pytest.raises(AttributeError):
        collected({"choices": [None]})
