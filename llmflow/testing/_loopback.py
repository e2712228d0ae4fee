"""A provider on 127.0.0.1 that says what a test tells it to, and misbehaves in every way a real one does."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from llmflow.testing._http_exchange import Connection, Exchange, RecordedRequest, Response
from llmflow.testing._http_responses import answer

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["LoopbackServer"]

Behaviour: TypeAlias = "Response | Callable[[RecordedRequest], Response]"


class LoopbackServer:
    """A real HTTP server in a thread of its own, for tests of what happens on the wire.

    ```python
    with LoopbackServer() as server:
        server.enqueue(status(500), answer('{"category": "bug"}'))
        model = Model("openai/gpt-x", base_url=server.base_url, api_key="k")
        ...
        assert 2 == len(server.requests)
    ```

    It speaks the dialects of OpenAI, Anthropic and Gemini by the path of the request. It needs no event loop of the
    test, so it serves tests on asyncio, on trio and without either.

    Args:
        default: What to do when nothing is enqueued: a response, or a function that makes one from the request.

    Attributes:
        default: As the argument; may be replaced at any time.
    """

    def __init__(self, default: Behaviour | None = None) -> None:
        self.default: Behaviour = answer("{}") if default is None else default
        self.port = 0
        self._queue: deque[Behaviour] = deque()
        self._requests: list[RecordedRequest] = []
        self._changed = threading.Condition()
        self._connections: set[Connection] = set()
        self._opened = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    @property
    def base_url(self) -> str:
        """Address to give to `Model(base_url=...)`."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def requests(self) -> list[RecordedRequest]:
        """Every request so far, in the order they arrived."""
        with self._changed:
            return list(self._requests)

    @property
    def connections_opened(self) -> int:
        """How many connections clients have made."""
        return self._opened

    def enqueue(self, *behaviours: Behaviour) -> None:
        """Answer the next requests with these, one each; afterwards `default` applies again."""
        self._queue.extend(behaviours)

    def wait_requests(self, count: int, *, timeout: float = 5.0) -> list[RecordedRequest]:
        """Block until `count` requests have arrived, and return all of them."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) >= count, timeout):
                msg = f"{len(self._requests)} of {count} requests arrived within {timeout} s"
                raise TimeoutError(msg)
            return list(self._requests)

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="llmflow-loopback", daemon=True)
        self._thread.start()
        ready.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._loop is not None and self._stop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _run(self, ready: threading.Event) -> None:
        try:
            asyncio.run(self._serve_until_stopped(ready))
        except BaseException as exc:  # noqa: BLE001 - handed to the thread that waits in __enter__
            self._failure = exc
        finally:
            ready.set()

    async def _serve_until_stopped(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await self._loop.create_server(self._connect, "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        for _ in range(4):  # accept who has connected, and let asyncio make their transports: a closed server cannot
            await asyncio.sleep(0)
        server.close()
        for connection in tuple(self._connections):
            connection.stop()
        await asyncio.sleep(0)  # aborted transports close their sockets in the next turn of the loop

    def _connect(self) -> Connection:
        self._opened += 1
        connection = Connection(self._opened, self._serve, self._record)
        self._connections.add(connection)
        return connection

    def _record(self, request: RecordedRequest) -> None:
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()

    async def _serve(self, exchange: Exchange) -> None:
        behaviour = self._queue.popleft() if self._queue else self.default
        if callable(behaviour):
            behaviour = behaviour(exchange.request)
        await behaviour.send(exchange)
