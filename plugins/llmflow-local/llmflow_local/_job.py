"""One request on its way between a task of an event loop and the engine's thread."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from llmflow.backend import Wakeup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from llmflow_local._failures import LocalFailure
    from llmflow_local._generation import Generation

__all__ = ["Job"]


class Job:
    """A request that waits for its turn, is being answered, or is done.

    Args:
        body: What the engine is sent.
        streamed: Whether the task wants to see text as it comes; without, it sleeps until the end.
    """

    def __init__(self, body: Mapping[str, object], *, streamed: bool) -> None:
        self.body = body
        self.stop = threading.Event()
        self._streamed = streamed
        self._lock = threading.Lock()
        self._texts: list[str] = []
        self._outcome: Generation | LocalFailure | None = None
        self._wakeup = Wakeup()

    # -- on the engine's thread ----------------------------------------------------------------------------------------

    def add(self, text: str) -> None:
        """Hand over a piece of text."""
        if self._streamed:
            with self._lock:
                self._texts.append(text)
                wakeup = self._wakeup
            _wake(wakeup)

    def finish(self, outcome: Generation | LocalFailure) -> None:
        """Hand over the end."""
        with self._lock:
            self._outcome = outcome
            wakeup = self._wakeup
        _wake(wakeup)

    # -- in the task ---------------------------------------------------------------------------------------------------

    async def wait_finished(self, on_text: Callable[[str], Awaitable[None]] | None) -> Generation:
        """Return the answer once it is there, or raise its LocalFailure; text goes to `on_text` on the way."""
        while True:
            await self._wakeup.wait()
            text, outcome = self._take()
            if text and on_text is not None:
                await on_text(text)
            if isinstance(outcome, Exception):
                raise outcome
            if outcome is not None:
                return outcome

    def _take(self) -> tuple[str, Generation | LocalFailure | None]:
        """Return what came since the last time, and get ready to be woken again."""
        with self._lock:
            text = "".join(self._texts)
            self._texts.clear()
            if self._outcome is None:
                self._wakeup = Wakeup()
            return text, self._outcome


def _wake(wakeup: Wakeup) -> None:
    # The task may have been cancelled and its loop closed in the meantime; then nobody is left to wake.
    with contextlib.suppress(RuntimeError):
        wakeup.set()
