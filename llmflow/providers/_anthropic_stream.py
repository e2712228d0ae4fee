"""Streamed messages of Anthropic: their events put together to the message that would have come unstreamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmflow.providers._json import as_mapping, decode_json

if TYPE_CHECKING:
    from llmflow.providers._sse import Event

__all__ = ["MessageStream"]

_PIECES = {"text_delta": "text", "input_json_delta": "partial_json"}


class MessageStream:
    """One message on its way.

    Args:
        body: Of the request: with tools in it, the answer is the input of a tool call, else the text.

    Attributes:
        error: What the service said instead of going on, None without.
        done: Whether the message has come to its end; a stream that just stops has not.
    """

    __slots__ = ("_answer", "_blocks", "_message", "_pieces", "_wants_call", "done", "error")

    def __init__(self, body: dict[str, Any]) -> None:
        self._wants_call = bool(body.get("tools"))
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._pieces: dict[int, list[str]] = {}
        self._answer: int | None = None
        """Which block is the answer where a tool call is: the first of its kind."""
        self.done = False
        self.error: object = None

    @property
    def complete(self) -> bool:
        """Whether the message has come to its end."""
        return self.done

    def take(self, event: Event, data: dict[str, Any]) -> str:
        """Take one event and return the piece of the answer in it, which may be empty."""
        kind = data.get("type") or event.name
        if kind == "content_block_delta":
            return self._take_piece(data)
        if kind == "message_start":
            self._message = dict(as_mapping(data.get("message")))
        elif kind == "content_block_start" and type(index := data.get("index")) is int:
            return self._start_block(index, dict(as_mapping(data.get("content_block"))))
        elif kind == "message_delta":
            self._finish(data)
        elif kind == "message_stop":
            self.done = True
        elif kind == "error" or data.get("error"):
            self.error = data.get("error") or data
        return ""

    def _start_block(self, index: int, block: dict[str, Any]) -> str:
        text = block.get("text")
        self._blocks[index], self._pieces[index] = block, [text] if isinstance(text, str) else []
        if block.get("type") == "tool_use" and self._answer is None:
            self._answer = index
        return "".join(self._pieces[index]) if not self._wants_call else ""

    def _take_piece(self, data: dict[str, Any]) -> str:
        delta, index = as_mapping(data.get("delta")), data.get("index")
        kind = delta.get("type")
        piece = delta.get(_PIECES.get(kind, "")) if isinstance(kind, str) else None
        if not isinstance(piece, str) or type(index) is not int or index not in self._pieces:
            return ""
        self._pieces[index].append(piece)
        is_answer = index == self._answer if self._wants_call else kind == "text_delta"
        return piece if is_answer else ""

    def _finish(self, data: dict[str, Any]) -> None:
        """Take the end of the message: why it ended, and the tokens, which are totals and not what is new."""
        self._message.update({key: one for key, one in as_mapping(data.get("delta")).items() if one is not None})
        if usage := as_mapping(data.get("usage")):
            known = {key: one for key, one in usage.items() if one is not None}
            self._message["usage"] = {**as_mapping(self._message.get("usage")), **known}

    def reply(self) -> dict[str, Any]:
        """Return the message as it would have come in one piece."""
        return {**self._message, "content": [self._block(index) for index in sorted(self._blocks)]}

    def _block(self, index: int) -> dict[str, Any]:
        block, text = self._blocks[index], "".join(self._pieces[index])
        if block.get("type") == "tool_use":
            return {**block, "input": _input(text) if text else block.get("input", {})}
        return {**block, "text": text} if block.get("type") == "text" else block


def _input(text: str) -> object:
    """Return the object that a tool is called with; what is none is the schema's to refuse."""
    try:
        return decode_json(text.encode("utf-8", "replace"))
    except ValueError:
        return text
