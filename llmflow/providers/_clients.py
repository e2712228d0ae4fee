"""Clients that the user already has: of the openai and anthropic SDKs, and any of instructor."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from llmflow.errors import DefinitionError
from llmflow.providers._loops import PerLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmflow.messages import OutputFormat
    from llmflow.models import Model
    from llmflow.ports import Send
    from llmflow.providers._wire import Sdk, Wire

__all__ = ["ClientProvider", "connect_client", "in_thread", "keep", "key_of"]


class ClientProvider:
    """Reaches the models of services that llmflow does not know itself, through `Model(client=...)`.

    Args:
        wall_clock: Seconds since the epoch, to read a `Retry-After` that is a date.
    """

    def __init__(self, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock

    def connect(self, model: Model, output: OutputFormat, /) -> Send:
        """Return the function that sends the requests of one step to one model."""
        if model.client is None:
            msg = (
                f"model {model.name!r}: nothing installed reaches {model.provider!r}; pass its instructor client as "
                f"Model({model.name!r}, client=instructor.from_provider(...)), or install a plugin"
            )
            raise DefinitionError(msg)
        return connect_client(model, output, self._wall_clock)

    async def aclose(self) -> None:
        """Do nothing: the clients are the user's, who closes them."""


def connect_client(model: Model, output: OutputFormat, wall_clock: Callable[[], float]) -> Send:
    """Return the function that sends through the client of a model, without the client's own retries.

    Raises:
        DefinitionError: For a client of an unknown kind.
    """
    client: Any = model.client
    kinds = {(cls.__module__.partition(".")[0], cls.__name__) for cls in type(client).__mro__}
    if ("instructor", "Instructor") in kinds:
        from llmflow.providers._instructor import connect_instructor

        return connect_instructor(model, output, wall_clock)
    if kinds & {("openai", "AsyncOpenAI"), ("openai", "OpenAI")}:
        from llmflow.providers._openai import API, openai_route

        wires = _wires_of(API.sdk, model, is_async=("openai", "AsyncOpenAI") in kinds)
        return openai_route(model, output, str(client.base_url), wires, wall_clock).send
    if kinds & {("anthropic", "AsyncAnthropic"), ("anthropic", "Anthropic")}:
        from llmflow.providers import _anthropic

        wires = _wires_of(_anthropic.API.sdk, model, is_async=("anthropic", "AsyncAnthropic") in kinds)
        return _anthropic.anthropic_route(model, output, wires, wall_clock).send
    kind = type(client).__name__
    msg = f"model {model.name!r}: client= is {kind}, expected an openai, anthropic or instructor client"
    raise DefinitionError(msg)


def key_of(client: object) -> str:
    """Return the key a client uses, to keep it out of messages."""
    key = getattr(client, "api_key", None)
    return key if isinstance(key, str) else ""


def keep(wire: Wire) -> PerLoop[Wire]:
    """Return a wire over a client of the user's own as the same on every loop, never closed by llmflow."""
    return PerLoop(lambda: wire, _leave_open)


async def in_thread(function: Callable[[], Any]) -> Any:
    """Run a blocking call in a worker thread; one that is cancelled is left to end by itself."""
    return await anyio.to_thread.run_sync(function, abandon_on_cancel=True)


def _wires_of(sdk: Sdk, model: Model, *, is_async: bool) -> Callable[[], tuple[PerLoop[Wire], str]]:
    @functools.cache
    def wires() -> tuple[PerLoop[Wire], str]:
        from llmflow.providers._wire import SdkWire

        client: Any = model.client
        patient = client.with_options(max_retries=0)
        wire: Wire = SdkWire(sdk, patient) if is_async else _ThreadWire(sdk, patient)
        return keep(wire), key_of(client)

    return wires


async def _leave_open(wire: Wire) -> None:
    del wire


class _ThreadWire:
    """Posts through a blocking client of an SDK, in a worker thread."""

    def __init__(self, sdk: Sdk, client: Any) -> None:
        self._sdk = sdk
        self._client = client
        self._response = sdk.http.Response

    async def post(self, body: dict[str, Any], /) -> tuple[bytes, Mapping[str, str]]:
        response = await in_thread(
            functools.partial(self._client.post, self._sdk.path, body=body, cast_to=self._response)
        )
        return response.content, response.headers

    async def aclose(self) -> None:
        """Leave the client open; it is the user's."""
