"""Timers for what happens on every call and is nearly always over before they ring."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

__all__ = ["Delays"]


class _Waiting(Protocol):
    """What is to be started at a point of its loop's time, unless it is over before."""

    due: float
    over: bool

    def start(self) -> None: ...


class Delays:
    """As `llmflow.backend.Alarms`: what waits about equally long needs no heap, but one timer for the head of a queue."""

    __slots__ = ("_last", "_lock", "_queues")

    def __init__(self) -> None:
        self._queues: dict[asyncio.AbstractEventLoop, _Queue] = {}
        self._last: _Queue | None = None
        self._lock = threading.Lock()

    def add(self, loop: asyncio.AbstractEventLoop, waiting: _Waiting, seconds: float) -> None:
        """Start it after so many seconds, on this loop, which is the running one."""
        queue = self._last
        if queue is None or queue.loop is not loop:
            queue = self._last = self._queue_of(loop)
        queue.add(waiting, seconds)

    def _queue_of(self, loop: asyncio.AbstractEventLoop) -> _Queue:
        with self._lock:
            queue = self._queues.get(loop)
            if queue is None:
                self._queues = {one: kept for one, kept in self._queues.items() if not one.is_closed()}
                queue = self._queues[loop] = _Queue(loop)
            return queue


class _Queue:
    """Who waits on one loop, the earliest first."""

    __slots__ = ("_timer", "_waiting", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: deque[_Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, waiting: _Waiting, seconds: float) -> None:
        waiting.due = due = self.loop.time() + seconds
        line = self._waiting
        while line and line[0].over:
            line.popleft()
        if line and line[-1].due > due:  # the percentile has fallen: it goes before those who wait already
            self.loop.call_at(due, waiting.start)
            return
        line.append(waiting)
        if self._timer is None or self._timer.when() > due:
            self._set(due)

    def _set(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(due, self._ring)

    def _ring(self) -> None:
        """Start whoever is due, and set the timer for the next; without any there is no timer."""
        now = self.loop.time()
        self._timer = None
        line = self._waiting
        while line:
            first = line[0]
            if not first.over and first.due > now:
                self._set(first.due)
                return
            line.popleft()
            if not first.over:
                first.start()
