"""A prompt file is TOML between two lines of `+++`, then the template; each mistake is said with its file and line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmflow import DefinitionError, Wording
from llmflow.wordings import read_wording

FULL = """+++
description = "What support sees first."
system = "You are terse."

[params]
temperature = 0.2
stop = ["END"]
+++

Classify: {{ message }}
"""


def read(text: str) -> Wording:
    """Read a file of this text."""
    return read_wording(text.encode(), "prompts/triage.md")


def test_front_matter_is_taken_apart() -> None:
    """Everything it may say is in the wording."""
    assert read(FULL) == Wording(
        "\nClassify: {{ message }}\n",
        system="You are terse.",
        params={"temperature": 0.2, "stop": ["END"]},
        description="What support sees first.",
        origin="prompts/triage.md",
        line=9,
    )


def test_a_file_without_front_matter_is_the_template() -> None:
    """From its first line on."""
    assert Wording("Hello\n", origin="prompts/triage.md") == read("Hello\n")


def test_empty_front_matter_says_nothing() -> None:
    """Two fences and nothing between them."""
    assert Wording("Hello", origin="prompts/triage.md", line=3) == read("+++\n+++\nHello")


def test_blank_lines_may_stand_before_the_front_matter() -> None:
    """An editor leaves one behind; the fence would be sent to the model."""
    assert "Hello" == read("\n  \n+++\nsystem = 'x'\n+++\nHello").template


def test_a_fence_further_down_is_text() -> None:
    """Only what opens the file opens front matter."""
    assert "Hello\n+++\nthere\n+++\n" == read("Hello\n+++\nthere\n+++\n").template


@pytest.mark.parametrize("ending", ["\r\n", "\r"])
def test_line_ends_of_other_systems_are_normalised(ending: str) -> None:
    """The same prompt is the same text, and has the same version, wherever it was checked out."""
    assert read(FULL) == read(FULL.replace("\n", ending))


def test_a_byte_order_mark_is_no_part_of_the_prompt() -> None:
    """Some editors write one."""
    assert read(FULL) == read("\ufeff" + FULL)


@given(st.text(alphabet=st.characters(exclude_characters="+-\r\ufeff", codec="utf-8"), min_size=1))
def test_what_opens_no_front_matter_is_kept_as_it_is(text: str) -> None:
    """No character of a template is lost."""
    if text.strip():
        assert text == read(text).template


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "---\nsystem: x\n---\nHello",
            "prompts/triage.md opens with '---', the sign of YAML; its front matter is TOML",
        ),
        ("+++\nsystem = 'x'\nHello", "the front matter that line 1 opens is never closed by a line '+++'"),
        ("+++\nsystem = 'x'\ntop = \n+++\nHello", "no TOML: Invalid value (at line 3, column 7)"),
        (
            "+++\nmodel = 'x'\n+++\nHello",
            "unknown key 'model' in its front matter; known are description, params, system",
        ),
        ("+++\nsystem = 7\n+++\nHello", "prompts/triage.md: system is 7, expected a text"),
        ("+++\nparams = 'x'\n+++\nHello", "prompts/triage.md: params is 'x', expected a table"),
        ("+++\nsystem = 'x'\n+++\n \n", "prompts/triage.md has no text, so nothing would be asked"),
        ("", "prompts/triage.md has no text, so nothing would be asked"),
    ],
)
def test_a_mistake_is_said_with_its_file(text: str, message: str) -> None:
    """Whoever reads it knows where to look and what to write."""
    with pytest.raises(DefinitionError) as caught:
        read(text)

    assert message in str(caught.value)
    assert "prompts/triage.md" in str(caught.value)


def test_bytes_that_are_no_utf8_are_refused_with_their_line() -> None:
    """Guessing would change the prompt."""
    with pytest.raises(DefinitionError, match="prompts/triage.md is not UTF-8: line 2 has the byte 0xe9"):
        read_wording(b"one\ncaf\xe9\n", "prompts/triage.md")


@pytest.mark.parametrize(("template", "options"), [(7, {}), ("x", {"system": 7})])
def test_a_wording_of_a_plugin_is_text(template: object, options: dict[str, object]) -> None:
    """A plugin that is not type checked learns it here."""
    with pytest.raises(DefinitionError, match=r"Wording\(...\): its \w+ is int, expected a text"):
        Wording(template, **options)  # type: ignore[arg-type]
