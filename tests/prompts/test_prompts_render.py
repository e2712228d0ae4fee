"""render: the messages of one ask, in order."""

from __future__ import annotations

from typing import Any

import pytest

from llmflow.errors import DefinitionError
from llmflow.messages import File, Message
from llmflow.prompts import Prompt, Template, render

PICTURE = File(media_type="image/png", data=b"p")
SOUND = File(media_type="audio/wav", data=b"s")
EXAMPLES = (Message("user", "example"), Message("assistant", "answer"))


def messages(prompt: Prompt, **keywords: Any) -> tuple[Message, ...]:
    """Render for a step called `ask` with one input."""
    return render(prompt, step="ask", inputs={"name": "Ada"}, **keywords)


def docstring(source: str) -> Template:
    """Make the docstring of a step called `ask`."""
    return Template(source, step="ask")


def test_text_is_one_user_turn() -> None:
    """Braces in it are text."""
    assert (Message("user", "Hi {{ name }}"),) == messages(Prompt("Hi {{ name }}"), template=docstring("unused"))


def test_without_text_the_docstring_is_rendered() -> None:
    """With the inputs of the call."""
    assert (Message("user", "Hi Ada"),) == messages(Prompt(), template=docstring("Hi {{ name }}"))


def test_the_order_is_system_examples_turns_question() -> None:
    """Files go with the question."""
    prompt = Prompt("question", messages=(Message("user", "a"), Message("assistant", "b")), files=(PICTURE,))

    assert (
        Message("system", "You help Ada"),
        *EXAMPLES,
        Message("user", "a"),
        Message("assistant", "b"),
        Message("user", "question", (PICTURE,)),
    ) == messages(prompt, system=docstring("You help {{ name }}"), examples=EXAMPLES)


def test_system_turns_that_open_the_conversation_stay_in_front() -> None:
    """Providers want them before the examples."""
    prompt = Prompt("question", messages=(Message("system", "rules"), Message("user", "a")))

    assert (Message("system", "rules"), *EXAMPLES, Message("user", "a"), Message("user", "question")) == messages(
        prompt, examples=EXAMPLES
    )


def test_only_system_turns_before_the_question() -> None:
    """All of them stay in front."""
    prompt = Prompt("question", messages=(Message("system", "rules"),))

    assert (Message("system", "rules"), *EXAMPLES, Message("user", "question")) == messages(prompt, examples=EXAMPLES)


def test_the_prompts_own_system_text_replaces_the_steps_and_is_literal() -> None:
    """An empty one leaves it out."""
    system = docstring("You help {{ name }}")

    assert Message("system", "{{ name }}") == messages(Prompt("q", system="{{ name }}"), system=system)[0]
    assert (Message("user", "q"),) == messages(Prompt("q", system=""), system=system)


def test_turns_alone_are_the_whole_conversation() -> None:
    """A plain docstring is documentation then."""
    turns = (Message("user", "a"),)

    assert turns == messages(Prompt(messages=turns))
    assert turns == messages(Prompt(messages=turns), template=docstring("Chats."))


def test_turns_are_followed_by_a_docstring_that_is_a_template() -> None:
    """History first, then the question."""
    turns = (Message("user", "a"), Message("assistant", "b"))

    assert (*turns, Message("user", "Hi Ada")) == messages(Prompt(messages=turns), template=docstring("Hi {{ name }}"))


def test_files_without_text_go_with_the_last_user_turn() -> None:
    """Beside those it has."""
    prompt = Prompt(messages=(Message("user", "a", (SOUND,)),), files=(PICTURE,))

    assert (Message("user", "a", (SOUND, PICTURE)),) == messages(prompt)


def test_files_need_a_user_turn() -> None:
    """An assistant cannot send them."""
    prompt = Prompt(messages=(Message("assistant", "a"),), files=(PICTURE,))

    with pytest.raises(DefinitionError, match=r"step 'ask': files go with a user turn, but the last .* 'assistant'"):
        messages(prompt)


def test_nothing_to_ask_is_a_definition_error() -> None:
    """Neither text nor docstring."""
    with pytest.raises(
        DefinitionError, match=r"step 'ask' has nothing to ask: prompt\(\) has no text, the step no docstring"
    ):
        messages(Prompt())


def test_lone_surrogates_are_replaced() -> None:
    """No request could carry them; other characters stay."""
    prompt = Prompt("é\ud800", system="\udfff", messages=(Message("user", "a\ud800"), Message("user", "é")))

    assert ("?", "a?", "é", "é?") == tuple(message.content for message in messages(prompt))
