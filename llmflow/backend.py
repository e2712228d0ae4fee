"""The few primitives whose price matters on every call, on the backend that is running.

anyio gives the same on both backends, but its timers and task groups cost as much as the rest of a call together
(8-13 µs and 16-31 µs, see docs/explanation/performance.md). On asyncio these use asyncio's own primitives; on trio,
trio's. Everything that is not on the hot path uses anyio.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from asyncio import _get_running_loop as running_loop  # pyright: ignore[reportPrivateUsage]  # the public one raises
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from anyio import CancelScope

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import TracebackType
    from typing import Self

__all__ = [
    "Alarm",
    "Alarms",
    "Broadcast",
    "MovableAlarm",
    "Wakeup",
    "alarm",
    "cancelled_class",
    "end_tasks",
    "loop_token",
    "monotonic",
    "on_asyncio",
    "on_trio",
    "running_loop",
]

T = TypeVar("T")


def on_asyncio() -> bool:
    """Whether an asyncio loop runs in this thread."""
    return running_loop() is not None


def on_trio() -> bool:
    """Whether trio runs in this thread."""
    trio = sys.modules.get("trio")
    return trio is not None and running_loop() is None and trio.lowlevel.in_trio_run()


def loop_token() -> object | None:
    """Return what identifies the running event loop, None outside of any."""
    if (loop := running_loop()) is not None:
        return loop
    return sys.modules["trio"].lowlevel.current_trio_token() if on_trio() else None


def monotonic() -> float:
    """Seconds on the clock of the running event loop, so that a loop on virtual time is one everywhere."""
    if (loop := running_loop()) is not None:
        return loop.time()
    if not on_trio():
        return time.monotonic()
    clock = sys.modules["trio"].lowlevel.current_clock()
    # trio adds a random offset of its own to each run; without it the loops of several threads share one time line,
    # and what one of them keeps until a certain point (an open breaker, a deadline) means the same to the others.
    return clock.current_time() - getattr(clock, "offset", 0.0)  # type: ignore[no-any-return]


def cancelled_class() -> type[BaseException]:
    """Return the exception class with which the running backend cancels."""
    if running_loop() is not None or "trio" not in sys.modules:
        return asyncio.CancelledError
    return sys.modules["trio"].Cancelled  # type: ignore[no-any-return]


async def end_tasks(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks of asyncio and wait until they have ended, however often the caller is cancelled meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    for task in tasks:
        task.cancel()
    # anyio repeats a cancellation in every turn of the loop, so from the first one on it is kept out.
    with CancelScope() as shield:
        while running := [task for task in tasks if not task.done()]:
            try:
                await asyncio.wait(running)
            except asyncio.CancelledError as exc:
                cancelled, shield.shield = exc, True
    if cancelled is not None:
        raise cancelled


class Alarm(Protocol):
    """A context that is cancelled from inside when its time is up, and swallows that cancellation."""

    fired: bool
    """Whether the time was up before the body ended."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> bool: ...


class MovableAlarm(Alarm, Protocol):
    """An alarm that can be set to another time while it runs."""

    def move(self, seconds: float) -> None:
        """Ring so many seconds from now instead; one that was infinite from the start, or has rung, stays as it is."""


def alarm(seconds: float) -> MovableAlarm:
    """Return a context that ends after `seconds`; ask `fired` afterwards. Infinite seconds cost nothing."""
    if (loop := running_loop()) is not None:
        return _AsyncioAlarm(loop, seconds)
    return _TrioAlarm(seconds)


_NO_TASK = "a timeout needs a task; call this from a coroutine that runs in one"


