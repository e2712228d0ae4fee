"""Streamed chat completions: their chunks put together to the completion that would have come unstreamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from llmflow.providers._json import as_list, as_mapping, mappings_in

if TYPE_CHECKING:
    from llmflow.providers._sse import Event

__all__ = ["CompletionStream"]


class CompletionStream:
    """One completion on its way.

    Args:
        body: Of the request: with tools in it, the answer is the arguments of a tool call, else the text.

    Attributes:
        error: What the service said instead of going on, None without.
        done: Whether nothing more comes that counts.
        complete: Whether the answer has come to its end; a stream that just stops has not.
    """

    __slots__ = (
        "_arguments",
        "_content",
        "_data",
        "_finish",
        "_is_call",
        "_legacy",
        "_refusal",
        "_tool",
        "_usage",
        "_wants_call",
        "done",
        "error",
    )

    def __init__(self, body: dict[str, Any]) -> None:
        self._wants_call = bool(body.get("tools") or body.get("functions"))
        self._data: dict[str, Any] = {}
        self._content: list[str] = []
        self._refusal: list[str] = []
        self._arguments: list[str] = []
        self._tool: dict[str, Any] = {}
        self._is_call = self._legacy = False
        self._finish: object = None
        self._usage: object = None
        self.done = False
        self.error: object = None

    @property
    def complete(self) -> bool:
        """Whether the answer has come to its end."""
        return self.done or self._finish is not None

    def take(self, event: Event, data: dict[str, Any]) -> str:
        """Take one event and return the piece of the answer in it, which may be empty."""
        if data.get("error") or event.name == "error":
            self.error = data.get("error") or data
            return ""
        for name in ("id", "model", "system_fingerprint", "service_tier"):
            if (value := data.get(name)) is not None:
                self._data.setdefault(name, value)
        self._usage = (
            data.get("usage") or self._usage
        )  # some send what it is so far in every chunk; the last one counts
        choices = [one for one in mappings_in(data.get("choices")) if one.get("index") in (0, None)]
        choice = choices[0] if choices else dict[str, Any]()
        self._finish = choice.get("finish_reason") or self._finish
        return self._take_delta(as_mapping(choice.get("delta")))

    def _take_delta(self, delta: dict[str, Any]) -> str:
        text = _text_of(delta.get("content"))
        self._content.append(text)
        if isinstance(refusal := delta.get("refusal"), str):
            self._refusal.append(refusal)
        arguments = self._take_call(delta)
        return arguments if self._wants_call else text

    def _take_call(self, delta: dict[str, Any]) -> str:
        """Return the arguments of the first tool call; that is the answer, as in an unstreamed reply."""
        function = as_mapping(delta.get("function_call"))
        if function:
            self._legacy = True
        for call in mappings_in(delta.get("tool_calls")):
            first = self._tool.get("index")
            index = call.get("index")
            if self._is_call and index != first and index is not None:
                continue
            if self._is_call and call.get("id") and self._tool.get("id") and call["id"] != self._tool["id"]:
                continue  # a service that numbers none of its calls
            self._tool = {**{key: value for key, value in call.items() if value is not None}, **self._tool}
            self._is_call = True
            function = as_mapping(call.get("function"))
            break
        if not function:
            return ""
        name = function.get("name")
        if isinstance(name, str) and name:
            self._tool.setdefault("name", name)
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            return ""
        self._arguments.append(arguments)
        return arguments

    def reply(self) -> dict[str, Any]:
        """Return the completion as it would have come in one piece."""
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._content) or None}
        function = {"name": self._tool.get("name", ""), "arguments": "".join(self._arguments)}
        if self._is_call:
            call = {"id": self._tool.get("id", ""), "type": "function", "function": function}
            message["tool_calls"] = [call]
        elif self._legacy:
            message["function_call"] = function
        if self._refusal:
            message["refusal"] = "".join(self._refusal)
        choice = {"index": 0, "message": message, "finish_reason": self._finish}
        data = {**self._data, "object": "chat.completion", "choices": [choice]}
        return data if self._usage is None else {**data, "usage": self._usage}


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    texts = [part.get("text") for part in mappings_in(cast("object", as_list(content)))]
    return "".join(one for one in texts if isinstance(one, str))
