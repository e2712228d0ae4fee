"""Putting the messages of one ask together."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from llmflow.errors import DefinitionError
from llmflow.messages import Message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmflow.prompts._prompt import Prompt
    from llmflow.prompts._template import Template

__all__ = ["render"]


def render(
    prompt: Prompt,
    *,
    step: str,
    inputs: Mapping[str, object],
    template: Template | None = None,
    system: Template | None = None,
    examples: tuple[Message, ...] = (),
) -> tuple[Message, ...]:
    """Return the messages to send: system, examples, the prompt's own turns, the final user turn with the files.

    System turns that open `prompt.messages` stay in front of the examples. Lone surrogates, which no request can
    carry, become `?`.

    Args:
        prompt: What the body returned.
        step: Name of the step, for messages.
        inputs: The arguments of the call, for the templates.
        template: The docstring, used when the prompt has no text.
        system: The step's system text, used when the prompt has none of its own.
        examples: Few-shot turns, user and assistant in turn.

    Raises:
        DefinitionError: When there is nothing to ask, or a template cannot be rendered.
    """
    text = prompt.text
    if text is None:
        text = _text_of(prompt, template, inputs, step)
    turns = tuple(map(_clean, prompt.messages)) if prompt.messages else ()
    system_text = prompt.system
    if system_text is None and system is not None:
        system_text = system.render(inputs)
    messages: list[Message] = [Message("system", _encodable(system_text))] if system_text else []
    if turns and examples:
        leading = next((n for n, turn in enumerate(turns) if turn.role != "system"), len(turns))
        messages += turns[:leading]
        turns = turns[leading:]
    messages += examples
    messages += turns
    if text is None:
        return _with_files(messages, prompt, step)
    messages.append(Message("user", _encodable(text), prompt.files))
    return tuple(messages)


def _text_of(prompt: Prompt, template: Template | None, inputs: Mapping[str, object], step: str) -> str | None:
    """Return the docstring's text, None when the prompt's own turns are the whole conversation."""
    if prompt.messages and (template is None or template.is_documentation):
        return None
    if template is None:
        msg = f"step {step!r} has nothing to ask: prompt() has no text, the step no docstring and no file '{step}.md'"
        error = DefinitionError(msg)
        error.add_note("Prompt files lie in the folder that Runtime(prompts=...) or `prompts` in [tool.llmflow] names.")
        raise error
    return template.render(inputs)


def _with_files(messages: list[Message], prompt: Prompt, step: str) -> tuple[Message, ...]:
    """Give the files to the last turn, which has to be the user's."""
    if prompt.files:
        if messages[-1].role != "user":
            msg = f"step {step!r}: files go with a user turn, but the last of `messages` is {messages[-1].role!r}"
            raise DefinitionError(msg)
        messages[-1] = dataclasses.replace(messages[-1], files=messages[-1].files + prompt.files)
    return tuple(messages)


def _clean(turn: Message) -> Message:
    content = _encodable(turn.content)
    return turn if content is turn.content else dataclasses.replace(turn, content=content)


def _encodable(text: str) -> str:
    """Return `text` as it is, in the rare case of lone surrogates with `?` in their place."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text