class _AsyncioAlarm:
    """One `call_later` and one `cancel`; the book-keeping is that of `asyncio.timeout`.

    It counts `Task.cancelling()` so that a cancellation from outside that arrives together with the alarm still
    leaves as a cancellation (https://docs.python.org/3/library/asyncio-task.html#asyncio.Task.uncancel).
    """

    __slots__ = ("_before", "_handle", "_loop", "_seconds", "_task", "fired")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._handle: asyncio.TimerHandle | None = None
        self.fired = False

    def __enter__(self) -> Self:
        if self._seconds != float("inf"):
            task = asyncio.current_task(self._loop)
            if task is None:  # a callback, not a task: nobody could be cancelled
                raise RuntimeError(_NO_TASK)
            self._task = task
            self._before = task.cancelling()
            self._handle = self._loop.call_later(max(self._seconds, 0.0), self._fire)
        return self

    def move(self, seconds: float) -> None:
        if self._handle is not None and not self.fired:
            self._handle.cancel()
            if seconds != float("inf"):
                self._handle = self._loop.call_later(max(seconds, 0.0), self._fire)

    def _fire(self) -> None:
        self.fired = True
        self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> bool:
        if self._handle is None:
            return False
        self._handle.cancel()
        if not self.fired:
            return False
        ours = self._task.uncancel() <= self._before
        return ours and kind is not None and issubclass(kind, asyncio.CancelledError)


