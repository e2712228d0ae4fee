"""One step's way to one model: build the body, post it, read the reply, translate what went wrong."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from pydantic_core import from_json, to_json

from llmflow.errors import DefinitionError, StepError
from llmflow.providers._errors import Source, unavailable
from llmflow.providers._json import as_mapping, decode_object, encodable, encodable_data
from llmflow.providers._limit_headers import limit_headers
from llmflow.providers._loops import PerLoop
from llmflow.providers._streaming import Reading, refuses_usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmflow.messages import Reply, Request
    from llmflow.models import Model
    from llmflow.providers._streaming import Stream
    from llmflow.providers._structured import Structured
    from llmflow.providers._wire import Sdk, StreamPost, Wire

    Reask: TypeAlias = Callable[[str], Sequence[object]] | None

__all__ = ["Api", "Connections", "Route", "plain_options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """What differs between two providers whose SDKs are alike."""

    sdk: Sdk
    translate: Callable[[Exception, Source, float], StepError]
    read: Callable[[dict[str, Any], str | None, Reask], Reply]
    native: Callable[[dict[str, Any]], Any]
    """Makes the SDK's response object from a decoded body, for instructor's re-ask; it must not validate."""
    request_id: str
    """Reply header that names the request."""
    stream: Callable[[dict[str, Any]], Stream]
    """Makes, from a request's body, what puts the events of a streamed reply together."""
    stream_part: Mapping[str, Any]
    """What a request must contain to be streamed."""


class Connections:
    """The open wires of one provider, shared by all steps that use the same address and key."""

    def __init__(self) -> None:
        self._wires: dict[tuple[str | None, str], PerLoop[Wire]] = {}

    def to(self, sdk: Sdk, base_url: str | None, key: str) -> PerLoop[Wire]:
        """Return the wires to this address with this key."""
        from llmflow.providers._wire import open_wire

        address = (base_url, key)
        if address not in self._wires:
            self._wires.setdefault(address, PerLoop(lambda: open_wire(sdk, *address), lambda wire: wire.aclose()))
        return self._wires[address]

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        for wires in tuple(self._wires.values()):
            await wires.aclose()


class Route:
    """Sends the requests of one step to one model.

    Args:
        api: The provider.
        model: The model, for messages.
        body: Builds the body of a request.
        structured: How the schema is asked for, None for text.
        wires: Finds the connections and the key at the first request.
        wall_clock: Seconds since the epoch, for a `Retry-After` that is a date.
    """

    def __init__(
        self,
        api: Api,
        model: Model,
        body: Callable[[Request], dict[str, Any]],
        structured: Structured | None,
        *,
        wires: Callable[[], tuple[PerLoop[Wire], str]],
        wall_clock: Callable[[], float],
    ) -> None:
        self._api = api
        self._body = body
        self._structured = structured
        self._find_wires = wires
        self._wires: PerLoop[Wire] | None = None
        self._source = Source(provider=model.provider, model=model.name)
        self._wall_clock = wall_clock
        self._stream_part: Mapping[str, Any] = api.stream_part

    async def send(self, request: Request) -> Reply:
        """Send one request and return the reply, or raise a `ProviderError`."""
        wires = self._wires or self._first_wires()
        body = self._body(request)
        wire = wires.get()
        if request.sink is not None and (stream := getattr(wire, "stream", None)) is not None:
            return await self._send_streamed(stream, body, request)
        try:
            content, headers = await wire.post(body)
        except (StepError, DefinitionError):
            raise
        except Exception as exc:  # noqa: BLE001 - the SDK's classes are known to the translator, which is loaded with it
            self._raise_translated(exc)
        return self._read(content, headers)

    async def _send_streamed(self, post: StreamPost, body: dict[str, Any], request: Request) -> Reply:
        body = {**self._stream_part, **body, "stream": True}
        try:
            return await self._stream(post, body, request)
        except StepError as exc:
            if not refuses_usage(exc, body):
                raise
        # A request that is refused for its form is not answered and not billed; it is asked once in the other form.
        self._stream_part = {}
        del body["stream_options"]
        return await self._stream(post, body, request)

    async def _stream(self, post: StreamPost, body: dict[str, Any], request: Request) -> Reply:
        reading = Reading(self._api.stream(body), request, self._source, self._raise_error_in_200)
        try:
            headers = await post(body, reading.receive)
        except (StepError, DefinitionError):
            raise
        except Exception as exc:  # noqa: BLE001 - as in `send`
            self._raise_translated(exc)
        if reading.plain is not None:
            return self._read(b"".join(reading.plain), headers)
        return self._reply(await reading.finish(), headers)

    def _first_wires(self) -> PerLoop[Wire]:
        self._wires, key = self._find_wires()
        self._source = Source(provider=self._source.provider, model=self._source.model, secrets=(key,))
        return self._wires

    def _read(self, content: bytes, headers: Mapping[str, str]) -> Reply:
        try:
            data = decode_object(content)
        except ValueError as exc:
            content_type = headers.get("content-type", "no content type")
            raise unavailable(self._source, f"200 with {content_type!r} is no JSON object", status=200) from exc
        if data.get("error") and not data.get("choices"):
            self._raise_error_in_200(data["error"])
        return self._reply(data, headers)

    def _reply(self, data: dict[str, Any], headers: Mapping[str, str]) -> Reply:
        reask = None if self._structured is None else functools.partial(self._reask, data)
        reply = self._api.read(data, headers.get(self._api.request_id), reask)
        limits = limit_headers(headers)
        return reply if limits is None else replace(reply, headers=limits)

    def _reask(self, data: dict[str, Any], problem: str) -> Sequence[object]:
        assert self._structured is not None
        return self._structured.reask_turns(self._api.native(encodable_data(data)), encodable(problem))

    def _raise_error_in_200(self, error: object) -> NoReturn:
        """Treat an error that a gateway wrapped into a success as the error it is."""
        sdk = self._api.sdk
        body = as_mapping(error) or {"message": str(error)}
        request = sdk.http.Request("POST", "http://gateway.invalid")
        exc = sdk.module.APIError(str(body.get("message")), request, body=body)
        raise self._api.translate(exc, self._source, self._wall_clock()) from exc

    def _raise_translated(self, exc: Exception) -> NoReturn:
        raise self._api.translate(exc, self._source, self._wall_clock()) from exc


def plain_options(model: Model) -> dict[str, Any]:
    """Return the model's options as they go into the body, `mode` left out.

    Raises:
        DefinitionError: When one of them is nothing that JSON can hold.
    """
    options = {name: value for name, value in model.options.items() if name != "mode"}
    try:
        plain: dict[str, Any] = from_json(to_json(options))
    except ValueError as exc:
        msg = f"model {model.name!r} has an option that JSON cannot hold: {exc}"
        raise DefinitionError(msg) from exc
    return plain
