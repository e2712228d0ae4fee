"""Streamed replies in the dialects of OpenAI, Anthropic and Gemini, and everything that goes wrong with them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from llmflow.testing._http_exchange import Exchange, RecordedRequest

__all__ = ["StreamFault", "Streamed", "is_streamed", "streamed", "write_stream"]

StreamFault: TypeAlias = Literal["reset", "end", "error", "stall", "junk", "overlong", "no_usage"]
"""What happens in the middle: a reset connection; a clean end; an error event; silence; an event that is no JSON; an
answer without end; and, harmless to the answer, no word about tokens."""

_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"}
_SIZE = 8
_BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """A streamed reply that is a script."""

    reply: Mapping[str, Any] | None
    text: str
    size: int
    interval: float
    fault: StreamFault | None
    after: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    async def send(self, exchange: Exchange) -> None:
        """Write the events one by one."""
        from llmflow.testing._http_responses import reply_in_dialect  # it knows the dialects, and this module

        body = dict(self.reply) if self.reply is not None else reply_in_dialect(self.text, exchange.request)
        events = list(events_of(body, exchange.request, self.size))
        if self.fault == "no_usage":
            events = [_without_usage(one) for one in events]
        await exchange.write_head(200, {**_HEADERS, **self.headers})
        broken = self.fault is not None and self.fault != "no_usage"
        for event in events[: self.after] if broken else events:
            await _write(exchange, event)
            await asyncio.sleep(self.interval)
        if broken:
            await _break(exchange, self.fault, events[self.after : self.after + 1])
        else:
            await exchange.write(b"0\r\n\r\n")


def streamed(
    text: str = "",
    *,
    reply: Mapping[str, Any] | None = None,
    size: int = _SIZE,
    interval: float = 0.0,
    fault: StreamFault | None = None,
    after: int = 3,
    headers: Mapping[str, str] | None = None,
) -> Streamed:
    """Stream an answer in the dialect of the request, however it was asked for.

    Args:
        text: The answer.
        reply: The provider's own reply object to stream instead, as it would come unstreamed.
        size: Characters of the answer in one event.
        interval: Seconds after each event.
        fault: What goes wrong.
        after: How many events come before that.
        headers: Further reply headers.
    """
    return Streamed(
        reply=reply, text=text, size=size, interval=interval, fault=fault, after=after, headers=headers or {}
    )


def is_streamed(request: RecordedRequest) -> bool:
    """Whether a request asks for a stream."""
    return ":streamGenerateContent" in request.path or bool(request.json.get("stream"))


async def write_stream(exchange: Exchange, reply: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    """Stream a whole reply."""
    await streamed(reply=reply, headers=headers).send(exchange)


async def _write(exchange: Exchange, event: bytes) -> None:
    await exchange.write(b"%x\r\n%s\r\n" % (len(event), event))


async def _break(exchange: Exchange, fault: StreamFault | None, following: list[bytes]) -> None:
    if fault == "reset":
        await asyncio.sleep(0.02)  # a reset at once would overtake the bytes
        exchange.reset()
    elif fault == "end":
        await _write(exchange, b"".join(following)[:20])
        await exchange.write(b"0\r\n\r\n")
    elif fault == "stall":
        await exchange.wait_closed()
    elif fault == "overlong":
        while True:
            await _write(exchange, b": %s\n" % (b"x" * _BLOCK))
    else:
        name = "" if ":stream" in exchange.request.path else "error"  # Gemini does not name its events
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded", "code": 529}}
        await _write(exchange, b"data: {oops\n\n" if fault == "junk" else _event(error, name=name))
        await exchange.write(b"0\r\n\r\n")


# -- a reply as events -------------------------------------------------------------------------------------------------


def events_of(reply: Mapping[str, Any], request: RecordedRequest, size: int) -> Iterator[bytes]:
    """Yield the events that a provider would have streamed instead of this reply."""
    if "candidates" in reply or "promptFeedback" in reply:
        return _gemini_events(reply, size)
    if reply.get("type") == "message":
        return _anthropic_events(reply, size)
    options: Mapping[str, Any] = request.json.get("stream_options") or {}
    return _openai_events(reply, size, with_usage=bool(options.get("include_usage")))


def _event(data: object, *, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def _first(items: Any) -> dict[str, Any]:
    return items[0] if items else {}


def _cut(text: str | None, size: int) -> Iterator[str]:
    return (text[at : at + size] for at in range(0, len(text), size)) if text else iter(())


def _openai_events(reply: Mapping[str, Any], size: int, *, with_usage: bool) -> Iterator[bytes]:
    head = {key: one for key, one in reply.items() if key not in ("choices", "usage")}
    head["object"] = "chat.completion.chunk"
    choice: dict[str, Any] = _first(reply.get("choices"))

    def chunk(delta: Mapping[str, Any], finish: object = None) -> bytes:
        return _event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    yield b": keep-alive\n\n"
    yield chunk({"role": "assistant", "content": ""})
    for delta in _openai_deltas(choice.get("message") or {}, size):
        yield chunk(delta)
    yield chunk({}, choice.get("finish_reason") or "stop")
    if with_usage and reply.get("usage") is not None:
        yield _event({**head, "choices": [], "usage": reply["usage"]})
    yield b"data: [DONE]\n\n"


def _openai_deltas(message: Mapping[str, Any], size: int) -> Iterator[dict[str, Any]]:
    for name in ("reasoning_content", "content", "refusal"):
        for piece in _cut(message.get(name), size):
            yield {name: piece}
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = {"name": call["function"]["name"], "arguments": ""}
        yield {"tool_calls": [{**call, "index": index, "function": function}]}
        for piece in _cut(call["function"]["arguments"], size):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _anthropic_events(reply: Mapping[str, Any], size: int) -> Iterator[bytes]:
    def event(kind: str, **fields: Any) -> bytes:
        return _event({"type": kind, **fields}, name=kind)

    usage: Mapping[str, Any] = reply.get("usage") or {}
    start: dict[str, Any] = {**reply, "content": [], "stop_reason": None, "stop_sequence": None}
    yield event("message_start", message={**start, "usage": {**usage, "output_tokens": 1}} if usage else start)
    yield event("ping")
    for index, block in enumerate(reply.get("content") or ()):
        empty, deltas = _anthropic_deltas(block, size)
        yield event("content_block_start", index=index, content_block=empty)
        for delta in deltas:
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
    ending = {"stop_reason": reply.get("stop_reason"), "stop_sequence": reply.get("stop_sequence")}
    yield event(
        "message_delta", delta=ending, **({"usage": {"output_tokens": usage["output_tokens"]}} if usage else {})
    )
    yield event("message_stop")


def _anthropic_deltas(block: Mapping[str, Any], size: int) -> tuple[dict[str, Any], Iterable[dict[str, Any]]]:
    kind = block.get("type")
    if kind == "tool_use":
        text = json.dumps(block["input"], ensure_ascii=False)
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": one} for one in _cut(text, size)]
    if kind == "thinking":
        pieces = _cut(block.get("thinking"), size)
        return {**block, "thinking": ""}, [{"type": "thinking_delta", "thinking": one} for one in pieces]
    return {**block, "text": ""}, [{"type": "text_delta", "text": one} for one in _cut(block.get("text"), size)]


def _gemini_events(reply: Mapping[str, Any], size: int) -> Iterator[bytes]:
    head = {key: one for key, one in reply.items() if key not in ("candidates", "usageMetadata")}
    usage = {"usageMetadata": reply["usageMetadata"]} if "usageMetadata" in reply else {}
    candidate: dict[str, Any] = _first(reply.get("candidates"))
    content: Mapping[str, Any] = candidate.get("content") or {}
    for part in content.get("parts") or ():
        for piece in [{**part, "text": one} for one in _cut(part["text"], size)] if "text" in part else [part]:
            yield _event({**head, **usage, "candidates": [{"content": {**content, "parts": [piece]}, "index": 0}]})
    last = {**candidate, "content": {"role": "model", "parts": [{"text": ""}]}}
    yield _event({**head, **usage, **({"candidates": [last]} if candidate else {})})


def _without_usage(event: bytes) -> bytes:
    """Return an event with nothing said about tokens."""
    head, found, text = event.decode().partition("data: ")
    if not found or text.startswith("[DONE]"):
        return event
    data: dict[str, Any] = json.loads(text)
    inner: dict[str, Any] = data.get("message") or {}
    for owner in (data, inner):
        owner.pop("usage", None)
        owner.pop("usageMetadata", None)
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
