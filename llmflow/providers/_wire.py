"""Two ways to post a request: through an SDK, and past it with the SDK's own address, headers and errors."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from pydantic_core import to_json

from llmflow.backend import on_asyncio
from llmflow.errors import DefinitionError
from llmflow.providers._decoding import ACCEPT_ENCODING, ReplyTooLarge, UnreadableReply
from llmflow.providers._direct import DirectClient, Receive
from llmflow.providers._http import async_client, environment_proxy, http_module_of, read_pieces, tls_context
from llmflow.providers._json import as_mapping, decode_json

if TYPE_CHECKING:
    from llmflow.providers._http1 import HttpReply

__all__ = ["DirectWire", "Sdk", "SdkWire", "StreamPost", "Wire", "open_wire"]

_ABOUT_THE_BYTES = ("content-encoding", "content-length", "transfer-encoding")
"""Headers that no longer hold for the decoded content."""

_STATUS_ERRORS = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
}


@dataclass(frozen=True, slots=True)
class Sdk:
    """Which SDK is used; those of OpenAI and Anthropic come from one generator and differ in names only."""

    name: str
    client: str
    path: str

    @property
    def module(self) -> Any:
        """The SDK, imported now."""
        return importlib.import_module(self.name)

    @property
    def http(self) -> Any:
        """The HTTP library it builds on."""
        return http_module_of(self.module.DefaultAsyncHttpxClient)


class Wire(Protocol):
    """Posts one body; what goes wrong is raised as the SDK raises it."""

    async def post(self, body: dict[str, Any], /) -> tuple[bytes, Mapping[str, str]]:
        """Return the content and the headers of a successful reply."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""


StreamPost: TypeAlias = "Callable[[dict[str, Any], Receive], Awaitable[Mapping[str, str]]]"
"""Posts one body, hands the body of a successful reply over as it comes, and returns the headers."""


class SdkWire:
    """Posts through an SDK's client, one level below `create`, which would validate what is known to be right."""

    def __init__(self, sdk: Sdk, client: Any) -> None:
        self._client = client
        self._path = sdk.path
        self._response = sdk.http.Response
        self._stream = sdk.module.AsyncStream

    async def post(self, body: dict[str, Any], /) -> tuple[bytes, Mapping[str, str]]:
        response = await self._client.post(self._path, body=body, cast_to=self._response)
        return response.content, response.headers

    async def stream(self, body: dict[str, Any], receive: Receive, /) -> Mapping[str, str]:
        # The SDK's own reader of events is left alone: it takes a stream that just ends for a complete one.
        opened = await self._client.post(
            self._path, body=body, cast_to=object, stream=True, stream_cls=self._stream[object]
        )
        response = opened.response
        await read_pieces(response, response.aiter_bytes(), response.headers, receive)
        return response.headers  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        await self._client.close()


class DirectWire:
    """Posts over a connection of llmflow's own, with the headers of the SDK's client and its errors."""

    def __init__(self, sdk: Sdk, client: Any) -> None:
        url = client.base_url
        self._sdk = sdk.module
        self._http = sdk.http
        self._url = f"{str(url).rstrip('/')}{sdk.path}"
        tls = tls_context(self._http) if url.scheme == "https" else None
        self._head = _head(client, sdk.path)
        self._direct = DirectClient(url.raw_host.decode("ascii"), url.port or (443 if tls else 80), tls)

    async def post(self, body: dict[str, Any], /) -> tuple[bytes, Mapping[str, str]]:
        reply = await self._checked(self._direct.exchange(self._bytes_of(body)))
        return reply.content, reply.headers

    async def stream(self, body: dict[str, Any], receive: Receive, /) -> Mapping[str, str]:
        return (await self._checked(self._direct.stream(self._bytes_of(body), receive))).headers

    def _bytes_of(self, body: dict[str, Any]) -> bytes:
        content = to_json(body)
        return b"%b%d\r\n\r\n%b" % (self._head, len(content), content)

    async def _checked(self, replying: Awaitable[HttpReply]) -> HttpReply:
        try:
            reply = await replying
        except (OSError, UnicodeError, UnreadableReply, ReplyTooLarge) as exc:
            raise self._sdk.APIConnectionError(request=self._request()) from exc
        if not 200 <= reply.status < 300:
            raise self._status_error(reply)
        return reply

    async def aclose(self) -> None:
        await self._direct.aclose()

    def _request(self) -> Any:
        """Return what the SDK's errors want to know; without headers, so without the key."""
        return self._http.Request("POST", self._url)

    def _status_error(self, reply: HttpReply) -> Exception:
        try:
            body = decode_json(reply.content)
        except ValueError:
            body = reply.content.decode("utf-8", "replace").strip()
        error: object = as_mapping(body).get("error", body)
        name = _STATUS_ERRORS.get(reply.status, "InternalServerError" if reply.status >= 500 else "APIStatusError")
        # As the bytes they were: text would have to be ASCII, and headers from outside need not be.
        headers = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in reply.headers.items()
            if name not in _ABOUT_THE_BYTES
        ]
        response = self._http.Response(reply.status, headers=headers, content=reply.content, request=self._request())
        exc: Exception = getattr(self._sdk, name)(f"Error code: {reply.status} - {body}", response=response, body=error)
        return exc


def open_wire(sdk: Sdk, base_url: str | None, api_key: str) -> Wire:
    """Return the way to post to this address on the running event loop."""
    # The SDK reads its environment variables here, so that they mean what they always mean.
    make = getattr(sdk.module, sdk.client)
    client = make(api_key=api_key, base_url=base_url, max_retries=0, timeout=None, http_client=_idle_client(sdk.http))
    if on_asyncio() and _is_ordinary(client):
        return DirectWire(sdk, client)
    return SdkWire(sdk, client.with_options(http_client=async_client(sdk.http, str(client.base_url))))


@functools.cache
def _idle_client(http: Any) -> Any:
    """An HTTP client that is never used: without one the SDK would build its own, with certificates and a pool."""
    return http.AsyncClient(transport=http.AsyncBaseTransport(), timeout=None, trust_env=False)


def _is_ordinary(client: Any) -> bool:
    return not client.default_query and environment_proxy(str(client.base_url)) is None


def _head(client: Any, path: str) -> bytes:
    """Return everything up to the value of `Content-Length`, which stands last."""
    url = client.base_url
    headers = {**client.auth_headers, **client.default_headers}
    lines = [
        f"POST {url.raw_path.decode('ascii').rstrip('/')}{path} HTTP/1.1",
        f"Host: {url.netloc.decode('ascii')}",
        *(f"{name}: {value}" for name, value in headers.items() if isinstance(value, str)),
        "X-Stainless-Retry-Count: 0",
        f"Accept-Encoding: {ACCEPT_ENCODING}",
        "Connection: keep-alive",
        "Content-Length: ",
    ]
    if any("\r" in line or "\n" in line for line in lines):
        msg = "a header from the environment contains a line break"
        raise DefinitionError(msg)
    return "\r\n".join(lines).encode("latin-1", "replace")
