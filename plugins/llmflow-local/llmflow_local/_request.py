"""From llmflow's request to the engine's, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmflow.errors import BadRequest
from llmflow.messages import Message, Reply, Usage
from llmflow_local._failures import LocalFailure
from llmflow_local._schema import portable_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmflow.messages import OutputFormat, Request
    from llmflow_local._generation import Generation

__all__ = ["fixed_body", "reply", "request_body"]

_PARAMETERS = ("max_tokens", "top_p", "stop", "seed")
_FENCE = ("```json", "```")


def fixed_body(output: OutputFormat, *, constrained: bool) -> dict[str, Any]:
    """Return the part of the body that every request of a step shares."""
    body: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,  # chunks while the prompt is read, so that it can be stopped there too
    }
    if constrained and not output.is_text:
        schema = portable_schema(output.json_schema)
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": output.name, "schema": schema}}
    return body


def request_body(fixed: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """Return the whole body."""
    params: Mapping[str, object] = dict(request.params)
    return {
        **fixed,
        "messages": [_turn(message) for message in (*request.messages, *request.turns)],
        "temperature": params.get("temperature", 0),
        **{name: params[name] for name in _PARAMETERS if name in params},
    }


def _turn(message: object) -> dict[str, str]:
    if not isinstance(message, Message):
        msg = f"a turn is {type(message).__name__}, not a Message; it was made for another provider"
        raise LocalFailure(msg, BadRequest)
    if message.files:
        msg = f"it reads text only, the prompt has a file of type {message.files[0].media_type!r}"
        raise LocalFailure(msg, BadRequest)
    return {"role": message.role, "content": message.content}


def reply(generation: Generation, title: str, *, is_json: bool) -> Reply:
    """Return the answer as llmflow's."""
    return Reply(
        text=_unfenced(generation.text) if is_json else generation.text,
        usage=Usage(
            input_tokens=generation.input_tokens,
            output_tokens=generation.output_tokens,
            cached_tokens=generation.cached_tokens,
        ),
        finish_reason=generation.finish_reason,
        model=title,
        request_id=generation.request_id,
    )


def _unfenced(text: str) -> str:
    """Take off the Markdown fence that the engine's grammar allows around a schema's JSON."""
    stripped = text.strip()
    if stripped.startswith(_FENCE[0]) and stripped.endswith(_FENCE[1]):
        return stripped.removeprefix(_FENCE[0]).removesuffix(_FENCE[1]).strip()
    return text
