"""One coroutine that runs beside its caller until it ends or is told to."""

from __future__ import annotations

import asyncio
import sys
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Protocol

from llmflow.backend import end_tasks, on_asyncio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["Beside", "start_beside"]


class Beside(Protocol):
    """A running coroutine."""

    async def stop(self) -> None:
        """Cancel it and wait until it has ended, however often the caller is cancelled meanwhile."""


def start_beside(function: Callable[[], Coroutine[Any, Any, None]]) -> Beside:
    """Start a coroutine in a task of its own, in a copy of the caller's context.

    A task group would have to be left by the task that entered it, in the order it was entered. A stream is also left
    by whoever finalises an asynchronous generator, so its task stands alone. The function must not raise.
    """
    return _AsyncioTask(function) if on_asyncio() else _TrioTask(function)


class _AsyncioTask:
    __slots__ = ("_task",)

    def __init__(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._task = asyncio.get_running_loop().create_task(function())

    async def stop(self) -> None:
        await end_tasks([self._task])


class _TrioTask:
    __slots__ = ("_ended", "_scope")

    def __init__(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        trio = sys.modules["trio"]
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        trio.lowlevel.spawn_system_task(self._run, function, context=copy_context())

    async def _run(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            with self._scope:
                await function()
        finally:
            self._ended.set()

    async def stop(self) -> None:
        self._scope.cancel()
        with sys.modules["trio"].CancelScope(shield=True):
            await self._ended.wait()
