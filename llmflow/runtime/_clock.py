"""The clock of the machine, through the event loop that is running."""

from __future__ import annotations

import time

import anyio

from llmflow.backend import monotonic

__all__ = ["SystemClock"]


class SystemClock:
    """Time as the running event loop counts it, so that a loop on virtual time is virtual for every policy."""

    __slots__ = ()

    monotonic = staticmethod(monotonic)

    def time(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    async def sleep(self, seconds: float, /) -> None:
        """Wait on the running event loop."""
        await anyio.sleep(seconds)
