"""Races on trio: an answer of the others cancels the scope in which the first request runs."""

from __future__ import annotations

import sys
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from llmflow.policies._racing import Racing, mention

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

    from llmflow.messages import Reply, Request
    from llmflow.policies._racing import Rules

__all__ = ["TrioRace"]


class TrioRace(Racing):
    """The first request runs in its caller's own task, the timer and the others in tasks of their own."""

    __slots__ = ("_changed", "_others", "_scope", "_winner")

    def __init__(self, request: Request, delay: float, rules: Rules) -> None:
        Racing.__init__(self, request, delay, rules)
        trio = sys.modules["trio"]
        self._scope = trio.CancelScope()
        self._others: list[_TrioTask] = []
        self._changed = trio.Event()
        self._winner: list[Reply] = []

    def _begin(self) -> None:
        self._others.append(_TrioTask(self._start_others()))

    async def _start_others(self) -> None:
        for _ in range(self._rules.limit):
            await sys.modules["trio"].sleep(self._delay)
            other = self._rules.contest(self._request)
            if other is None:
                return
            self._others.append(_TrioTask(self._run_other(other)))

    async def _run_other(self, other: Coroutine[Any, Any, Reply]) -> None:
        try:
            value = await other
        finally:
            self._changed.set()
        if not self._winner:
            self._winner.append(value)
            self._scope.cancel()

    async def run(self, first: Awaitable[Reply], /) -> Reply:
        values: list[Reply] = []
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
        mention(failure, (one.failure for one in self._others))
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
