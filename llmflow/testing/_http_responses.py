"""Replies of a well-behaved provider, in the dialects of OpenAI, Anthropic and Gemini."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from llmflow.testing._http_streams import is_streamed, write_stream

if TYPE_CHECKING:
    from llmflow.testing._http_exchange import Exchange, RecordedRequest

__all__ = [
    "answer",
    "anthropic_answer",
    "gemini_answer",
    "json_reply",
    "openai_answer",
    "raw_reply",
    "reply_in_dialect",
    "status",
]

Usage: TypeAlias = "tuple[int, int] | Mapping[str, Any] | None"
"""Input and output tokens, or the provider's own usage object, or none at all."""
Dialect: TypeAlias = "Callable[[Answer, dict[str, Any]], dict[str, Any]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """A complete reply."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    delay: float = 0.0

    async def send(self, exchange: Exchange) -> None:
        await asyncio.sleep(self.delay)
        await exchange.write_reply(self.status, dict(self.headers), self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer that is worded in the dialect of the request."""

    text: str | None
    usage: Usage
    finish_reason: str
    delay: float
    dialect: Dialect | None
    headers: Mapping[str, str]

    async def send(self, exchange: Exchange) -> None:
        dialect = self.dialect or _dialect_of(exchange.request)
        reply = dialect(self, exchange.request.json)
        await asyncio.sleep(self.delay)
        if is_streamed(exchange.request):
            await write_stream(exchange, reply, self.headers)
            return
        body = json.dumps(reply).encode()
        await exchange.write_reply(200, {"content-type": "application/json", **self.headers}, body)


def answer(
    text: str | None = "",
    *,
    usage: Usage = (10, 5),
    finish_reason: str = "stop",
    delay: float = 0.0,
    headers: Mapping[str, str] | None = None,
    dialect: Dialect | None = None,
) -> Answer:
    """Answer with `text` in the dialect of the request, as a tool call when the request forces a tool.

    A request that asks for a stream gets one.

    Args:
        text: The answer; None for a reply whose content is null.
        usage: `(input, output)` tokens, the provider's own usage object, or None to leave it out.
        finish_reason: `stop`, `length`, `refusal` or `content_filter`, translated to the dialect's own word.
        delay: Seconds before the reply starts.
        headers: Further reply headers.
        dialect: Speak this dialect instead of the one the request's path shows.
    """
    return Answer(
        text=text, usage=usage, finish_reason=finish_reason, delay=delay, dialect=dialect, headers=headers or {}
    )


def openai_answer(text: str | None = "", **options: Any) -> Answer:
    """Answer as an OpenAI chat completion; see `answer`."""
    return answer(text, dialect=_openai, **options)


def anthropic_answer(text: str | None = "", **options: Any) -> Answer:
    """Answer as an Anthropic message; see `answer`."""
    return answer(text, dialect=_anthropic, **options)


def gemini_answer(text: str | None = "", **options: Any) -> Answer:
    """Answer as a Gemini `generateContent` reply; see `answer`."""
    return answer(text, dialect=_gemini, **options)


def json_reply(
    body: object, *, status: int = 200, headers: Mapping[str, str] | None = None, delay: float = 0.0
) -> Plain:
    """Reply with this object as JSON."""
    return raw_reply(json.dumps(body).encode(), status=status, headers=headers, delay=delay)


def raw_reply(
    body: bytes,
    *,
    status: int = 200,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
    delay: float = 0.0,
) -> Plain:
    """Reply with these bytes."""
    return Plain(status=status, headers={"content-type": content_type, **(headers or {})}, body=body, delay=delay)


def status(
    code: int,
    *,
    message: str = "something went wrong",
    error_code: str | None = None,
    error_type: str | None = None,
    headers: Mapping[str, str] | None = None,
    delay: float = 0.0,
) -> Plain:
    """Reply with an error status and a body that all three dialects read."""
    error = {"message": message, "code": error_code, "type": error_type or "error", "param": None}
    return json_reply({"type": "error", "error": error}, status=code, headers=headers, delay=delay)


def reply_in_dialect(text: str, request: RecordedRequest) -> dict[str, Any]:
    """Return the whole reply with this text that the provider behind the request's path would give."""
    return _dialect_of(request)(answer(text), request.json)


def _dialect_of(request: RecordedRequest) -> Dialect:
    path = request.path.partition("?")[0]
    if path.endswith("/messages"):
        return _anthropic
    return _gemini if ":" in path.rpartition("/")[2] else _openai


def _openai(reply: Answer, body: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
    finish = reply.finish_reason
    if finish == "refusal":
        message |= {"content": None, "refusal": reply.text}
        finish = "stop"
    elif (name := _forced_openai_tool(body)) and reply.text is not None:
        function = {"name": name, "arguments": reply.text}
        message |= {"content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}
    completion = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body.get("model", "model"),
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
    }
    return completion | _usage(reply.usage, "usage", ("prompt_tokens", "completion_tokens", "total_tokens"))


def _forced_openai_tool(body: dict[str, Any]) -> str | None:
    choice: Any = body.get("tool_choice")
    if isinstance(choice, dict):
        return str(body["tool_choice"]["function"]["name"])
    return str(body["tools"][0]["function"]["name"]) if choice == "required" else None


def _anthropic(reply: Answer, body: dict[str, Any]) -> dict[str, Any]:
    reasons = {"length": "max_tokens", "refusal": "refusal", "content_filter": "refusal", "stop": "end_turn"}
    stop_reason = reasons.get(reply.finish_reason, reply.finish_reason)
    content: list[dict[str, Any]] = [] if reply.text is None else [{"type": "text", "text": reply.text}]
    choice: dict[str, Any] = body.get("tool_choice") or {}
    if choice.get("type") in ("tool", "any") and reply.text is not None and reply.finish_reason in ("stop", "tool_use"):
        name = choice.get("name") or body["tools"][0]["name"]
        # Anthropic sends the arguments as an object; text that is no object cannot come as a tool call.
        if (arguments := _object_in(reply.text)) is not None:
            content = [{"type": "tool_use", "id": "toolu_1", "name": name, "input": arguments}]
            stop_reason = "tool_use"
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body.get("model", "model"),
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
    }
    return message | _usage(reply.usage, "usage", ("input_tokens", "output_tokens"))


def _gemini(reply: Answer, body: dict[str, Any]) -> dict[str, Any]:
    reasons = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY", "refusal": "SAFETY"}
    parts: list[dict[str, Any]] = [] if reply.text is None else [{"text": reply.text}]
    config: dict[str, Any] = body.get("toolConfig") or {}
    calling: dict[str, Any] = config.get("functionCallingConfig") or {}
    if calling.get("mode") == "ANY" and reply.text is not None and (arguments := _object_in(reply.text)) is not None:
        name = body["tools"][0]["functionDeclarations"][0]["name"]
        parts = [{"functionCall": {"name": name, "args": arguments}}]
    candidate = {
        "content": {"role": "model", "parts": parts},
        "finishReason": reasons.get(reply.finish_reason, reply.finish_reason),
        "index": 0,
    }
    names = ("promptTokenCount", "candidatesTokenCount", "totalTokenCount")
    return {"candidates": [candidate], "modelVersion": "gemini"} | _usage(reply.usage, "usageMetadata", names)


def _object_in(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return cast(dict[str, Any], value) if isinstance(value, dict) else None


def _usage(usage: Usage, field_name: str, names: tuple[str, ...]) -> dict[str, Any]:
    if usage is None:
        return {}
    if isinstance(usage, tuple):
        return {field_name: dict(zip(names, (*usage, sum(usage)), strict=False))}
    return {field_name: dict(usage)}
