"""Tasks that belong together: the first failure ends all of them, and none outlives the group.

anyio's task group does the same, but costs 16-31 µs a task where asyncio's own task costs 5, wraps what it raises in
an ExceptionGroup, and forgets which failure came first (docs/explanation/performance.md).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Protocol, TypeAlias, cast

from llmflow.backend import running_loop  # pyright: ignore[reportPrivateUsage]  # exported there under this name
from llmflow.step import raise_first

__all__ = ["Group", "Work", "open_group"]

Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class Group(Protocol):
    """Runs tasks until all have ended."""

    def start(self) -> None:
        """Start one more task doing the group's work, in a copy of the context the group was opened in."""

    async def run(self) -> None:
        """Start the first task and wait for all; raises the first failure, or the cancellation from outside.

        Whatever it raises, it raises when no task is left.
        """


def open_group(work: Work, on_stop: Callable[[], None]) -> Group:
    """Return a group of tasks that all do `work`; `on_stop` is called before they are cancelled."""
    if (loop := running_loop()) is not None:
        return _AsyncioGroup(loop, work, on_stop)
    return _TrioGroup(work, on_stop)


class _Failures:
    """What went wrong in a group, in order."""

    __slots__ = ("_on_stop", "first", "later", "stopped")

    def __init__(self, on_stop: Callable[[], None]) -> None:
        self._on_stop = on_stop
        self.first: BaseException | None = None
        self.later: list[BaseException] = []
        self.stopped = False

    def add(self, error: BaseException) -> None:
        """Take note of a failure; one that ends programs goes before all others."""
        if self.first is None:
            self.first = error
        elif isinstance(self.first, Exception) and not isinstance(error, Exception):
            self.first, self.later = error, [self.first, *self.later]
        elif error is not self.first:
            self.later.append(error)

    def stop(self) -> bool:
        """Say that the group is stopping; False when that was said before."""
        if self.stopped:
            return False
        self.stopped = True
        self._on_stop()
        return True

    def note_on(self, cancelled: BaseException) -> BaseException:
        """Return a cancellation that goes before the failures, which it names."""
        for error in () if self.first is None else (self.first, *self.later):
            cancelled.add_note(f"failed as well: {type(error).__name__}: {error}")
        return cancelled

    def raise_any(self) -> None:
        """Raise the first failure, if there is one."""
        if self.first is not None:
            raise_first(self.first, self.later)


class _AsyncioGroup:
    """The book-keeping of `asyncio.TaskGroup`, without cancelling the task that waits: that one only waits."""

    __slots__ = ("_context", "_failures", "_loop", "_tasks", "_waiter", "_work")

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Work, on_stop: Callable[[], None]) -> None:
        self._loop = loop
        self._work = work
        self._failures = _Failures(on_stop)
        self._context: Context = copy_context()
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiter: asyncio.Future[None] | None = None

    def start(self) -> None:
        task = self._loop.create_task(self._work(), context=self._context.copy())
        if task.done():  # with an eager task factory
            self._take_note(task)
            return
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        if self._failures.stopped:  # by what an eager task factory ran meanwhile
            task.cancel()

    async def run(self) -> None:
        self.start()
        cancelled: asyncio.CancelledError | None = None
        while self._tasks:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            except asyncio.CancelledError as exc:
                # Once is enough: anyio repeats its cancellation in every cycle of the loop, and the tasks must be able
                # to clean up.
                cancelled = cancelled or exc
                self._stop()
        if cancelled is not None:
            raise self._failures.note_on(cancelled)
        self._failures.raise_any()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._take_note(task)
        if not self._tasks and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _take_note(self, task: asyncio.Task[None]) -> None:
        try:
            error = task.exception()
        except asyncio.CancelledError as exc:
            # Not ours: the work itself awaited something that somebody else had cancelled.
            error = None if self._failures.stopped else exc
        if error is not None:
            self._failures.add(error)
            self._stop()

    def _stop(self) -> None:
        if self._failures.stop():
            for task in self._tasks:
                task.cancel()


class _TrioGroup:
    """A nursery whose tasks never let a failure out, so that nothing comes wrapped in a group."""

    __slots__ = ("_context", "_failures", "_nursery", "_trio", "_work")

    def __init__(self, work: Work, on_stop: Callable[[], None]) -> None:
        self._trio: Any = sys.modules["trio"]
        self._work = work
        self._failures = _Failures(on_stop)
        self._context: Context = copy_context()
        self._nursery: Any = None

    def start(self) -> None:
        self._context.run(self._nursery.start_soon, self._guarded)

    async def run(self) -> None:
        try:
            async with self._trio.open_nursery() as self._nursery:
                self.start()
            if self._failures.first is not None:
                await self._trio.lowlevel.checkpoint_if_cancelled()
        except (self._trio.Cancelled, BaseExceptionGroup) as group:
            # One cancellation for each task, and they all say the same; trio may have added a KeyboardInterrupt.
            leaves = _leaves(group)
            leaving = next((one for one in leaves if not isinstance(one, self._trio.Cancelled)), leaves[0])
            raise self._failures.note_on(leaving) from None
        self._failures.raise_any()

    async def _guarded(self) -> None:
        try:
            await self._work()
        except self._trio.Cancelled:
            raise
        except BaseException as error:  # noqa: BLE001  # raised again, by `run`, when every task has ended
            self._failures.add(error)
            if self._failures.stop():
                self._nursery.cancel_scope.cancel()


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    inside = cast("BaseExceptionGroup[BaseException]", error).exceptions
    return [leaf for one in inside for leaf in _leaves(one)]
