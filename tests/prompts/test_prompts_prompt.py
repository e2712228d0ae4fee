"""prompt(...): what a body may ask, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from llmflow.errors import DefinitionError
from llmflow.messages import File, Message
from llmflow.prompts import Prompt, prompt


def test_a_prompt_is_what_was_given() -> None:
    """At run time it is a frozen record."""
    made: Prompt = prompt("Hello", system="Be kind", context={"a": 1})

    assert Prompt("Hello", "Be kind", (), (), {"a": 1}) == made
    with pytest.raises(AttributeError):
        made.text = "changed"  # type: ignore[misc]


def test_messages_come_in_three_forms() -> None:
    """`Message`, mapping or pair."""
    made: Prompt = prompt(messages=[Message("user", "a"), {"role": "assistant", "content": "b"}, ("user", "c")])

    assert (Message("user", "a"), Message("assistant", "b"), Message("user", "c")) == made.messages


def test_a_message_may_carry_files() -> None:
    """A mapping with `files` does."""
    picture = File(media_type="image/png", url="https://example.com/a.png")
    made: Prompt = prompt(messages=[{"role": "user", "content": "a", "files": [picture]}])

    assert (Message("user", "a", (picture,)),) == made.messages


@pytest.mark.parametrize(
    ("text", "keywords", "complaint"),
    [
        (123, {}, r"prompt\(...\) takes a str, got int"),
        (["a"], {}, r"prompt\(...\) takes a str, got list"),
        ("a", {"system": 1}, r"prompt\(system=...\) takes a str, got int"),
        ("a", {"messages": "hello"}, "takes a list of messages, got str"),
        ("a", {"messages": {"role": "user", "content": "a"}}, "takes a list of messages, got dict"),
        ("a", {"messages": 3}, "takes a list of messages, got int"),
        ("a", {"messages": [3]}, "message 0 is int, expected Message"),
        ("a", {"messages": [("user", "a", "b")]}, "message 0 is tuple, expected Message"),
        ("a", {"messages": [("user", "a"), ("tool", "b")]}, "message 1 has the role 'tool', expected system"),
        ("a", {"messages": [{"content": "a"}]}, "message 0 has the role None"),
        ("a", {"messages": [("user", ["part"])]}, "message 0 has list as content, expected str"),
        ("a", {"files": [3]}, "takes paths, https:// addresses, bytes and File, got int"),
    ],
)
def test_misuse_is_said_at_once(text: Any, keywords: dict[str, Any], complaint: str) -> None:
    """Before any request, with what was expected."""
    with pytest.raises(DefinitionError, match=complaint):
        prompt(text, **keywords)
