"""Running a call from code that is not async."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
from anyio.from_thread import BlockingPortal

from llmflow.backend import loop_token
from llmflow.context import blocked_loop

__all__ = ["close_portals", "run_blocking"]


class _Portals:
    """Event loops in threads of their own, kept for the next call.

    A call from inside such a loop's own thread (a step's body that uses `.sync`) gets a further one, as the first is
    busy waiting. After a fork the child starts with none.
    """

    def __init__(self) -> None:
        self._idle: list[BlockingPortal] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def run(self, function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        portal = self._take()
        future = portal.start_task_soon(_kept, function)
        try:
            value, ended = future.result()
        except BaseException:  # Ctrl-C arrives here, in the waiting thread, and must not leave the call running
            future.cancel()
            raise
        finally:
            self._give_back(portal)
        if ended is not None:
            raise ended
        return value

    def close(self, farewell: Callable[[], Awaitable[None]]) -> None:
        """Run `farewell` on every loop that is idle, and stop it."""
        with self._lock:
            idle, self._idle = self._idle, []
        if self._pid == os.getpid():
            for portal in idle:
                portal.call(farewell)
                portal.call(portal.stop)

    def _take(self) -> BlockingPortal:
        with self._lock:
            if self._pid != os.getpid():
                self._idle, self._pid = [], os.getpid()
            if self._idle:
                return self._idle.pop()
        return _start()

    def _give_back(self, portal: BlockingPortal) -> None:
        with self._lock:
            self._idle.append(portal)


async def _kept(function: Callable[[], Coroutine[Any, Any, Any]]) -> tuple[Any, BaseException | None]:
    """Return the value, or SystemExit and its like as one: raised here they would end the loop, not the caller."""
    try:
        return await function(), None
    except (SystemExit, KeyboardInterrupt) as exc:
        return None, exc


def _start() -> BlockingPortal:
    """Start an event loop in a daemon thread; it lasts as long as the process."""
    ready: list[BlockingPortal] = []
    started = threading.Event()

    async def serve() -> None:
        async with BlockingPortal() as portal:
            ready.append(portal)
            started.set()
            await portal.sleep_until_stopped()

    threading.Thread(target=anyio.run, args=(serve,), name="llmflow-sync", daemon=True).start()
    started.wait()
    return ready[0]


_portals = _Portals()


def run_blocking(function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine to its end on a loop of its own and return what it returns; Ctrl-C cancels it."""
    token = blocked_loop.set(loop_token() or blocked_loop.get())
    try:
        return _portals.run(function)
    finally:
        blocked_loop.reset(token)


def close_portals(farewell: Callable[[], Awaitable[None]]) -> None:
    """Stop the event loops of past `.sync()` calls, each after `farewell` ran on it; the next call starts one again."""
    _portals.close(farewell)
