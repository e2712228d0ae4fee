"""Anthropic's messages API."""

from __future__ import annotations

import base64
import importlib.util
import time
from typing import TYPE_CHECKING, Any, cast

from llmflow.errors import DefinitionError
from llmflow.messages import File, FinishReason, Message, Reply
from llmflow.models import DEFAULT_MAX_TOKENS
from llmflow.providers._anthropic_errors import translate
from llmflow.providers._anthropic_stream import MessageStream
from llmflow.providers._json import encodable, encode_json, mappings_in
from llmflow.providers._keys import check_address, connection_identity, find_key
from llmflow.providers._params import ParamNames
from llmflow.providers._route import Api, Connections, Route, plain_options
from llmflow.providers._structured import structured
from llmflow.providers._usage import anthropic_usage
from llmflow.providers._wire import Sdk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmflow.messages import OutputFormat, Request
    from llmflow.models import Model
    from llmflow.ports import Send
    from llmflow.providers._loops import PerLoop
    from llmflow.providers._structured import Structured
    from llmflow.providers._wire import Wire

__all__ = ["API", "AnthropicProvider", "anthropic_route"]

_KEY_VARIABLE = "ANTHROPIC_API_KEY"
_AROUND = ("ANTHROPIC_BASE_URL",)
_NAMES = {"max_tokens": "max_tokens", "temperature": "temperature", "top_p": "top_p", "stop": "stop_sequences"}
_REASONS: dict[object, FinishReason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}


class AnthropicProvider:
    """Reaches the models called `anthropic/...`.

    Args:
        wall_clock: Seconds since the epoch, to read a `Retry-After` that is a date.
    """

    def __init__(self, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._connections = Connections()

    def connect(self, model: Model, output: OutputFormat, /) -> Send:
        """Return the function that sends the requests of one step to one model."""
        if model.client is not None:
            from llmflow.providers._clients import connect_client

            return connect_client(model, output, self._wall_clock)
        check_address(model)
        if importlib.util.find_spec("anthropic") is None:
            msg = f"model {model.name!r} needs the anthropic package; pip install 'llmflow[anthropic]'"
            raise DefinitionError(msg)

        def wires() -> tuple[PerLoop[Wire], str]:
            key = find_key(model, _KEY_VARIABLE)
            return self._connections.to(API.sdk, _without_version(model.base_url), key), key

        return anthropic_route(model, output, wires, self._wall_clock).send

    def identity(self, model: Model, /) -> str:
        """Return what tells a model's connection from others in a cache."""
        return connection_identity(model, (_KEY_VARIABLE,), _AROUND)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._connections.aclose()


def anthropic_route(
    model: Model,
    output: OutputFormat,
    wires: Callable[[], tuple[PerLoop[Wire], str]],
    wall_clock: Callable[[], float],
    *,
    mode: str | None = None,
) -> Route:
    """Return the route for one step and model; `mode` is that of an instructor client, if any."""
    mode = mode or str(model.options.get("mode", "tools"))
    form = None if output.is_text else structured(output, "anthropic", mode)
    return Route(API, model, _BodyBuilder(model, form), form, wires=wires, wall_clock=wall_clock)


class _BodyBuilder:
    def __init__(self, model: Model, form: Structured | None) -> None:
        self._form = form
        part = {} if form is None else form.part
        self._constant = {"model": model.model, "max_tokens": DEFAULT_MAX_TOKENS, **part, **plain_options(model)}
        self._params = ParamNames(model.name, _NAMES)

    def __call__(self, request: Request) -> dict[str, Any]:
        params = self._params.translate(request.params)
        if isinstance(params.get("stop_sequences"), str):
            params["stop_sequences"] = [params["stop_sequences"]]
        system = [encodable(message.content) for message in request.messages if message.role == "system"]
        messages = [_wire_message(message) for message in request.messages if message.role != "system"]
        if self._form is not None:
            messages += self._form.closing
            system += [self._form.system] if self._form.system else []
        messages += [_turn(turn) for turn in request.turns]
        body = {**self._constant, "messages": messages, **params}
        if system:
            body["system"] = "\n\n".join(system)
        return body


def _turn(turn: object) -> dict[str, Any]:
    if isinstance(turn, Message):
        return _wire_message(turn)
    if isinstance(turn, dict):
        return cast(dict[str, Any], turn)
    msg = f"a turn is {type(turn).__name__}, expected a Message or a message of the Anthropic API"
    raise DefinitionError(msg)


def _wire_message(message: Message) -> dict[str, Any]:
    # A system message can only be a turn here: the API has no such role among its messages.
    role = "user" if message.role == "system" else message.role
    text = encodable(message.content)
    if not message.files:
        return {"role": role, "content": text}
    return {"role": role, "content": [*map(_file_block, message.files), {"type": "text", "text": text}]}


def _file_block(file: File) -> dict[str, Any]:
    if file.media_type.startswith("image/"):
        return {"type": "image", "source": _source(file)}
    if file.media_type == "application/pdf":
        return {"type": "document", "source": _source(file)}
    msg = f"the Anthropic API takes no file of type {file.media_type!r}"
    raise DefinitionError(msg)


def _source(file: File) -> dict[str, Any]:
    if file.data is None:
        return {"type": "url", "url": file.url}
    return {"type": "base64", "media_type": file.media_type, "data": base64.b64encode(file.data).decode()}


def _without_version(base_url: str | None) -> str | None:
    """Return the address as the SDK wants it: it adds `/v1` itself, and people copy addresses that have it."""
    return None if base_url is None else base_url.removesuffix("/v1")


def _read(data: dict[str, Any], request_id: str | None, reask: Callable[[str], Sequence[object]] | None) -> Reply:
    text, reason, model = _text_of(mappings_in(data.get("content"))), data.get("stop_reason"), data.get("model")
    return Reply(
        text=None if text is None else encodable(text),
        usage=anthropic_usage(data.get("usage")),
        finish_reason=_REASONS.get(reason, "stop") if isinstance(reason, str) else "stop",
        model=model if isinstance(model, str) else None,
        request_id=request_id,
        reask=reask,
        raw=data,
    )


def _text_of(blocks: list[dict[str, Any]]) -> str | None:
    """Return the first tool call's arguments, else the text; the schema decides whether it fits."""
    for block in blocks:
        if block.get("type") == "tool_use":
            return encode_json(block.get("input"))
    texts = [block["text"] for block in blocks if isinstance(block.get("text"), str)]
    return "".join(texts) if texts else None


def _native(data: dict[str, Any]) -> Any:
    from anthropic.types import Message as NativeMessage

    return NativeMessage.construct(**data)


API = Api(
    sdk=Sdk("anthropic", "AsyncAnthropic", "/v1/messages"),
    translate=translate,
    read=_read,
    native=_native,
    request_id="request-id",
    stream=MessageStream,
    stream_part={},
)
