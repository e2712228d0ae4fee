"""One request and its reply on a raw connection: enough HTTP/1.1 to serve clients and to break its rules."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

__all__ = ["Connection", "Exchange", "RecordedRequest", "Response", "Serve"]


@dataclass(slots=True, kw_only=True)
class RecordedRequest:
    """A request as the server received it.

    Attributes:
        headers: By lower-case name.
        received: When it was complete, on `time.monotonic()`.
        connection: Number of the connection it came on, counted from 1.
        closed_by_client_at: When the client closed the connection before the reply was complete, None if it did not.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = field(repr=False)
    received: float
    connection: int
    closed_by_client_at: float | None = None

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Response(Protocol):
    """What the server does about a request."""

    async def send(self, exchange: Exchange, /) -> None:
        """Write the reply, or misbehave; the connection is kept open afterwards unless it was closed here."""


Serve: TypeAlias = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """A request that waits for its reply, and the connection to write that on."""

    def __init__(self, request: RecordedRequest, connection: Connection) -> None:
        self.request = request
        self._connection = connection

    async def write(self, data: bytes) -> None:
        """Send bytes as they are, and wait while the client does not read."""
        await self._connection.write(data)

    async def write_head(self, status: int, headers: dict[str, str]) -> None:
        """Send the status line and the headers."""
        lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        await self.write("\r\n".join(lines).encode("latin-1"))

    async def write_reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Send a whole, correct reply."""
        length = {} if "content-length" in headers else {"content-length": str(len(body))}
        await self.write_head(status, headers | length)
        await self.write(body)

    def close(self) -> None:
        """Close the connection once everything that was written is out."""
        self._connection.transport.close()

    def reset(self) -> None:
        """Drop the connection with a TCP reset."""
        transport = self._connection.transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the client gives up."""
        await self._connection.lost.wait()


class Connection(asyncio.Protocol):
    """One TCP connection: reads requests one after the other and hands each to `serve`."""

    transport: asyncio.Transport

    def __init__(self, number: int, serve: Serve, record: Callable[[RecordedRequest], None]) -> None:
        self.lost = asyncio.Event()
        self._number = number
        self._serve = serve
        self._record = record
        self._buffer = bytearray()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._current: RecordedRequest | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._task = asyncio.get_running_loop().create_task(self._run())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._arrived.set()

    def eof_received(self) -> None:
        self._client_left()

    def connection_lost(self, exc: Exception | None) -> None:
        self._client_left(is_reset=exc is not None)
        self.lost.set()
        self._writable.set()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def stop(self) -> None:
        """Drop the connection because the server stops."""
        self._current = None
        self.transport.abort()

    async def write(self, data: bytes) -> None:
        if self.transport.is_closing():
            msg = "the client has gone"
            raise ConnectionResetError(msg)
        self.transport.write(data)
        await self._writable.wait()

    def _client_left(self, *, is_reset: bool = False) -> None:
        # A connection the server itself closed also ends here; that is not the client's doing. A reset is, and when it
        # is met while writing, the transport is closing by the time it is told.
        if self._current is not None and (is_reset or not self.transport.is_closing()):
            self._current.closed_by_client_at = time.monotonic()
            self._current = None

    async def _run(self) -> None:
        while not self.transport.is_closing():
            request = await self._read_request()
            self._current = request
            self._record(request)
            try:
                await self._serve(Exchange(request, self))
            except ConnectionResetError:  # connection_lost follows, and knows whose doing it was
                continue
            except Exception:
                self.transport.abort()  # the test's own function failed; without this its client would wait for ever
                raise
            self._current = None

    async def _read_request(self) -> RecordedRequest:
        await self._require_http()
        head = await self._read_until(b"\r\n\r\n")
        start, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = start.split(" ", 2)
        fields = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        body = await self._read_body(headers)
        return RecordedRequest(
            method=method, path=path, headers=headers, body=body, received=time.monotonic(), connection=self._number
        )

    async def _require_http(self) -> None:
        """Hang up on a client that speaks something else, such as TLS; else both would wait for each other."""
        while not self._buffer:
            await self._more()
        if not self._buffer[:1].isalpha():
            self.transport.abort()
            await self.lost.wait()

    async def _read_body(self, headers: dict[str, str]) -> bytes:
        if "chunked" not in headers.get("transfer-encoding", ""):
            return await self._read_exactly(int(headers.get("content-length", 0)))
        chunks: list[bytes] = []
        while size := int(await self._read_until(b"\r\n"), 16):
            chunks.append(await self._read_exactly(size))
            await self._read_exactly(2)
        await self._read_exactly(2)
        return b"".join(chunks)

    async def _read_until(self, separator: bytes) -> bytes:
        while (end := self._buffer.find(separator)) < 0:
            await self._more()
        data = bytes(self._buffer[:end])
        del self._buffer[: end + len(separator)]
        return data

    async def _read_exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._more()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def _more(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()
