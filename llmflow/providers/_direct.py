"""A small HTTP/1.1 client for one address on asyncio: the hot path of `.map` over many items.

A request through an SDK and its HTTP library costs 1-2 ms of CPU, ten times what the bytes need, and caps one process
at a few hundred calls a second (docs/explanation/performance.md). This does only what a JSON call needs: one POST, one
complete reply, connections that are kept. Everything unusual (a proxy, trio, a client of the user's own) goes through
the SDK instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import select
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from llmflow.backend import alarm
from llmflow.providers._http1 import HttpReply, ReplyReader

if TYPE_CHECKING:
    import ssl

__all__ = ["DirectClient", "Receive"]

Receive: TypeAlias = "Callable[[Mapping[str, str], bytes], Awaitable[bool]]"
"""Takes the headers of a streamed reply and the next piece of its body; True when the answer is complete."""

_MOST_BACKLOG = 64 * 1024
"""Bytes of a streamed reply that may wait for its reader."""
_PATIENCE = 0.25
"""Seconds that a streamed reply may take to end when its answer is complete."""
_IDLE_CONNECTIONS = 256
_IDLE_SECONDS = 15.0


class DirectClient:
    """Sends ready requests to one address; belongs to the loop it is first used on.

    Args:
        host: Name or address, as it is resolved.
        port: TCP port.
        tls: Settings for https, None for http.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        # An address has one way to it; asyncio's race between several leaves a socket open when it is cancelled as it ends.
        self._head_start = None if _is_address(host) else 0.25
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()

    async def exchange(self, request: bytes) -> HttpReply:
        """Send one request and return its complete reply.

        Raises:
            OSError: When there is no connection, or it breaks.
            UnreadableReply: When the reply is not one.
            ReplyTooLarge: When the reply passes the limit.
        """
        connection = self._take_idle() or await self._connect()
        try:
            reply = await connection.exchange(request)
        except BaseException:  # cancellation too: a connection with half a reply in it serves nobody
            connection.abort()
            raise
        self._keep_or_close(connection, reply)
        return reply

    async def stream(self, request: bytes, receive: Receive) -> HttpReply:
        """Send one request and hand the body of a successful reply over as it comes; the provider is read no faster.

        Args:
            request: Complete bytes.
            receive: Takes the headers and the next piece; True when it needs no more. An error's body is in the reply.

        Raises:
            OSError: As `exchange`.
            UnreadableReply: As `exchange`.
            ReplyTooLarge: As `exchange`.
        """
        connection = self._take_idle() or await self._connect()
        try:
            reply = await connection.stream(request, receive)
        except BaseException:
            connection.abort()
            raise
        self._keep_or_close(connection, reply)
        return reply

    def _keep_or_close(self, connection: _Connection, reply: HttpReply) -> None:
        if reply.reusable and len(self._idle) < _IDLE_CONNECTIONS:
            connection.idle_since = connection.loop.time()
            self._idle.append(connection)
        else:
            connection.abort()

    async def aclose(self) -> None:
        """Close every connection."""
        self._idle.clear()
        for connection in tuple(self._open):
            connection.abort()
        await asyncio.sleep(0)  # the sockets are closed in the next turn of the loop

    def _take_idle(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_alive():
                return connection
            connection.abort()
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        connection = _Connection(loop, self._open)
        try:
            await loop.create_connection(
                lambda: connection,
                self._host,
                self._port,
                ssl=self._tls,
                server_hostname=self._host if self._tls is not None else None,
                happy_eyeballs_delay=self._head_start,
            )
        except OSError as exc:
            raise ConnectFailed(str(exc) or type(exc).__name__) from exc
        return connection


class ConnectFailed(OSError):
    """There is no connection, so nothing was sent."""


class _Connection(asyncio.Protocol):
    """One connection, with at most one request on it."""

    __slots__ = ("_backlog", "_news", "_open", "_reader", "_transport", "_waiter", "idle_since", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, open_connections: set[_Connection]) -> None:
        self.loop = loop
        self.idle_since = 0.0
        self._open = open_connections
        self._transport: asyncio.Transport | None = None
        self._reader: ReplyReader | None = None
        self._waiter: asyncio.Future[HttpReply] | None = None
        self._news: asyncio.Event | None = None
        """Set when something came, while a reply is streamed."""
        self._backlog = 0

    async def exchange(self, request: bytes) -> HttpReply:
        return await self._begin(request, ReplyReader())

    def _begin(self, request: bytes, reader: ReplyReader) -> asyncio.Future[HttpReply]:
        """Send a request and return what will have its reply."""
        transport = self._transport
        if transport is None:
            msg = "the connection was lost"
            raise ConnectionResetError(msg)
        self._reader = reader
        self._waiter = self.loop.create_future()
        transport.write(request)
        return self._waiter

    async def stream(self, request: bytes, receive: Receive) -> HttpReply:
        reader, self._news = ReplyReader(), asyncio.Event()
        waiter = self._begin(request, reader)
        try:
            return await self._read_stream(reader, waiter, self._news, receive)
        finally:
            self._news = None
            if not waiter.cancel() and not waiter.cancelled():
                waiter.exception()  # else asyncio complains that nobody has looked at it

    async def _read_stream(
        self, reader: ReplyReader, waiter: asyncio.Future[HttpReply], news: asyncio.Event, receive: Receive
    ) -> HttpReply:
        while True:
            await news.wait()
            news.clear()
            while body := self._take_piece(reader):
                assert reader.reply is not None
                if await receive(reader.reply.headers, body):
                    return await self._read_rest(reader, waiter, news)
            if waiter.done():
                return waiter.result()

    def _take_piece(self, reader: ReplyReader) -> bytes:
        """Return what has come of a successful reply; the body of an error stays in it."""
        if reader.reply is None or not 200 <= reader.reply.status < 300:
            return b""
        body = reader.take_body()
        self._backlog = 0
        if self._transport is not None:
            self._transport.resume_reading()
        return body

    async def _read_rest(
        self, reader: ReplyReader, waiter: asyncio.Future[HttpReply], news: asyncio.Event
    ) -> HttpReply:
        """Give the reply a moment to end, so that its connection can be used again; the answer is complete without."""
        with alarm(_PATIENCE):
            while not waiter.done():
                await news.wait()
                news.clear()
                self._take_piece(reader)
        if waiter.done() and waiter.exception() is None:
            return waiter.result()
        assert reader.reply is not None
        reader.reply.reusable = False
        return reader.reply

    def is_alive(self) -> bool:
        """Whether the connection can be used again, also when the loop has not yet looked at it."""
        transport = self._transport
        if transport is None or transport.is_closing() or self.loop.time() - self.idle_since > _IDLE_SECONDS:
            return False
        return not _is_readable(transport.get_extra_info("socket").fileno())

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open.add(self)

    def data_received(self, data: bytes) -> None:
        if self._reader is None:  # bytes nobody asked for
            self.abort()
            return
        try:
            if self._reader.feed(data):
                self._finish()
        except Exception as exc:  # noqa: BLE001 - whatever reading the reply raises belongs to the one who waits for it
            self._fail(exc)
        if self._news is not None:
            self._tell_reader(len(data))

    def _tell_reader(self, size: int) -> None:
        """Wake who reads the stream; when it falls behind, read no further: the rest waits in the network's buffers."""
        assert self._news is not None
        self._news.set()
        self._backlog += size
        if self._backlog > _MOST_BACKLOG and self._transport is not None and self._is_streaming():
            self._transport.pause_reading()

    def _is_streaming(self) -> bool:
        reply = None if self._reader is None else self._reader.reply
        return reply is not None and 200 <= reply.status < 300

    def eof_received(self) -> None:
        if self._reader is None:
            return
        try:
            self._reader.feed_end()
        except Exception as exc:  # noqa: BLE001 - as above
            self._fail(exc)
        else:
            self._finish()
            if self._news is not None:
                self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._open.discard(self)
        if self._reader is not None:
            self._fail(exc or ConnectionResetError("the connection was lost"))

    def _finish(self) -> None:
        reader, self._reader = self._reader, None
        if reader is None or reader.reply is None or self._waiter is None or self._waiter.done():
            return
        if self._transport is not None and self._transport.get_write_buffer_size():
            reader.reply.reusable = False  # answered before it was asked to the end, and the rest would still be sent
        self._waiter.set_result(reader.reply)

    def _fail(self, exc: Exception) -> None:
        self._reader = None
        self.abort()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(exc)
        if self._news is not None:
            self._news.set()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_readable(descriptor: int) -> bool:
    """Whether something waits on an idle connection: its end, or bytes nobody asked for."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))
    with contextlib.suppress(OSError, ValueError):
        return bool(select.select([descriptor], [], [], 0)[0])
    return True
