"""Races on asyncio: an answer of the others interrupts the first request as `asyncio.timeout` would."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from llmflow.backend import end_tasks
from llmflow.policies._racing import Racing, mention

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from contextvars import Context

    from llmflow.messages import Reply, Request
    from llmflow.policies._racing import Rules

__all__ = ["AsyncioRace"]


class AsyncioRace(Racing):
    """The first request runs in its caller's own task, the others in tasks of their own.

    `Task.cancelling()` is counted as `asyncio.timeout` does, so that a cancellation from outside is never taken for ours.
    """

    __slots__ = (
        "_before",
        "_context",
        "_interrupted",
        "_others",
        "_task",
        "_winner",
        "due",
        "over",
    )

    _context: Context

    def __init__(self, request: Request, delay: float, rules: Rules, task: asyncio.Task[Any]) -> None:
        Racing.__init__(self, request, delay, rules)
        self._task = task
        self._before = task.cancelling()
        self._others: list[asyncio.Task[Reply]] | None = None
        self._winner: asyncio.Task[Reply] | None = None
        self._interrupted = False
        self.due = 0.0
        self.over = False

    def _begin(self) -> None:
        self._context = copy_context()
        self._rules.delays.add(self._task.get_loop(), self, self._delay)

    def start(self) -> None:
        """Start another one, if there is to be one; called by the timer, outside of any task."""
        if self.over:
            return
        other = self._rules.contest(self._request)
        if other is None:
            return
        task = self._task.get_loop().create_task(other, context=self._context.copy())
        self._others = [*(self._others or ()), task]
        task.add_done_callback(self._ended)
        if len(self._others) < self._rules.limit:
            self._rules.delays.add(self._task.get_loop(), self, self._delay)

    def _ended(self, task: asyncio.Task[Reply]) -> None:
        # Asking for the exception also keeps asyncio from reporting the failure of a loser as one nobody looked at.
        if task.cancelled() or task.exception() is not None or self._winner is not None:
            return
        self._winner = task
        if not self.over:
            self._interrupted = True
            self._task.cancel()

    async def run(self, first: Awaitable[Reply], /) -> Reply:
        try:
            value = await first
        except GeneratorExit:  # thrown away in the middle: nothing can be waited for any more
            self.over = True
            for other in self._others or ():
                other.cancel()
            raise
        except BaseException as error:  # noqa: BLE001  # raised again, unless another one answers
            self.over = True
            return await self._after(error)
        self.over = True
        if self._others:
            return await self._settle(value)
        return value

    async def _settle(self, value: Reply) -> Reply:
        """Return an answer when the others have ended."""
        if self._interrupted and self._cancelled_from_outside():
            await self._drop()
            raise asyncio.CancelledError
        await self._drop()
        return value

    async def _after(self, error: BaseException) -> Reply:
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
            mention(error, (None if one.cancelled() else one.exception() for one in self._others or ()))
        await self._drop()
        raise error

    def _cancelled_from_outside(self) -> bool:
        """Take our own interruption back, and say whether there was one that is not ours."""
        return self._task.uncancel() > self._before

    async def _settle_on(self, winner: asyncio.Task[Reply]) -> Reply:
        await self._drop()
        return winner.result()

    async def _any_success(self) -> bool:
        """Wait until one of the others has an answer, or all of them have ended without."""
        while self._winner is None and (running := [one for one in self._others or () if not one.done()]):
            try:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            except BaseException:
                await self._drop()
                raise
        return self._winner is not None

    async def _drop(self) -> None:
        """Cancel who still runs, and wait for them however often the caller is cancelled meanwhile."""
        await end_tasks(self._others or ())
