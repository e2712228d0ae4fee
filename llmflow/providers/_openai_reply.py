"""Reads chat completions, also from services that only resemble OpenAI's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from llmflow.messages import FinishReason, Reply
from llmflow.providers._json import as_list, as_mapping, encodable, encode_json, mappings_in
from llmflow.providers._usage import openai_usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["read_completion"]

_REASONS: dict[object, FinishReason] = {"length": "length", "content_filter": "content_filter", "refusal": "refusal"}


def read_completion(
    data: dict[str, Any], request_id: str | None, reask: Callable[[str], Sequence[object]] | None
) -> Reply:
    """Return the reply in a completion; whatever is missing in it makes no error here but a reply without text."""
    choice = _first(data.get("choices"))
    message = as_mapping(choice.get("message"))
    finish = _REASONS.get(_hashable(choice.get("finish_reason")), "stop")
    refusal = message.get("refusal")
    text = _text_of(message)
    if isinstance(refusal, str) and refusal:
        text, finish = refusal, "refusal"
    model = data.get("model")
    return Reply(
        text=None if text is None else encodable(text),
        usage=openai_usage(data.get("usage")),
        finish_reason=finish,
        model=model if isinstance(model, str) else None,
        request_id=request_id,
        reask=reask,
        raw=data,
    )


def _text_of(message: dict[str, Any]) -> str | None:
    """Return the first tool call's arguments, else the content.

    Services that do not honour a forced tool answer in the content, and some name a tool that was not offered. Both may
    well fit the schema, which decides.
    """
    call = as_mapping(_first(message.get("tool_calls")).get("function")) or as_mapping(message.get("function_call"))
    arguments = call.get("arguments")
    if isinstance(arguments, str):
        return arguments
    if arguments is not None:  # some services send the object itself
        return encode_json(arguments)
    content = message.get("content")
    if isinstance(content, list):
        texts = [part["text"] for part in mappings_in(cast(object, content)) if isinstance(part.get("text"), str)]
        return "".join(texts) if texts else None
    return content if isinstance(content, str) else None


def _first(items: object) -> dict[str, Any]:
    return as_mapping(next(iter(as_list(items)), None))


def _hashable(value: object) -> object:
    return value if isinstance(value, str) else None