class Alarms:
    """Alarms that all last as long, cheaper by two thirds than `alarm` for what happens on every call.

    As each ends after all those before it, they need no heap: a queue per event loop with one timer for its head.
    """

    __slots__ = ("_last", "_lock", "_queues", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._queues: dict[asyncio.AbstractEventLoop, _Queue] = {}
        self._last: _Queue | None = None
        self._lock = threading.Lock()

    def start(self) -> Alarm:
        """Return a context like `alarm(seconds)`."""
        loop = running_loop()
        if loop is None:
            return _TrioAlarm(self._seconds)
        queue = self._last
        if queue is None or queue.loop is not loop:
            queue = self._last = self._queue_of(loop)
        return _QueuedAlarm(queue)

    def _queue_of(self, loop: asyncio.AbstractEventLoop) -> _Queue:
        with self._lock:
            queue = self._queues.get(loop)
            if queue is None:
                # A queue refers to its loop, so a weak dictionary would keep both; those of closed loops are dropped here.
                self._queues = {one: kept for one, kept in self._queues.items() if not one.is_closed()}
                queue = self._queues[loop] = _Queue(loop, self._seconds)
            return queue


_KEPT = 64


class _Queue:
    """The alarms of one length on one loop, the earliest first; those that are over are dropped from the front."""

    __slots__ = ("alarms", "ended", "loop", "seconds", "timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.loop = loop
        self.seconds = seconds
        self.alarms: deque[_QueuedAlarm] = deque()
        self.ended = 0
        """How many of them are over, and wait for a longer one before them."""
        self.timer: asyncio.TimerHandle | None = None

    def add(self, alarm: _QueuedAlarm) -> None:
        alarm.ends = self.loop.time() + self.seconds
        self.alarms.append(alarm)
        if self.timer is None:
            self.timer = self.loop.call_at(alarm.ends, self._ring)

    def _ring(self) -> None:
        """Fire what is due, and set the timer for what is then the earliest; without any there is no timer."""
        now = self.loop.time()
        self.timer = None
        while self.alarms:
            first = self.alarms[0]
            if first.task is not None:
                if first.ends > now:
                    self.timer = self.loop.call_at(first.ends, self._ring)
                    return
                first.fired = True
                first.task.cancel()
            else:
                self.ended -= 1
            self.alarms.popleft()

    def drop_ended(self) -> None:
        """Drop from the front what is over; when most of what is behind a long one is over too, drop that as well."""
        alarms = self.alarms
        self.ended += 1
        while alarms and alarms[0].task is None:
            alarms.popleft()
            self.ended -= 1
        if self.ended > _KEPT and self.ended * 2 > len(alarms):
            self.alarms = deque(one for one in alarms if one.task is not None)
            self.ended = 0


class _QueuedAlarm:
    """As `_AsyncioAlarm`, with its timer shared; `task` is None once it is over."""

    __slots__ = ("_before", "_queue", "ends", "fired", "task")

    ends: float
    task: asyncio.Task[object] | None

    def __init__(self, queue: _Queue) -> None:
        self._queue = queue
        self.fired = False

    def __enter__(self) -> Self:
        queue = self._queue
        self.task = task = asyncio.current_task(queue.loop)
        if task is None:
            raise RuntimeError(_NO_TASK)
        self._before = task.cancelling()
        queue.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> bool:
        task, self.task = self.task, None
        if not self.fired:
            self._queue.drop_ended()
            return False
        assert task is not None
        ours = task.uncancel() <= self._before
        return ours and kind is not None and issubclass(kind, asyncio.CancelledError)


class _TrioAlarm:
    __slots__ = ("_scope", "fired")

    def __init__(self, seconds: float) -> None:
        trio = sys.modules["trio"]
        self._scope = trio.CancelScope(deadline=trio.current_time() + seconds)
        self.fired = False

    def __enter__(self) -> Self:
        self._scope.__enter__()
        return self

    def move(self, seconds: float) -> None:
        self._scope.deadline = sys.modules["trio"].current_time() + seconds

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> bool:
        swallowed = bool(self._scope.__exit__(kind, exc, tb))
        self.fired = self._scope.cancelled_caught
        return swallowed


class Wakeup:
    """A one-shot event that any thread may set and one task of any loop waits for."""

    __slots__ = ("_lock", "_notify", "_set")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._notify: Callable[[], object] | None = None
        self._set = False

    def set(self) -> bool:
        """Wake the waiter, now or when it comes; from any thread. False when the waiter's loop is gone."""
        with self._lock:
            self._set = True
            notify = self._notify
        if notify is not None:
            try:
                notify()
            except RuntimeError:  # what asyncio and trio (`RunFinishedError`) raise for a loop that has ended
                return False
        return True

    async def wait(self) -> None:
        """Return once `set` was called."""
        if (loop := running_loop()) is not None:
            await self._wait_asyncio(loop)
        else:
            await self._wait_trio()

    async def _wait_asyncio(self, loop: asyncio.AbstractEventLoop) -> None:
        future: asyncio.Future[None] = loop.create_future()

        def finish() -> None:
            if not future.done():
                future.set_result(None)

        if self._arm(lambda: loop.call_soon_threadsafe(finish)):
            return
        await future

    async def _wait_trio(self) -> None:
        trio = sys.modules["trio"]
        event, token = trio.Event(), trio.lowlevel.current_trio_token()
        if self._arm(lambda: token.run_sync_soon(event.set)):
            return
        await event.wait()

    def _arm(self, notify: Callable[[], object]) -> bool:
        """Remember how to wake the waiter; True when there is nothing to wait for."""
        with self._lock:
            if self._set:
                return True
            self._notify = notify
            return False


class Broadcast:
    """A one-shot event that any thread may set and any number of tasks of any loops wait for.

    Each loop is woken once, however many of its tasks wait: to wake a loop costs more than what they do then.
    """

    __slots__ = ("_lock", "_set", "_waiting")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set = False
        self._waiting: dict[Any, list[Callable[[], object]]] = {}
        """What wakes each task, by what runs something in its loop."""

    def set(self) -> None:
        """Wake everybody; from any thread."""
        with self._lock:
            self._set = True
            waiting, self._waiting = self._waiting, {}
        for run_soon, wakers in waiting.items():
            # What asyncio and trio (`RunFinishedError`) raise for a loop that has ended: nobody waits there any more.
            with suppress(RuntimeError):
                run_soon(_all_of(wakers))

    async def wait(self) -> None:
        """Return once `set` was called."""
        if (loop := running_loop()) is not None:
            future: asyncio.Future[None] = loop.create_future()
            if self._arm(loop.call_soon_threadsafe, lambda: None if future.done() else future.set_result(None)):
                await future
            return
        trio = sys.modules["trio"]
        event = trio.Event()
        if self._arm(trio.lowlevel.current_trio_token().run_sync_soon, event.set):
            await event.wait()

    def _arm(self, run_soon: Any, wake: Callable[[], object]) -> bool:
        """Remember how to wake a task; False when there is nothing to wait for."""
        with self._lock:
            if not self._set:
                self._waiting.setdefault(run_soon, []).append(wake)
            return not self._set


def _all_of(functions: list[Callable[[], object]]) -> Callable[[], None]:
    def call_all() -> None:
        for function in functions:
            function()

    return call_all
