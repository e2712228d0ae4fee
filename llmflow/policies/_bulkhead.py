"""Bulkhead: so many requests at a time."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from llmflow.backend import Wakeup, alarm
from llmflow.context import blocked_loop
from llmflow.errors import ProviderTimeout, QueueFull
from llmflow.policy import Band, Options, RequestLayer, Site, State, check_count

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmflow.messages import Reply, Request

__all__ = ["Bulkhead"]


@dataclass(frozen=True, slots=True)
class Bulkhead(Options):
    """Lets at most `limit` requests of one connection be under way; the others wait their turn, first come first served.

    Args:
        limit: How many requests may be under way at a time.
        queue: How many may wait; one more is refused with `QueueFull`. Unbounded unless said.
        name: Bulkheads of one name share their places; by default each place of declaration has its own.
    """

    limit: int = 256
    queue: int | None = None
    name: str | None = None

    band: ClassVar[Band] = Band.BULKHEAD
    stacking: ClassVar[Literal["nearest", "all"]] = "all"

    def __post_init__(self) -> None:
        check_count(self.limit, name="Bulkhead: limit")
        if self.queue is not None:
            check_count(self.queue, name="Bulkhead: queue", minimum=0)

    def wrap(self, proceed: RequestLayer, site: Site, /) -> RequestLayer:
        """Return `proceed` behind the bulkhead of its connection."""
        clock = site.clock
        # Without a name, one that is declared anew with other options (`with_`, a notebook) is another one.
        name = self.name or (site.declared, self.limit, self.queue)
        label = self.name or f"{site.declared} {site.model.provider}"
        places = site.shared(("bulkhead", name, site.model.connection), lambda: Places(self.limit, self.queue, label))
        places.check_same(self.limit, self.queue, self.name)

        async def bulkhead(request: Request) -> Reply:
            if not places.take_nowait():
                await _wait(places, request, clock.monotonic)
            try:
                return await proceed(request)
            finally:
                places.give_back()

        return bulkhead


async def _wait(places: Places, request: Request, monotonic: Callable[[], float]) -> None:
    """Wait for a place; a second request beside a slow one does not, as it would only add to what is too much already."""
    model = request.model.name
    if request.hedge:
        msg = f"all {places.limit} places at {model} are taken, and a second request beside a slow one does not wait"
        raise QueueFull(msg)
    since = monotonic()
    try:
        await places.take(request.deadline - since, model)
    finally:
        request.call.waited_s += monotonic() - since


class Places:
    """A counting semaphore for any number of threads and event loops, fair and with a bounded queue."""

    __slots__ = ("_free", "_label", "_lock", "_waiting", "limit", "queue")

    def __init__(self, limit: int, queue: int | None, label: str = "") -> None:
        self.limit = limit
        self.queue = queue
        self._label = label
        self._free = limit
        self._waiting: deque[Wakeup] = deque()
        self._lock = threading.Lock()

    def check_same(self, limit: int, queue: int | None, name: str | None) -> None:
        """Refuse two bulkheads of one name that differ."""
        if (limit, queue) != (self.limit, self.queue):
            from llmflow.errors import DefinitionError  # the rare path

            msg = f"two bulkheads are called {name!r} and differ: {self.limit}/{self.queue} and {limit}/{queue}"
            raise DefinitionError(msg)

    def take_nowait(self) -> bool:
        """Take a place if one is free and nobody waits for it."""
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return True
            return False

    async def take(self, seconds: float, model: str) -> None:
        """Wait for a place, at most so long."""
        turn = self._line_up(model)
        if turn is None:
            return None
        with alarm(seconds):
            try:
                return await turn.wait()
            except BaseException:
                self._step_out(turn)
                raise
        msg = f"the deadline passed while {len(self._waiting) + 1} requests waited for one of {self.limit} places at {model}"
        raise ProviderTimeout(msg, cut=True, model=model)

    def _line_up(self, model: str) -> Wakeup | None:
        with self._lock:
            if self._free > 0:  # given back since `take_nowait`
                self._free -= 1
                return None
            if blocked_loop.get() is not None:
                msg = f"all {self.limit} places at {model} are taken, and .sync() must not wait for them in the thread of a running loop"
                raise _with_hint(QueueFull(msg), "Inside a running loop, `await` the call instead of using .sync().")
            if self.queue is not None and len(self._waiting) >= self.queue:
                msg = f"{self.limit} requests to {model} are under way and {len(self._waiting)} wait already"
                raise QueueFull(msg)
            turn = Wakeup()
            self._waiting.append(turn)
            return turn

    def _step_out(self, turn: Wakeup) -> None:
        """Leave the queue; a place that was handed over in the same moment goes to the next in line."""
        with self._lock:
            try:
                self._waiting.remove(turn)
            except ValueError:
                handed_over = True
            else:
                handed_over = False
        if handed_over:
            self.give_back()

    def give_back(self) -> None:
        """Hand the place to who has waited longest, or keep it free."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._free += 1
                    return
                turn = self._waiting.popleft()
            if turn.set():
                return

    @property
    def statistics(self) -> dict[str, int]:
        """How many places are taken, and how many requests wait."""
        return {"in_use": self.limit - self._free, "waiting": len(self._waiting)}

    def state(self) -> State | None:
        """Say how many places are taken and how many wait, while any are."""
        values = self.statistics
        if not any(values.values()):
            return None  # every connection has a bulkhead by default; an idle one says nothing
        return State(kind="bulkhead", name=self._label, values={**values, "limit": self.limit})


def _with_hint(error: QueueFull, hint: str) -> QueueFull:
    error.add_note(hint)
    return error
