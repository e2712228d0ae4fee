"""`gather`: calls side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any, TypeVar, overload

from llmflow.context import tracer
from llmflow.graph._groups import open_group
from llmflow.graph._operation import Operation, discard, mistake
from llmflow.graph._placeholder import is_placeholder

__all__ = ["gather"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
T = TypeVar("T")


class _Gather(Operation[tuple[Any, ...]]):
    kind = "gather"

    def __init__(self, calls: tuple[Any, ...]) -> None:
        for position, call in enumerate(calls, 1):
            if is_placeholder(call) or not hasattr(call, "__await__"):
                what = "the value of an awaited call" if is_placeholder(call) else type(call).__name__
                msg = f"argument {position} of gather() is {what}; give it calls that are not awaited, such as `triage(text)`"
                raise mistake(msg, *calls)
        super().__init__(calls)

    def __await__(self) -> Generator[Any, Any, tuple[Any, ...]]:
        if tracer.get() is None:
            return (yield from super().__await__())
        self._use()
        values: list[Any] = []
        for call in self._taken:  # one by one: while a flow is traced, awaiting only records
            values.append((yield from call.__await__()))  # type: ignore[attr-defined]  # noqa: PERF401  # no comprehension can yield
        return tuple(values)

    async def perform(self) -> tuple[Any, ...]:
        values: list[Any] = [None] * len(self._taken)
        waiting: deque[tuple[int, Any]] = deque(enumerate(self._taken))

        async def run() -> None:
            index, call = waiting.popleft()
            if not index:  # the first starts the others
                for _ in self._taken[1:]:
                    group.start()
            values[index] = await call

        group = open_group(run, _nothing)
        try:
            if waiting:
                await group.run()
        finally:
            discard(self._taken)  # those that were cancelled before they began
        return tuple(values)


def _nothing() -> None:  # all calls begin, as those of asyncio.gather
    pass


@overload
def gather(a: Awaitable[A], /) -> Coroutine[Any, Any, tuple[A]]: ...
@overload
def gather(a: Awaitable[A], b: Awaitable[B], /) -> Coroutine[Any, Any, tuple[A, B]]: ...
@overload
def gather(a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], /) -> Coroutine[Any, Any, tuple[A, B, C]]: ...
@overload
def gather(
    a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], d: Awaitable[D], /
) -> Coroutine[Any, Any, tuple[A, B, C, D]]: ...
@overload
def gather(
    a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], d: Awaitable[D], e: Awaitable[E], /
) -> Coroutine[Any, Any, tuple[A, B, C, D, E]]: ...
@overload
def gather(
    a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], d: Awaitable[D], e: Awaitable[E], f: Awaitable[F], /
) -> Coroutine[Any, Any, tuple[A, B, C, D, E, F]]: ...
@overload
def gather(*calls: Awaitable[T]) -> Coroutine[Any, Any, tuple[T, ...]]: ...


def gather(*calls: Any) -> Any:
    """Run calls side by side and return their values in order.

    The first failure cancels the others, waits for them and leaves as itself, with later ones in `.others`.
    """
    return _Gather(calls)
