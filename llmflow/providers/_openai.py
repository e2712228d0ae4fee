"""OpenAI, and every service that speaks its chat completions API."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from llmflow.providers._keys import check_address, connection_identity, find_key
from llmflow.providers._openai_body import param_names, wire_messages
from llmflow.providers._openai_errors import translate
from llmflow.providers._openai_reply import read_completion
from llmflow.providers._openai_stream import CompletionStream
from llmflow.providers._params import ParamNames
from llmflow.providers._route import Api, Connections, Route, plain_options
from llmflow.providers._structured import structured
from llmflow.providers._wire import Sdk

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmflow.messages import OutputFormat, Request
    from llmflow.models import Model
    from llmflow.ports import Send
    from llmflow.providers._loops import PerLoop
    from llmflow.providers._structured import Structured
    from llmflow.providers._wire import Wire

__all__ = ["API", "BodyBuilder", "OpenAIProvider", "openai_route"]

_OFFICIAL = "https://api.openai.com/v1"
_KEY_VARIABLE = "OPENAI_API_KEY"
_AROUND = ("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID")


class OpenAIProvider:
    """Reaches the models called `openai/...`, at OpenAI or at any `base_url` that speaks the same API.

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
        address = model.base_url or os.environ.get("OPENAI_BASE_URL") or _OFFICIAL

        def wires() -> tuple[PerLoop[Wire], str]:
            key = find_key(model, _KEY_VARIABLE)
            return self._connections.to(API.sdk, model.base_url, key), key

        return openai_route(model, output, address, wires, self._wall_clock).send

    def identity(self, model: Model, /) -> str:
        """Return what tells a model's connection from others in a cache."""
        return connection_identity(model, (_KEY_VARIABLE,), _AROUND)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._connections.aclose()


def openai_route(
    model: Model,
    output: OutputFormat,
    address: str,
    wires: Callable[[], tuple[PerLoop[Wire], str]],
    wall_clock: Callable[[], float],
    *,
    dialect: str = "openai",
    mode: str | None = None,
) -> Route:
    """Return the route for one step and model; `dialect` and `mode` are those of an instructor client, if any."""
    mode = mode or str(model.options.get("mode", "tools"))
    form = None if output.is_text else structured(output, dialect, mode)
    return Route(API, model, BodyBuilder(model, address, form), form, wires=wires, wall_clock=wall_clock)


class BodyBuilder:
    """Builds the bodies of one step and model; what is constant in them is built once."""

    def __init__(self, model: Model, address: str, form: Structured | None) -> None:
        self._form = form
        self._constant = {"model": model.model, **({} if form is None else form.part), **plain_options(model)}
        self._params = ParamNames(model.name, param_names(model, address))

    def __call__(self, request: Request) -> dict[str, Any]:
        """Return the body of one request."""
        return {
            **self._constant,
            "messages": wire_messages(request.messages, request.turns, self._form),
            **self._params.translate(request.params),
        }


def _native(data: dict[str, Any]) -> Any:
    from openai.types.chat import ChatCompletion

    return ChatCompletion.construct(**data)


API = Api(
    sdk=Sdk("openai", "AsyncOpenAI", "/chat/completions"),
    translate=translate,
    read=read_completion,
    native=_native,
    request_id="x-request-id",
    stream=CompletionStream,
    stream_part={"stream_options": {"include_usage": True}},
)
