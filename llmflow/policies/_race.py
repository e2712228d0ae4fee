"""One request with others beside it: the first answer is taken, and nothing is left running.

The first request runs in its caller's own task, so that a race in which no other starts costs a timer. The others run
in tasks of their own. On asyncio an answer of theirs interrupts the first as `asyncio.timeout` would, with the same
book-keeping, so that a cancellation from outside is never taken for ours; on trio a cancel scope does.
"""

from __future__ import annotations

import asyncio
import sys
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

from anyio import CancelScope

from llmflow.backend import on_trio, running_loop
from llmflow.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

__all__ = ["Race", "start_race"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_Contest: TypeAlias = "Callable[[], Coroutine[Any, Any, T] | None]"
"""Called when it is time for one more; None when there is to be none."""


class Race(Protocol[T]):
    """A first request that others may join.

    Attributes:
        failed: Whether the first request failed, whoever answered then.
    """

    failed: bool

    def sent(self) -> None:
        """Begin to count the time after which another one starts."""

    async def run(self, first: Awaitable[T], /) -> T:
        """Return the first answer of all; when nobody has one, raise the failure of `first`."""
        ...


def start_race(delay: float, limit: int, contest: _Contest[T]) -> Race[T] | None:
    """Return a race in which up to `limit` others start, each `delay` seconds after the one before was sent or started.

    None where nothing can run beside the caller: outside of a task.
    """
    if (loop := running_loop()) is not None:
        task = asyncio.current_task(loop)
        return None if task is None else _AsyncioRace(loop, task, delay, limit, contest)
    return _TrioRace(delay, limit, contest) if on_trio() else None


def _mention(error: Exception, failures: list[BaseException]) -> None:
    """Say in the failure of the first that others failed too; that one was refused is no news."""
    for other in failures:
        if not isinstance(other, Rejected):
            error.add_note(f"Another request beside it failed too, with {type(other).__name__}: {other}")


class _AsyncioRace(Generic[T]):
    __slots__ = (
        "_before",
        "_contest",
        "_delay",
        "_interrupted",
        "_left",
        "_loop",
        "_others",
        "_over",
        "_task",
        "_timer",
        "_winner",
        "failed",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        task: asyncio.Task[Any],
        delay: float,
        limit: int,
        contest: _Contest[T],
    ) -> None:
        self._loop = loop
        self._task = task
        self._before = task.cancelling()
        self._delay = delay
        self._left = limit
        self._contest = contest
        self._timer: asyncio.TimerHandle | None = None
        self._others: list[asyncio.Task[T]] = []
        self._winner: asyncio.Task[T] | None = None
        self._interrupted = False
        self._over = False
        self.failed = False

    def sent(self) -> None:
        if self._timer is None and not self._over:
            # The timer keeps a copy of the caller's context, and the task that it starts takes that over.
            self._timer = self._loop.call_later(self._delay, self._start)

    def _start(self) -> None:
        other = self._contest()
        if other is None:
            return
        task = self._loop.create_task(other)
        self._others.append(task)
        task.add_done_callback(self._ended)
        self._left -= 1
        if self._left:
            self._timer = self._loop.call_later(self._delay, self._start)

    def _ended(self, task: asyncio.Task[T]) -> None:
        # Asking for the exception also keeps asyncio from reporting the failure of a loser as one nobody looked at.
        if task.cancelled() or task.exception() is not None or self._winner is not None:
            return
        self._winner = task
        if not self._over:
            self._interrupted = True
            self._task.cancel()

    async def run(self, first: Awaitable[T], /) -> T:
        try:
            value = await first
        except GeneratorExit:  # thrown away in the middle: nothing can be waited for any more
            self._stop()
            for other in self._others:
                other.cancel()
            raise
        except BaseException as error:  # noqa: BLE001  # raised again, unless another one answers
            self._stop()
            return await self._after(error)
        self._stop()
        if self._others:
            return await self._settle(value)
        return value

    def _stop(self) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()

    async def _settle(self, value: T) -> T:
        """Return an answer when the others have ended."""
        if self._interrupted and self._cancelled_from_outside():
            await self._drop()
            raise asyncio.CancelledError
        await self._drop()
        return value

    async def _after(self, error: BaseException) -> T:
        """Return what another one answered, or raise what ended the first, when all of them have ended."""
        if self._interrupted:
            assert self._winner is not None
            if not self._cancelled_from_outside():
                return await self._settle_on(self._winner)
            error = error if isinstance(error, asyncio.CancelledError) else asyncio.CancelledError()
        elif isinstance(error, Exception) and self._task.cancelling() <= self._before:
            # Where the count is higher, the failure is what the request made of a cancellation from outside.
            self.failed = True
            if await self._any_success():
                assert self._winner is not None
                return await self._settle_on(self._winner)
            _mention(error, [failure for one in self._others if not one.cancelled() and (failure := one.exception())])
        await self._drop()
        raise error

    def _cancelled_from_outside(self) -> bool:
        """Take our own interruption back, and say whether there was one that is not ours."""
        return self._task.uncancel() > self._before

    async def _settle_on(self, winner: asyncio.Task[T]) -> T:
        await self._drop()
        return winner.result()

    async def _any_success(self) -> bool:
        """Wait until one of the others has an answer, or all of them have ended without."""
        while self._winner is None and (running := [one for one in self._others if not one.done()]):
            try:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            except BaseException:
                await self._drop()
                raise
        return self._winner is not None

    async def _drop(self) -> None:
        """Cancel who still runs, and wait for them however often the caller is cancelled meanwhile."""
        cancelled: asyncio.CancelledError | None = None
        for other in self._others:
            other.cancel()
        # anyio repeats a cancellation in every turn of the loop, so from the first one on it is kept out.
        with CancelScope() as shield:
            while running := [one for one in self._others if not one.done()]:
                try:
                    await asyncio.wait(running)
                except asyncio.CancelledError as exc:
                    cancelled, shield.shield = exc, True
        if cancelled is not None:
            raise cancelled


class _TrioRace(Generic[T]):
    __slots__ = ("_changed", "_contest", "_delay", "_limit", "_others", "_scope", "_winner", "failed")

    def __init__(self, delay: float, limit: int, contest: _Contest[T]) -> None:
        trio = sys.modules["trio"]
        self._delay = delay
        self._limit = limit
        self._contest = contest
        self._scope = trio.CancelScope()
        self._others: list[_TrioTask] = []
        self._changed = trio.Event()
        self._winner: list[T] = []
        self.failed = False

    def sent(self) -> None:
        if not self._others:
            self._others.append(_TrioTask(self._start_others()))

    async def _start_others(self) -> None:
        for _ in range(self._limit):
            await sys.modules["trio"].sleep(self._delay)
            other = self._contest()
            if other is None:
                return
            self._others.append(_TrioTask(self._run_other(other)))

    async def _run_other(self, other: Coroutine[Any, Any, T]) -> None:
        try:
            value = await other
        finally:
            self._changed.set()
        if not self._winner:
            self._winner.append(value)
            self._scope.cancel()

    async def run(self, first: Awaitable[T], /) -> T:
        values: list[T] = []
        failure: Exception | None = None
        try:
            with self._scope:
                try:
                    values.append(await first)
                except Exception as error:  # noqa: BLE001  # raised again below, unless another one answers
                    failure = error
            if failure is not None and not self._scope.cancel_called:
                self.failed = True
                await self._any_success()
        except GeneratorExit:
            for other in self._others:
                other.cancel()
            raise
        except BaseException:
            await self._drop()
            raise
        if self._others:
            await self._drop()
            await sys.modules["trio"].lowlevel.checkpoint_if_cancelled()  # that it may have been meanwhile
        if answers := values or self._winner:
            return answers[0]
        assert failure is not None
        _mention(failure, [one.failure for one in self._others if one.failure is not None])
        raise failure

    async def _any_success(self) -> None:
        """Wait until one of the others has an answer, or all of them have ended without."""
        if self._others:
            self._others[0].cancel()  # no further ones
        while not self._winner and any(not one.ended.is_set() for one in self._others[1:]):
            self._changed = sys.modules["trio"].Event()
            await self._changed.wait()

    async def _drop(self) -> None:
        """Cancel who still runs, and wait for them however often the caller is cancelled meanwhile."""
        for other in self._others:
            other.cancel()
        with sys.modules["trio"].CancelScope(shield=True):
            for other in self._others:
                await other.ended.wait()


class _TrioTask:
    """A task beside its caller, in a copy of its context; it keeps its failure to itself."""

    __slots__ = ("_scope", "ended", "failure")

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        trio = sys.modules["trio"]
        self._scope = trio.CancelScope()
        self.ended = trio.Event()
        self.failure: BaseException | None = None
        # Not in a nursery: that would have to be open around every request, and would wrap what it raises in a group.
        trio.lowlevel.spawn_system_task(self._run, work, context=copy_context())

    def cancel(self) -> None:
        self._scope.cancel()

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            with self._scope:
                await work
        except Exception as error:  # noqa: BLE001  # told by who waits for it
            self.failure = error
        finally:
            self.ended.set()
