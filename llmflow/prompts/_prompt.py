"""`prompt(...)`, which the body of a step returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

from llmflow.errors import DefinitionError
from llmflow.messages import File, Message
from llmflow.prompts._files import as_files

__all__ = ["FileLike", "MessageLike", "Prompt", "as_messages", "prompt"]

T = TypeVar("T")

MessageLike: TypeAlias = Message | Mapping[str, Any] | tuple[str, str]
FileLike: TypeAlias = File | str | PathLike[str] | bytes


class Prompt(NamedTuple):
    """What a body asks of the model: the value of `prompt(...)` at run time.

    Attributes:
        text: The final user turn; None takes the docstring's template.
        system: The system text, verbatim, instead of the step's own; None leaves that.
        messages: Turns that come before the final user turn.
        files: Files of the final user turn.
        context: Pydantic's validation context for the answer.
    """

    text: str | None = None
    system: str | None = None
    messages: tuple[Message, ...] = ()
    files: tuple[File, ...] = ()
    context: object | None = None


# T stands in the result alone, on purpose: a checker then takes the call for whatever the step returns.
def prompt(
    text: str | None = None,
    /,
    *,
    system: str | None = None,
    messages: Sequence[MessageLike] | None = None,
    files: Sequence[FileLike] | FileLike = (),
    context: object | None = None,
) -> T:  # type: ignore[type-var]  # pyright: ignore[reportInvalidTypeVarUse]
    """Ask the model; return this from the body of a step.

    Type checkers see the step's own return type, so it stands directly in `return prompt(...)`.

    Args:
        text: What to ask. It is sent as it is, never rendered. Without it, the step's docstring is the template.
        system: The system text, verbatim, instead of the step's own; an empty one leaves it out.
        messages: Turns that come before the text: `Message`, `{"role": ..., "content": ...}` or `(role, content)`.
            With messages and no text, a docstring without Jinja markers is documentation and is not sent.
        files: Images, sounds and PDFs that go with the text: `File`, a path, an `https://` or `data:` address,
            bytes, or an instructor `Image`, `Audio` or `PDF`.
        context: Pydantic's validation context for the answer.

    Raises:
        DefinitionError: For a file or message that is none of these.
    """
    _check_text(text, "prompt(...)")
    _check_text(system, "prompt(system=...)")
    turns = () if messages is None else as_messages(messages)
    return cast("T", Prompt(text, system, turns, as_files(files) if files else (), context))


def _check_text(text: object, what: str) -> None:
    if text is not None and not isinstance(text, str):
        msg = f"{what} takes a str, got {type(text).__name__}"
        raise DefinitionError(msg)


def as_messages(messages: Iterable[MessageLike]) -> tuple[Message, ...]:
    """Return the turns as messages.

    Raises:
        DefinitionError: For an unknown role or content that is not text.
    """
    if not _is_list(messages):
        msg = f"prompt(messages=...) takes a list of messages, got {type(messages).__name__}"
        raise DefinitionError(msg)
    return tuple(_as_message(message, index) for index, message in enumerate(messages))


def _is_list(messages: object) -> bool:
    return isinstance(messages, Iterable) and not isinstance(messages, str | Mapping | Message)


def _as_message(message: object, index: int) -> Message:
    if isinstance(message, Message):
        return message
    role, content, files = _parts(message, index)
    if role not in {"system", "user", "assistant"}:
        msg = f"message {index} has the role {role!r}, expected system, user or assistant"
        raise DefinitionError(msg)
    if not isinstance(content, str):
        msg = f"message {index} has {type(content).__name__} as content, expected str; files go into `files`"
        raise DefinitionError(msg)
    return Message(role, content, as_files(files) if files else ())


def _parts(message: object, index: int) -> tuple[Any, Any, Any]:
    if isinstance(message, Mapping):
        named = cast("Mapping[str, Any]", message)
        return named.get("role"), named.get("content"), named.get("files", ())
    try:
        role, content = cast("tuple[Any, Any]", message)
    except (TypeError, ValueError):
        kind = type(message).__name__
        msg = f"message {index} is {kind}, expected Message, a mapping with role and content, or a pair of them"
        raise DefinitionError(msg) from None
    return role, content, ()
