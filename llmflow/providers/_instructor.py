"""Any client of instructor, used for its provider, its mode and its raw call; the loop around it is llmflow's."""

from __future__ import annotations

import functools
import inspect
import json
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from llmflow.errors import DefinitionError
from llmflow.messages import FinishReason, Reply
from llmflow.providers._clients import in_thread, keep, key_of
from llmflow.providers._errors import Source
from llmflow.providers._http import read_pieces
from llmflow.providers._json import as_list, encodable
from llmflow.providers._openai_body import wire_messages
from llmflow.providers._params import ParamNames
from llmflow.providers._route import plain_options
from llmflow.providers._sdk_errors import translate_by
from llmflow.providers._structured import Structured, structured
from llmflow.providers._usage import any_usage, field_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from llmflow.messages import OutputFormat, Request
    from llmflow.models import Model
    from llmflow.ports import Send
    from llmflow.providers._direct import Receive

__all__ = ["connect_instructor"]

_LIKE_OPENAI = frozenset(
    [
        "openai",
        "azure_openai",
        "anyscale",
        "together",
        "databricks",
        "deepseek",
        "openrouter",
        "groq",
        "fireworks",
        "cerebras",
        "ollama",
    ]
)
_NAMES = {name: name for name in ("max_tokens", "temperature", "top_p", "stop", "seed")}
_REASONS: dict[str, FinishReason] = {
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "refusal": "refusal",
}


def connect_instructor(model: Model, output: OutputFormat, wall_clock: Callable[[], float]) -> Send:
    """Return the function that sends through an instructor client, sync or async, of any provider."""
    client: Any = model.client
    provider, mode = client.provider.value, client.mode.value
    call = _raw_call(client)
    secret = key_of(client.client)
    wire = _StreamingCallWire(call) if _can_stream(client) else _CallWire(call)
    wires = functools.cache(lambda: (keep(wire), secret))
    if provider in _LIKE_OPENAI:
        from llmflow.providers._openai import openai_route

        # Several of these have no handlers of their own in instructor; OpenAI's are what they are registered with.
        dialect = "openai" if provider in ("azure_openai", "ollama") else provider
        address = str(getattr(client.client, "base_url", "") or "")
        return openai_route(model, output, address, wires, wall_clock, dialect=dialect, mode=mode).send
    if provider == "anthropic":
        from llmflow.providers._anthropic import anthropic_route

        return anthropic_route(model, output, wires, wall_clock, mode=mode).send
    return _HandlerRoute(
        model, output, call, Source(provider=provider, model=model.name, secrets=(secret,)), wall_clock
    ).send


def _raw_call(client: Any) -> Callable[..., Awaitable[Any]]:
    """Return the provider's own call below instructor's, as a coroutine function, without retries of its SDK."""
    raw = getattr(client.create_fn, "__wrapped__", None)
    if raw is None:
        msg = "this instructor client hides the provider's own call; pass the SDK's client instead"
        raise DefinitionError(msg)
    raw = _without_retries(raw)
    fixed = dict(client.kwargs)
    # The async client is a subclass of the other; nothing else tells whether the call below blocks.
    if type(client).__name__.startswith("Async") or inspect.iscoroutinefunction(raw):
        return functools.partial(_awaited, raw, fixed)
    return functools.partial(_threaded, raw, fixed)


async def _awaited(raw: Callable[..., Awaitable[Any]], fixed: Mapping[str, Any], **kwargs: Any) -> Any:
    return await raw(**{**fixed, **kwargs})


async def _threaded(raw: Callable[..., Any], fixed: Mapping[str, Any], **kwargs: Any) -> Any:
    return await in_thread(functools.partial(raw, **{**fixed, **kwargs}))


def _without_retries(raw: Callable[..., Any]) -> Callable[..., Any]:
    """Return the call on a copy of its SDK client with retries off, where the SDK has such copies."""
    resource: Any = getattr(raw, "__self__", None)
    sdk_client: Any = getattr(resource, "_client", None)
    if not hasattr(sdk_client, "with_options"):
        return raw
    quiet = resource.__class__(sdk_client.with_options(max_retries=0))
    call: Callable[..., Any] = getattr(quiet, raw.__name__)
    return call


class _CallWire:
    """Gives a ready body to a raw call of an SDK and its reply back as JSON."""

    def __init__(self, call: Callable[..., Awaitable[Any]]) -> None:
        self._call = call

    async def post(self, body: dict[str, Any], /) -> tuple[bytes, Mapping[str, str]]:
        reply = await self._call(**body)
        return _as_json(reply), {"content-type": "application/json"}

    async def aclose(self) -> None:
        """Leave the client open; it is the user's."""


class _StreamingCallWire(_CallWire):
    """A wire over a call whose streams are those of the openai and anthropic SDKs, with the HTTP reply below them."""

    async def stream(self, body: dict[str, Any], receive: Receive, /) -> Mapping[str, str]:
        response = (await self._call(**body)).response
        await read_pieces(response, response.aiter_bytes(), response.headers, receive)
        return response.headers  # type: ignore[no-any-return]


def _can_stream(client: Any) -> bool:
    """Whether it is an async client of one of the two SDKs whose streams can be read below their events."""
    sdk = type(client.client).__module__.partition(".")[0]
    return type(client).__name__.startswith("Async") and sdk in ("openai", "anthropic")


def _as_json(reply: Any) -> bytes:
    try:
        return to_json(reply)
    except ValueError:  # a lone surrogate, which is replaced further on
        return json.dumps(reply.model_dump(), default=str).encode()


class _HandlerRoute:
    """Sends to a provider that only instructor knows: its handlers build each request and read each reply.

    It costs about 1 ms a call, because what a handler does with messages differs from provider to provider.
    """

    def __init__(
        self,
        model: Model,
        output: OutputFormat,
        call: Callable[..., Awaitable[Any]],
        source: Source,
        wall_clock: Callable[[], float],
    ) -> None:
        client: Any = model.client
        self._form: Structured | None = (
            None if output.is_text else structured(output, client.provider.value, client.mode.value)
        )
        self._output = output
        self._call = call
        self._source = source
        self._wall_clock = wall_clock
        self._constant = {"model": model.model, **plain_options(model)}
        self._params = ParamNames(model.name, _NAMES)

    async def send(self, request: Request) -> Reply:
        """Send one request and return the reply, or raise a `ProviderError`."""
        messages = wire_messages(request.messages, request.turns, None)
        kwargs = {**self._constant, **self._params.translate(request.params), "messages": messages}
        if self._form is not None:
            kwargs = self._form.prepare(self._output, kwargs)
        try:
            response = await self._call(**kwargs)
        except Exception as exc:
            raise translate_by({}, exc, self._source, self._wall_clock()) from exc
        text = _plain_text(response) if self._form is None else self._form.text_of(response) or _plain_text(response)
        return Reply(
            text=text and encodable(text),
            usage=any_usage(response),
            finish_reason=_finish_reason(response),
            raw=response,
        )


def _plain_text(response: Any) -> str | None:
    candidates = (
        field_of(_first_of(response, "choices"), "message", "content"),
        field_of(response, "text"),
        field_of(response, "message", "content"),
    )
    return next((text for text in candidates if isinstance(text, str)), None)


def _finish_reason(response: Any) -> FinishReason:
    choice = _first_of(response, "choices") or _first_of(response, "candidates")
    reason = field_of(choice, "finish_reason")
    return _REASONS.get(str(getattr(reason, "value", reason)).lower(), "stop")


def _first_of(response: Any, name: str) -> object:
    return next(iter(as_list(field_of(response, name))), None)
