"""OpenAI, and every service that speaks its chat completions API."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
import functools
import ipaddress
import os

from llmflow.errors import DefinitionError
from llmflow.providers._errors import Source, unavailable
from llmflow.providers._loops import PerLoop
from llmflow.providers._openai_body import param_names, wire_messages
from llmflow.providers._openai_reply import decode_object, read_completion
from llmflow.providers._params import ParamNames
from llmflow.providers._structured import structured

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmflow.messages import OutputFormat, Reply, Request
    from llmflow.models import Model
    from llmflow.ports import Send
    from llmflow.providers._openai_wire import Wire
    from llmflow.providers._structured import Structured

__all__ = ["OpenAIProvider"]

_OFFICIAL = "https://api.openai.com/v1"
_KEY_VARIABLE = "OPENAI_API_KEY"


class OpenAIProvider:
    """Reaches the models called `openai/...`, at OpenAI or at any `base_url` that speaks the same API.

    Args:
        wall_clock: Seconds since the epoch, to read a `Retry-After` that is a date.
    """

    def __init__(self, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._wires: dict[tuple[str | None, str], PerLoop[Wire]] = {}

    def connect(self, model: Model, output: OutputFormat, /) -> Send:
        """Return the function that sends the requests of one step to one model."""
        if model.client is not None:
            from llmflow.providers._instructor import connect_client

            return connect_client(model, output, self._wall_clock)
        return OpenAIRoute(model, output, functools.partial(self._wire, model), self._wall_clock).send

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        for wires in tuple(self._wires.values()):
            await wires.aclose()

    def _wire(self, model: Model) -> tuple[PerLoop[Wire], str]:
        """Return the connections for this model's address and key, shared by all steps, and the key."""
        from llmflow.providers._openai_wire import open_wire

        key = api_key(model)
        address = (model.base_url, key)
        if address not in self._wires:
            wires = PerLoop(lambda: open_wire(*address), lambda wire: wire.aclose())
            self._wires.setdefault(address, wires)
        return self._wires[address], key


class OpenAIRoute:
    """One step's way to one model: what is constant in its requests is built once."""

    def __init__(
        self,
        model: Model,
        output: OutputFormat,
        wires: Callable[[], tuple[PerLoop[Wire], str]],
        wall_clock: Callable[[], float],
    ) -> None:
        options = dict(model.options)
        mode = options.pop("mode", "tools")
        self._structured: Structured | None = None if output.is_text else structured(output, "openai", str(mode))
        part = {} if self._structured is None else self._structured.part
        self._constant: Mapping[str, Any] = {"model": model.model, **part, **options}
        address = model.base_url or os.environ.get("OPENAI_BASE_URL") or _OFFICIAL
        self._params = ParamNames(model.name, param_names(model, address))
        self._model = model
        self._find_wires = wires
        self._wires: PerLoop[Wire] | None = None
        self._source = Source(provider=model.provider, model=model.name)
        self._wall_clock = wall_clock

    async def send(self, request: Request) -> Reply:
        """Send one request and return the reply, or raise a `ProviderError`."""
        wires = self._wires or self._first_wires()
        body = {
            **self._constant,
            "messages": wire_messages(request.messages, request.turns, self._structured),
            **self._params.translate(request.params),
        }
        try:
            content, headers = await wires.get().post(body)
        except Exception as exc:
            self._raise_translated(exc)
        return self._read(content, headers)

    def _first_wires(self) -> PerLoop[Wire]:
        self._wires, key = self._find_wires()
        self._source = Source(provider=self._model.provider, model=self._model.name, secrets=(key,))
        return self._wires

    def _read(self, content: bytes, headers: Mapping[str, str]) -> Reply:
        try:
            data = decode_object(content)
        except ValueError as exc:
            content_type = headers.get("content-type", "no content type")
            raise unavailable(self._source, f"200 with {content_type!r} is no JSON object", status=200) from exc
        if data.get("error") and not data.get("choices"):
            self._raise_error_in_200(data["error"])
        reask = None if self._structured is None else functools.partial(self._reask, data)
        return read_completion(data, headers.get("x-request-id"), reask)

    def _reask(self, data: dict[str, Any], problem: str) -> Sequence[object]:
        from openai.types.chat import ChatCompletion

        assert self._structured is not None
        # Not validated: the answer of a service that only resembles OpenAI's would not pass.
        return self._structured.reask_turns(ChatCompletion.construct(**data), problem)

    def _raise_error_in_200(self, error: object) -> None:
        import openai

        body = error if isinstance(error, dict) else {"message": str(error)}
        try:
            raise openai.APIError(str(body.get("message")), _no_request(), body=body)
        except openai.APIError as exc:
            self._raise_translated(exc)

    def _raise_translated(self, exc: Exception) -> None:
        import openai

        from llmflow.providers._openai_errors import translate

        if not isinstance(exc, openai.OpenAIError):
            raise exc
        raise translate(exc, self._source, self._wall_clock()) from exc


def api_key(model: Model) -> str:
    """Return the key for a model; a server on this machine gets a placeholder when there is none.

    Raises:
        DefinitionError: When there is no key.
    """
    secret = model.key(_KEY_VARIABLE)
    if secret is not None:
        key = secret.reveal().strip()
        if key.isascii() and key.isprintable() and key:
            return key
        msg = f"model {model.name!r}: the API key is empty or contains characters that no key has"
        raise DefinitionError(msg)
    if model.base_url is not None and _is_loopback(model.base_url):
        return "none"
    msg = f"model {model.name!r} has no API key; set {_KEY_VARIABLE} or pass Model({model.name!r}, api_key=...)"
    raise DefinitionError(msg)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _no_request() -> Any:
    import openai

    from llmflow.providers._http import http_module_of

    return http_module_of(openai.DefaultAsyncHttpxClient).Request("POST", _OFFICIAL)
