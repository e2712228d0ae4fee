"""Time that passes only when everybody waits for it, so that a test of an hour's backoff takes a millisecond.

```python
@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return virtual_backend(request.param)
```

It is meant for code whose waits are timers: what happens on sockets or in worker threads takes real time, and virtual
time does not wait for it.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from typing import TYPE_CHECKING, Any

from anyio.lowlevel import checkpoint

from llmflow.backend import monotonic

if TYPE_CHECKING:
    from selectors import SelectorKey

__all__ = ["SkippingClock", "VirtualLoop", "virtual_backend"]

_START = 1_000.0
_STUCK_AFTER = 30.0
"""Real seconds a loop may wait without a timer; only another thread could wake it, and none takes that long."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop whose clock jumps to the next timer whenever nothing is ready.

    Usable wherever a loop factory is: `asyncio.Runner(loop_factory=VirtualLoop)`, or as anyio's backend option
    `("asyncio", {"loop_factory": VirtualLoop})`. `loop.time()` starts at 1,000 and tells how much has passed.

    Raises:
        RuntimeError: From the loop itself, when every task waits for something that no timer will bring.
    """

    def __init__(self) -> None:
        self._now = _START
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def jump(self, seconds: float) -> None:
        """Let so much time pass at once."""
        self._now += seconds


class _JumpingSelector(selectors.DefaultSelector):
    """Looks for what is ready, and lets time pass instead of waiting for more."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        if timeout is None:
            return self._wait_for_a_thread()
        ready = super().select(0)
        if not ready and timeout > 0:
            self._loop.jump(timeout)
        return ready

    def _wait_for_a_thread(self) -> list[tuple[SelectorKey, int]]:
        ready = super().select(_STUCK_AFTER)
        if not ready:
            msg = f"the test is stuck: every task waits, no timer is set, and no thread woke the loop within {_STUCK_AFTER:g} s"
            raise RuntimeError(msg)
        return ready


class SkippingClock:
    """A runtime's clock whose sleeps take no time, for tests with real connections; `Runtime(clock=SkippingClock())`.

    Attributes:
        slept: How long each sleep would have taken, in order.
    """

    def __init__(self) -> None:
        self.slept: list[float] = []

    def monotonic(self) -> float:
        """Return the event loop's time, and what was slept."""
        return monotonic() + sum(self.slept)

    def time(self) -> float:
        """Return the wall clock's time, and what was slept."""
        return time.time() + sum(self.slept)

    async def sleep(self, seconds: float, /) -> None:
        """Take note, and go on at once."""
        self.slept.append(seconds)
        await checkpoint()


def virtual_backend(name: str) -> tuple[str, dict[str, Any]]:
    """Return anyio's backend `name` with options that make its time virtual; make a new one for each run.

    Args:
        name: `asyncio` or `trio`.
    """
    if name == "asyncio":
        return "asyncio", {"loop_factory": VirtualLoop}
    from trio.testing import MockClock  # trio is installed where it is asked for

    return "trio", {"clock": MockClock(autojump_threshold=0)}
