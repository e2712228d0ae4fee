"""Between the task that asks and the one that reads: the pieces of an answer, in a buffer that makes the first wait."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmflow.backend import Wakeup

if TYPE_CHECKING:
    from llmflow.messages import CallScope, Chunk, Sink

__all__ = ["Feed", "Restarted"]

_ROOM = 16
"""Pieces that may wait for the reader; then the provider is not read on."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """What was shown so far is void: the answer begins again with another request.

    Attributes:
        attempt: Number of the request that follows, as in `Result.attempts`; 0 for an answer that was kept in a cache.
        reason: What became of the one before.
    """

    attempt: int
    reason: str


class Feed:
    """The pieces of one call's answer.

    Attributes:
        call: The call, once it has begun.
        attempt: The request whose pieces came last, None before the first piece.
    """

    __slots__ = ("_closed", "_ended", "_items", "_news", "_writers", "attempt", "call")

    def __init__(self) -> None:
        self.call: CallScope | None = None
        self.attempt: int | None = None
        self._items: deque[str | Restarted] = deque()
        self._news: Wakeup | None = None
        self._writers: list[Wakeup] = []
        self._ended = False
        self._closed = False

    # -- the task that asks --------------------------------------------------------------------------------------------

    def of(self, call: CallScope) -> Sink:
        """Return the sink of a call's requests."""
        self.call = call
        return self.put

    async def put(self, chunk: Chunk) -> None:
        """Take a piece, and wait while the reader has many to read."""
        if not chunk.text or self._closed or not self._is_current(chunk):
            return
        self._items.append(chunk.text)
        self._tell()
        while len(self._items) > _ROOM and not self._closed:
            wakeup = Wakeup()
            self._writers.append(wakeup)
            await wakeup.wait()

    def _is_current(self, chunk: Chunk) -> bool:
        """Whether it is of the newest request; the first piece of a newer one is a restart."""
        if self.attempt is None:
            self.attempt = chunk.attempt
        elif chunk.attempt > self.attempt:
            self.attempt = chunk.attempt
            self._items.append(Restarted(chunk.attempt, self._reason()))
        return chunk.attempt == self.attempt

    def _reason(self) -> str:
        last = self.call.attempts[-1] if self.call is not None and self.call.attempts else None
        if last is None:
            return "another request was faster"
        if last.outcome == "ok":
            return "the answer did not fit"
        return last.outcome if last.error is None else f"{last.outcome}: {last.error}"

    def end(self) -> None:
        """Say that nothing more comes."""
        self._ended = True
        self._tell()

    def _tell(self) -> None:
        if self._news is not None:
            self._news.set()

    # -- the task that reads -------------------------------------------------------------------------------------------

    async def get(self) -> str | Restarted | None:
        """Return the next piece, or that the answer begins again; None at the end."""
        while not self._items and not self._ended:
            if self._news is not None:
                msg = "this stream is read by another task; one task reads a stream"
                raise RuntimeError(msg)
            self._news = Wakeup()
            try:
                await self._news.wait()
            finally:
                self._news = None
        if not self._items:
            return None
        item = self._items.popleft()
        self._wake_writers()
        return item

    def has_more_text(self) -> bool:
        """Whether the next piece is here already and goes on with the answer."""
        return bool(self._items) and isinstance(self._items[0], str)

    def close(self) -> None:
        """Say that nobody reads any more."""
        self._closed = True
        self._items.clear()
        self._wake_writers()

    def _wake_writers(self) -> None:
        writers, self._writers = self._writers, []
        for one in writers:
            one.set()
