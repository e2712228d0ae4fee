"""One thing per running event loop, closed when that loop ends.

A connection belongs to the loop that opened it: a second `asyncio.run`, another thread or a forked child must each
have its own. Nobody tells a library that a loop is about to end, except through one door: both asyncio and trio close
the asynchronous generators that are still open. So each value is held by a generator that waits at its `yield`.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Generic, TypeVar

from llmflow.backend import loop_token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

__all__ = ["PerLoop"]

T = TypeVar("T")

_open: set[object] = set()
"""Whoever holds something on a loop that runs: dropped with its owner, the generators would be collected unclosed."""


class PerLoop(Generic[T]):
    """Makes a value on first use in each event loop and closes it with the loop, or earlier by `aclose`."""

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._make = make
        self._close = close
        self._held: dict[tuple[int, object | None], tuple[T, AsyncGenerator[None, None]]] = {}

    def get(self) -> T:
        """Return the value of the running loop."""
        held = self._held.get((os.getpid(), loop_token()))
        return held[0] if held is not None else self._open()

    async def aclose(self) -> None:
        """Close the value of the running loop, if it has one."""
        held = self._held.get((os.getpid(), loop_token()))
        if held is not None:
            await held[1].aclose()

    def _open(self) -> T:
        self._forget_dead()
        key = (os.getpid(), loop_token())
        value = self._make()
        keeper = self._keep(key, value)
        self._held[key] = (value, keeper)
        _open.add(self)
        with contextlib.suppress(StopIteration):
            keeper.__anext__().send(None)  # runs to its yield without waiting; the loop now knows the generator
        return value

    async def _keep(self, key: tuple[int, object | None], value: T) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._held.pop(key, None)
            if not self._held:
                _open.discard(self)
            await self._close(value)

    def _forget_dead(self) -> None:
        """Drop what belongs to another process, or to a loop that was closed without ending its generators."""
        for pid, token in tuple(self._held):
            is_closed = getattr(token, "is_closed", None)
            if pid != os.getpid() or (is_closed is not None and is_closed()):
                self._held.pop((pid, token), None)
