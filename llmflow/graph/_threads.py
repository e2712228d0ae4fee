"""Bodies of tasks that are not async: a worker thread each, and a count of those that nobody waits for any more."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio.to_thread

__all__ = ["AbandonedThreads", "abandoned_threads", "in_thread"]


class AbandonedThreads:
    """Worker threads whose call was cancelled or timed out: Python cannot stop them, so they are counted and joined.

    Attributes:
        running: How many still run.
        total: How many were ever abandoned.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.running = 0
        self.total = 0

    def started(self) -> None:
        """Take note that a thread was left alone."""
        with self._changed:
            self.running += 1
            self.total += 1

    def finished(self) -> None:
        """Take note that such a thread has come to its end."""
        with self._changed:
            self.running -= 1
            self._changed.notify_all()

    def join(self, seconds: float | None = None) -> bool:
        """Wait until none is left, at most so long; False when some still run. Blocks the calling thread."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.running, seconds)

    def __repr__(self) -> str:
        return f"<AbandonedThreads running={self.running} total={self.total}>"


def abandoned_threads(runtime: Any) -> AbandonedThreads:
    """Return the count of one runtime."""
    return runtime.shared(AbandonedThreads, AbandonedThreads)  # type: ignore[no-any-return]


def in_thread(function: Callable[..., Any], abandoned: AbandonedThreads) -> Callable[..., Awaitable[Any]]:
    """Return an async function that calls `function` in a worker thread, with the caller's context variables.

    When the wait is cancelled the thread is left alone, and counted until it ends.
    """

    async def run(**inputs: object) -> Any:
        call = _ThreadCall(function, inputs, abandoned)
        try:
            return await anyio.to_thread.run_sync(call.run, abandon_on_cancel=True)
        except BaseException:
            call.give_up()
            raise

    return run


class _ThreadCall:
    """One call in a thread; who comes second, the thread's end or the one who gives up, does the book-keeping."""

    __slots__ = ("_abandoned", "_function", "_given_up", "_inputs", "_lock", "_running")

    def __init__(self, function: Callable[..., Any], inputs: dict[str, object], abandoned: AbandonedThreads) -> None:
        self._function = function
        self._inputs = inputs
        self._abandoned = abandoned
        self._lock = threading.Lock()
        self._running = False
        self._given_up = False

    def run(self) -> Any:
        """Do the work; called in the thread."""
        with self._lock:
            if self._given_up:  # before a thread was free: there is nobody to do it for
                return None
            self._running = True
        try:
            return self._function(**self._inputs)
        finally:
            self._end()

    def _end(self) -> None:
        with self._lock:
            self._running = False
            left_alone = self._given_up
        if left_alone:
            self._abandoned.finished()

    def give_up(self) -> None:
        """Take note that nobody waits any more; called on the event loop."""
        with self._lock:
            self._given_up = True
            if self._running:
                self._abandoned.started()
