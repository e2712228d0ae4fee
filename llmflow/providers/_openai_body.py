"""Request bodies of the chat completions API."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from llmflow.errors import DefinitionError
from llmflow.messages import File, Message
from llmflow.providers._json import encodable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmflow.models import Model
    from llmflow.providers._structured import Structured

__all__ = ["data_url", "param_names", "wire_messages"]

_REASONING = re.compile(r"o\d|gpt-5(?!.*chat)")
_REASONING_ELSEWHERE = re.compile(r"gpt-oss|\bo\d|gpt-5|deepseek-r|reason|think|qwen3|magistral|grok", re.IGNORECASE)
_AUDIO = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}


def wire_messages(
    messages: Sequence[Message], turns: Iterable[object], structured: Structured | None
) -> list[dict[str, Any]]:
    """Return the messages of one request: the prompt, what the mode adds to it, and the turns of a repeated ask."""
    wire = [_wire_message(message) for message in messages]
    if structured is not None:
        _add_system(wire, structured.system)
        wire += structured.closing
    for turn in turns:
        wire.append(_wire_message(turn) if isinstance(turn, Message) else _native(turn))
    return wire


def param_names(model: Model, address: str) -> dict[str, str]:
    """Return what the portable parameters are called for this model at this address."""
    names = {"max_tokens": "max_tokens", "seed": "seed"}
    sampling = {"temperature": "temperature", "top_p": "top_p", "stop": "stop"}
    reasoning = {"reasoning": "reasoning_effort"}
    if not _is_openai(address):
        return names | sampling | (reasoning if _REASONING_ELSEWHERE.search(model.model) else {})
    if _REASONING.match(model.model):
        # They refuse the old name, and sampling parameters too.
        return {"max_tokens": "max_completion_tokens", "seed": "seed"} | reasoning
    return names | sampling


def _is_openai(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    return host.endswith((".openai.com", ".openai.azure.com"))


def _add_system(wire: list[dict[str, Any]], instructions: str) -> None:
    """Add to the system message; a second one would be refused by many templates of local models."""
    if not instructions:
        return
    if wire and wire[0]["role"] == "system" and isinstance(wire[0]["content"], str):
        wire[0]["content"] = f"{wire[0]['content']}\n\n{instructions}"
    else:
        wire.insert(0, {"role": "system", "content": instructions})


def _wire_message(message: Message) -> dict[str, Any]:
    text = encodable(message.content)
    if not message.files:
        return {"role": message.role, "content": text}
    parts = [_file_part(file) for file in message.files]
    return {"role": message.role, "content": [{"type": "text", "text": text}, *parts]}


def _native(turn: object) -> dict[str, Any]:
    if isinstance(turn, dict):
        return cast(dict[str, Any], turn)
    msg = f"a turn is {type(turn).__name__}, expected a Message or a message of the chat completions API"
    raise DefinitionError(msg)


def _file_part(file: File) -> dict[str, Any]:
    if file.media_type.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": file.url or data_url(file)}}
    if file.data is not None and (sound := _AUDIO.get(file.media_type)):
        return {"type": "input_audio", "input_audio": {"data": base64.b64encode(file.data).decode(), "format": sound}}
    if file.data is not None and file.media_type == "application/pdf":
        return {"type": "file", "file": {"filename": file.name or "document.pdf", "file_data": data_url(file)}}
    form = "data" if file.data is not None else "url"
    msg = f"the chat completions API takes no file of type {file.media_type!r} given as {form}"
    raise DefinitionError(msg)


def data_url(file: File) -> str:
    """Return the file's content as a `data:` address."""
    return f"data:{file.media_type};base64,{base64.b64encode(file.data or b'').decode()}"
