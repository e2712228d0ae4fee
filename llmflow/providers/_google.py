"""Gemini, through the google-genai SDK."""

from __future__ import annotations

import importlib
import importlib.util
import re
import time
from typing import TYPE_CHECKING, Any, NoReturn

from llmflow.errors import DefinitionError, StepError
from llmflow.messages import File, FinishReason, Message, Reply
from llmflow.providers._errors import Source, unavailable
from llmflow.providers._google_stream import ContentStream
from llmflow.providers._http import read_pieces, taking_replies
from llmflow.providers._json import as_mapping, encodable, encode_json, mappings_in
from llmflow.providers._keys import check_address, connection_identity, find_key
from llmflow.providers._limit_headers import limit_headers
from llmflow.providers._loops import PerLoop
from llmflow.providers._params import ParamNames
from llmflow.providers._route import plain_options
from llmflow.providers._streaming import Reading
from llmflow.providers._usage import field_of, gemini_usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from llmflow.messages import OutputFormat, Request
    from llmflow.models import Model
    from llmflow.ports import Send

__all__ = ["GoogleProvider"]

_KEY_VARIABLES = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
_AROUND = ("GOOGLE_GEMINI_BASE_URL",)
_VERSIONED = re.compile(r"(.+)/(v[0-9]+(?:(?:alpha|beta)[0-9]*)?)/*")
_OFFICIAL = "https://generativelanguage.googleapis.com"
_NAMES = {
    "max_tokens": "max_output_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "stop": "stop_sequences",
    "seed": "seed",
}
_FILTERED = frozenset({"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "LANGUAGE"})


class GoogleProvider:
    """Reaches the models called `google/...`, such as `google/gemini-2.5-flash`.

    The schema is asked for with the API's own JSON schema mode; instructor's handlers for Gemini need further packages.

    Args:
        wall_clock: Seconds since the epoch, to read a `Retry-After` that is a date.
    """

    def __init__(self, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._clients: dict[tuple[str | None, str], PerLoop[_Client]] = {}

    def connect(self, model: Model, output: OutputFormat, /) -> Send:
        """Return the function that sends the requests of one step to one model."""
        if model.client is not None:
            from llmflow.providers._clients import connect_client

            return connect_client(model, output, self._wall_clock)
        check_address(model)
        if not _is_installed():
            msg = f"model {model.name!r} needs the google-genai package; pip install 'llmflow[google]'"
            raise DefinitionError(msg)
        return _Route(model, output, self._clients_of, self._wall_clock).send

    def identity(self, model: Model, /) -> str:
        """Return what tells a model's connection from others in a cache."""
        return connection_identity(model, _KEY_VARIABLES, _AROUND)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        for clients in tuple(self._clients.values()):
            await clients.aclose()

    def _clients_of(self, model: Model) -> tuple[PerLoop[_Client], str]:
        key = find_key(model, *_KEY_VARIABLES)
        address = (model.base_url, key)
        if address not in self._clients:
            self._clients.setdefault(address, PerLoop(lambda: _Client(*address), lambda client: client.aclose()))
        return self._clients[address], key


class _Client:
    """The SDK's client over an HTTP client with llmflow's settings."""

    def __init__(self, base_url: str | None, key: str) -> None:
        from google import genai

        from llmflow.providers._http import async_client

        http = importlib.import_module("httpx2" if _takes_httpx2() else "httpx")
        self._http = async_client(http, base_url or _OFFICIAL)
        address, version = _split_version(base_url)
        options = genai.types.HttpOptions(base_url=address, api_version=version, httpx_async_client=self._http)
        client = genai.Client(api_key=key, vertexai=False, http_options=options)
        models: Any = client.aio.models
        self.generate: Callable[..., Awaitable[Any]] = models.generate_content
        self.generate_stream: Callable[..., Awaitable[AsyncIterator[Any]]] = models.generate_content_stream

    async def aclose(self) -> None:
        await self._http.aclose()


class _Route:
    def __init__(
        self,
        model: Model,
        output: OutputFormat,
        clients: Callable[[Model], tuple[PerLoop[_Client], str]],
        wall_clock: Callable[[], float],
    ) -> None:
        form = {} if output.is_text else {"response_mime_type": "application/json"}
        schema = {} if output.is_text else {"response_json_schema": dict(output.json_schema)}
        self._constant: dict[str, Any] = {**form, **schema, **plain_options(model)}
        self._params = ParamNames(model.name, _NAMES)
        self._model = model
        self._find_clients = clients
        self._clients: PerLoop[_Client] | None = None
        self._source = Source(provider=model.provider, model=model.name)
        self._wall_clock = wall_clock

    async def send(self, request: Request) -> Reply:
        """Send one request and return the reply, or raise a `ProviderError`."""
        if self._clients is None:
            self._clients, key = self._find_clients(self._model)
            self._source = Source(provider=self._model.provider, model=self._model.name, secrets=(key,))
        contents, config = self._contents(request), self._config(request)
        call: dict[str, Any] = {"model": self._model.model, "contents": contents, "config": config}
        try:
            data: dict[str, Any]
            if request.sink is not None:
                data = await self._stream(self._clients.get().generate_stream, call, request)
            else:
                response = await self._clients.get().generate(**call)
                data = response.model_dump(mode="json", exclude_none=True)
        except (StepError, DefinitionError):
            raise
        except Exception as exc:
            from llmflow.providers._google_errors import translate

            raise translate(exc, self._source, self._wall_clock()) from exc
        return _read(data, limit_headers(as_mapping(field_of(data, "sdk_http_response", "headers"))))

    async def _stream(
        self, generate: Callable[..., Awaitable[AsyncIterator[Any]]], call: dict[str, Any], request: Request
    ) -> dict[str, Any]:
        """Return what the chunks of a streamed answer add up to, each handed on as it comes."""
        with taking_replies() as replies:
            async for _ in await generate(**call):  # an empty one: the SDK builds and sends the request
                pass
        if not replies:
            raise unavailable(self._source, "the reply holds no stream")
        ((reply, headers),) = replies
        reading = Reading(ContentStream(), request, self._source, self._fail)
        await read_pieces(reply, aiter(reply), headers, reading.receive)
        return {**await reading.finish(), "sdk_http_response": {"headers": dict(headers)}}

    def _fail(self, error: object) -> NoReturn:
        """Raise the error for what came in the middle of a stream."""
        from google.genai.errors import APIError

        from llmflow.providers._google_errors import translate

        code: Any = as_mapping(error).get("code")
        exc = APIError(code, {"error": error})
        raise translate(exc, self._source, self._wall_clock()) from exc

    def _contents(self, request: Request) -> list[dict[str, Any]]:
        turns = [turn for turn in request.turns if isinstance(turn, Message)]
        return [_content(message) for message in (*request.messages, *turns) if message.role != "system"]

    def _config(self, request: Request) -> dict[str, Any]:
        params = self._params.translate(request.params)
        if isinstance(params.get("stop_sequences"), str):
            params["stop_sequences"] = [params["stop_sequences"]]
        system = "\n\n".join(encodable(m.content) for m in request.messages if m.role == "system")
        return {**self._constant, **params, **({"system_instruction": system} if system else {})}


def _content(message: Message) -> dict[str, Any]:
    role = "model" if message.role == "assistant" else "user"
    return {"role": role, "parts": [*map(_file_part, message.files), {"text": encodable(message.content)}]}


def _file_part(file: File) -> dict[str, Any]:
    if file.data is None:
        return {"fileData": {"fileUri": file.url, "mimeType": file.media_type}}
    return {"inlineData": {"data": file.data, "mimeType": file.media_type}}


def _read(data: dict[str, Any], headers: dict[str, str] | None = None) -> Reply:
    candidate = next(iter(mappings_in(data.get("candidates"))), None)
    text = _text_of(mappings_in(field_of(candidate, "content", "parts")))
    return Reply(
        text=None if text is None else encodable(text),
        usage=gemini_usage(data.get("usage_metadata")),
        finish_reason=_finish_reason(candidate, blocked=field_of(data, "prompt_feedback", "block_reason") is not None),
        model=field_of(data, "model_version"),
        request_id=field_of(data, "response_id"),
        headers=headers,
        raw=data,
    )


def _text_of(parts: list[dict[str, Any]]) -> str | None:
    for part in parts:
        if isinstance(part.get("function_call"), dict):
            return encode_json(part["function_call"].get("args"))
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str) and not part.get("thought")]
    return "".join(texts) if texts else None


def _finish_reason(candidate: object, *, blocked: bool) -> FinishReason:
    reason = field_of(candidate, "finish_reason")
    if blocked or reason in _FILTERED:
        return "content_filter"
    return "length" if reason == "MAX_TOKENS" else "stop"


def _split_version(base_url: str | None) -> tuple[str | None, str | None]:
    """Return the address as the SDK wants it, and the version that stood at its end: the SDK adds one itself."""
    matched = None if base_url is None else _VERSIONED.fullmatch(base_url)
    return (base_url, None) if matched is None else (matched[1], matched[2])


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec("google.genai") is not None
    except ModuleNotFoundError:  # not even the `google` namespace
        return False


def _takes_httpx2() -> bool:
    """Whether the SDK knows httpx2; older ones check for a client of httpx."""
    from google.genai import _api_client

    return getattr(_api_client, "httpx2", None) is not None
