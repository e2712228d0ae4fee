"""HTTP settings of llmflow for the SDKs' own clients: no redirects, bounded bodies, one TLS context."""

from __future__ import annotations

import contextlib
import functools
import importlib
import urllib.request
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio

from llmflow.backend import alarm
from llmflow.errors import DefinitionError
from llmflow.providers._decoding import ACCEPT_ENCODING, BodyDecoder, ReplyTooLarge, UnreadableReply

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Generator, Mapping

    from llmflow.providers._direct import Receive

__all__ = ["async_client", "environment_proxy", "http_module_of", "read_pieces", "taking_replies", "tls_context"]

_PATIENCE = 0.25
"""Seconds that a streamed reply may take to end when its answer is complete."""

_CONNECTIONS = 1024
_IDLE_CONNECTIONS = 256
_IDLE_SECONDS = 15.0


def http_module_of(sdk_client: type[Any]) -> Any:
    """Return the HTTP library an SDK builds on, `httpx` or `httpx2`, found from its default HTTP client class.

    openai 2 and anthropic 0.x use httpx, openai 3 and anthropic 2 its successor httpx2; both have the same interface.
    """
    base = next(cls for cls in sdk_client.__mro__ if cls.__name__ == "AsyncClient")
    return importlib.import_module(base.__module__.partition(".")[0])


def async_client(http: Any, base_url: str) -> Any:
    """Return an `AsyncClient` of the library `http` for one address.

    It never follows a redirect, so neither key nor prompt reach a host that was not configured. It has no timeouts of
    its own: the Timeout policy is the wall clock, and a pause between two bytes says nothing about a slow drip.
    """
    proxy = environment_proxy(base_url)
    limits = http.Limits(
        max_connections=_CONNECTIONS, max_keepalive_connections=_IDLE_CONNECTIONS, keepalive_expiry=_IDLE_SECONDS
    )
    try:
        inner = http.AsyncHTTPTransport(verify=tls_context(http), limits=limits, proxy=proxy)
    except (ImportError, ValueError) as exc:  # SOCKS needs a package; a proxy address may be malformed
        msg = f"the proxy from the environment cannot be used: {exc}"
        raise DefinitionError(msg) from exc
    return http.AsyncClient(
        transport=_guarded_transport(http)(inner), timeout=None, follow_redirects=False, trust_env=False
    )


@functools.cache
def tls_context(http: Any) -> ssl.SSLContext:
    """Return the TLS settings the SDK's HTTP library would use; built once, it takes 30 ms of reading certificates."""
    context: ssl.SSLContext = http.create_ssl_context()
    return context


def environment_proxy(url: str) -> str | None:
    """Return the proxy that `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` ask for on the way to `url`."""
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


_taken: ContextVar[list[tuple[Any, Mapping[str, str]]] | None] = ContextVar("llmflow_taken", default=None)


@contextlib.contextmanager
def taking_replies() -> Generator[list[tuple[Any, Mapping[str, str]]]]:
    """Take the bodies of successful replies away from the SDK that asks inside, and leave it empty ones.

    For an SDK that has no way to close a stream it hands out, and takes one that just ends for a complete one.
    """
    taken: list[tuple[Any, Mapping[str, str]]] = []
    token = _taken.set(taken)
    try:
        yield taken
    finally:
        _taken.reset(token)


async def read_pieces(reply: Any, pieces: AsyncIterator[bytes], headers: Mapping[str, str], receive: Receive) -> None:
    """Hand the body of a reply over as it comes, and close it however that ends."""
    try:
        async for piece in pieces:
            if await receive(headers, piece):
                await _wait_for_end(pieces)
                break
    finally:
        with anyio.CancelScope(shield=True):
            await reply.aclose()
            with contextlib.suppress(Exception):  # it is closed, so it ends, and the library's generators with it
                await _read_to_end(pieces)


async def _wait_for_end(pieces: AsyncIterator[bytes]) -> None:
    """Give a reply a moment to end, so that its connection can be used again; the answer is complete without."""
    with alarm(_PATIENCE), contextlib.suppress(Exception):  # what breaks now, breaks nothing that counts
        await _read_to_end(pieces)


async def _read_to_end(pieces: AsyncIterator[bytes]) -> None:
    async for _ in pieces:
        pass


@functools.cache
def _guarded_stream(http: Any) -> type[Any]:
    """Build, on top of one HTTP library, the body that is decoded within a limit.

    The libraries decompress a whole network read at once, so that 64 KB of zeros become 64 MB before anybody can look.
    """

    class GuardedStream(http.AsyncByteStream):  # type: ignore[misc]  # the library is only known at run time
        def __init__(self, inner: Any, decoder: BodyDecoder) -> None:
            self._inner = inner
            self._decoder = decoder

        async def __aiter__(self) -> AsyncIterator[bytes]:
            pieces = aiter(self._inner)
            try:
                async for data in pieces:
                    if decoded := self._decoder.feed(data):
                        yield decoded
            except (UnreadableReply, ReplyTooLarge):
                # The library's generators would be left half-way, which trio reports; on a closed stream they end.
                await self._inner.aclose()
                with contextlib.suppress(Exception):
                    await anext(pieces)
                raise
            _end_if_more_came(self._inner)
            self._decoder.finish()

        async def aclose(self) -> None:
            await self._inner.aclose()

    return GuardedStream


def _end_if_more_came(stream: Any) -> None:
    """Let no connection be used again on which bytes follow a complete reply: they would answer the next request.

    The libraries have no hook for it, but their way to the state machine of h11, which has both methods, is short. If a
    version takes another way, this does nothing.
    """
    for name in ("_httpcore_stream", "_stream", "_connection", "_h11_state"):
        stream = getattr(stream, name, None)
    if stream is not None and stream.trailing_data[0]:
        stream.send_failed()  # a connection in error is closed after its reply


@functools.cache
def _guarded_transport(http: Any) -> type[Any]:
    """Build, on top of one HTTP library, the transport that hands out such bodies."""

    class GuardedTransport(http.AsyncBaseTransport):  # type: ignore[misc]
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        async def handle_async_request(self, request: Any) -> Any:
            request.headers["accept-encoding"] = ACCEPT_ENCODING
            response = await self._inner.handle_async_request(request)
            try:
                decoder = BodyDecoder(response.headers.get("content-encoding", ""))
            except BaseException:
                await response.aclose()
                raise
            headers = [
                (name, value)
                for name, value in response.headers.multi_items()
                if name.lower() not in ("content-encoding", "content-length")
            ]
            stream = _guarded_stream(http)(response.stream, decoder)
            if (taken := _taken.get()) is not None and response.status_code == 200:
                taken.append((stream, response.headers))
                stream = http.ByteStream(b"")
            return http.Response(response.status_code, headers=headers, stream=stream, extensions=response.extensions)

        async def aclose(self) -> None:
            await self._inner.aclose()

    return GuardedTransport
