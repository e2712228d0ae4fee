"""`.stream(...)`: reading an answer while it is being written."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, overload

from pydantic import BaseModel

from llmflow.backend import cancelled_class
from llmflow.errors import InvalidOutput
from llmflow.schema import Partial
from llmflow.step._beside import start_beside
from llmflow.step._feed import Feed, Restarted
from llmflow.step._picture import Picture

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from llmflow.messages import Result
    from llmflow.schema import OutputSchema
    from llmflow.step._beside import Beside
    from llmflow.step._unit import Unit

__all__ = ["Final", "Restarted", "Snapshot", "Stream", "StreamEvent"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The answer as far as it has come: the text for `str`, a `Partial` for a model."""

    value: Any


@dataclass(frozen=True, slots=True)
class Final(Generic[T_co]):
    """The validated value; nothing follows it."""

    value: T_co


StreamEvent: TypeAlias = "Snapshot | Restarted | Final[T]"


class Stream(Generic[T]):
    """One call whose answer is read while it is being written.

    ```python
    async with triage.stream(message) as answer:
        async for snapshot in answer:
            show(snapshot)
        ticket = await answer.final()
    ```

    Leaving the block ends the call: its connection is closed and its cost is settled before the next line runs.
    Without the block, `async for snapshot in triage.stream(message)` works too; left early, it is ended only when
    Python finalises the loop's iterator.

    An answer that fails in the middle is never completed by another one in silence. When the call goes on with a
    further request, `events()` has a `Restarted`, snapshots begin again from nothing, and `deltas()` raises, because
    text that was handed out cannot be taken back.
    """

    def __init__(self, unit: Unit[..., Any], inputs: dict[str, object], output: OutputSchema | None) -> None:
        self._unit = unit
        self._inputs = inputs
        self._output = output
        self._feed = Feed()
        self._picture = Picture(output)
        self._task: Beside | None = None
        self._left = False
        self._result: Result[T] | None = None
        self._failure: BaseException | None = None

    # -- the block -----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._task is not None:
            msg = f"this stream of {self._unit.name!r} was used before; call .stream() again for another answer"
            raise RuntimeError(msg)
        self._task = start_beside(self._run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._left = True
        self._feed.close()
        assert self._task is not None  # as it was entered
        await self._task.stop()
        self._feed.end()
        if isinstance(self._failure, (KeyboardInterrupt, SystemExit)) and exc is None:
            raise self._failure

    async def _run(self) -> None:
        """Make the call; what it raises is kept for whoever reads."""
        try:
            feed = self._feed if self._output is not None else None
            self._result = await self._unit.execute(self._inputs, wants_result=True, feed=feed)
        except cancelled_class() as exc:
            self._failure = exc
            raise
        except BaseException as exc:  # noqa: BLE001  # raised again where the stream is read
            self._failure = exc
        finally:
            self._feed.end()

    # -- reading -------------------------------------------------------------------------------------------------------

    @overload
    def __aiter__(self: Stream[str]) -> AsyncIterator[str]: ...

    @overload
    def __aiter__(self: Stream[M]) -> AsyncIterator[Partial[M]]: ...

    @overload
    def __aiter__(self) -> AsyncIterator[Any]: ...

    def __aiter__(self) -> AsyncIterator[Any]:
        """Yield snapshots, each of the whole answer so far: the newest one when it is asked for."""
        return _Snapshots(self.events()) if self._task is not None else self._alone()

    async def _alone(self) -> AsyncGenerator[Any, None]:
        async with self:
            async for snapshot in _Snapshots(self.events()):
                yield snapshot

    def deltas(self) -> AsyncIterator[str]:
        """Yield the pieces of the answer's text as they come.

        Raises:
            StepError: When the answer begins again with another request after pieces of it were handed out; the error
                is that of the request before. `final()` still waits for the answer.
        """
        return _Deltas(self)

    def events(self) -> AsyncIterator[StreamEvent[T]]:
        """Yield a `Snapshot` for what has come, a `Restarted` when it is void, and the `Final` value at the end."""
        return _Events(self)

    async def final(self) -> T:
        """Wait for the whole answer and return the validated value.

        Raises:
            StepError: What the call raises, as `await step(...)` would.
        """
        while await self.next_item() is not None:
            pass
        return self.ended().value

    @property
    def result(self) -> Result[T]:
        """The value and what it took to get it, once the answer is complete.

        Raises:
            RuntimeError: Before that, and when there was none.
        """
        if self._result is None:
            msg = f"the stream of {self._unit.name!r} has no result: its answer is not complete"
            raise RuntimeError(msg)
        return self._result

    # -- for the iterators ---------------------------------------------------------------------------------------------

    async def next_item(self) -> str | Restarted | None:
        """Return the next piece of text, or that it is void; None at the end."""
        if self._task is None:
            msg = f"this stream of {self._unit.name!r} has not begun; write `async with ...stream(...) as stream:`"
            raise RuntimeError(msg)
        item = await self._feed.get()
        if isinstance(item, Restarted):
            self._picture.clear()
        elif item is not None:
            self._picture.add(item)
        return item

    def ended(self) -> Result[T]:
        """Return the result, or raise what there is instead."""
        if self._result is not None:
            return self._result
        if self._failure is not None and not (self._left and isinstance(self._failure, cancelled_class())):
            raise self._failure
        msg = f"the stream of {self._unit.name!r} was left before its answer was complete"
        raise RuntimeError(msg)

    def look(self) -> Any:
        """Return a new view of the answer so far, None when there is none."""
        return self._picture.look(more_is_here=self._feed.has_more_text())

    def end(self) -> Restarted | None:
        """Say that what was shown is void when the answer is not that of the request that streamed it.

        That is one of the cache's, when a request for a newer one failed in the middle.
        """
        attempts = self.ended().attempts
        taken = next((one.number for one in reversed(attempts) if one.outcome == "ok"), 0)
        if self._feed.attempt in (None, taken):
            return None
        self._picture.clear()
        return Restarted(taken, "another answer was taken")

    def last_look(self) -> Any:
        """Return the complete answer where it was not shown: not streamed, or not to its end."""
        return self._picture.complete(self.ended().value)

    def text_unless_streamed(self) -> str | None:
        """Return the answer as text when no piece of it came."""
        return self._picture.text_unless_streamed(self.ended().value)

    def restart_error(self, restarted: Restarted) -> BaseException:
        """Return what to raise where text that was handed out is void."""
        attempts = self._feed.call.attempts if self._feed.call is not None else []
        before = next((one.error for one in reversed(attempts) if one.error is not None), None)
        error = before or InvalidOutput(f"step {self._unit.name!r}: {restarted.reason}")
        error.add_note("Part of the answer was handed out. The call goes on: read .events() to begin again with it.")
        return error

    def __repr__(self) -> str:
        return f"<Stream of {self._unit.kind} {self._unit.name!r}>"


# Plain iterators and not generators: one that is left half-way needs no closing, as the block closes what there is.


class _Events(AsyncIterator["StreamEvent[T]"], Generic[T]):
    def __init__(self, stream: Stream[T]) -> None:
        self._stream = stream
        self._last: list[StreamEvent[T]] | None = None

    async def __anext__(self) -> StreamEvent[T]:
        stream = self._stream
        while self._last is None:
            item = await stream.next_item()
            if isinstance(item, Restarted):
                return item
            if item is None:
                restarted, snapshot = stream.end(), stream.last_look()
                events = [restarted, None if snapshot is None else Snapshot(snapshot), Final(stream.ended().value)]
                self._last = [one for one in reversed(events) if one is not None]
            elif (snapshot := stream.look()) is not None:
                return Snapshot(snapshot)
        if not self._last:
            raise StopAsyncIteration
        return self._last.pop()


class _Snapshots(AsyncIterator[Any]):
    def __init__(self, events: AsyncIterator[StreamEvent[Any]]) -> None:
        self._events = events

    async def __anext__(self) -> Any:
        while not isinstance(event := await anext(self._events), Snapshot):
            pass
        return event.value


class _Deltas(AsyncIterator[str]):
    def __init__(self, stream: Stream[Any]) -> None:
        self._stream = stream
        self._over = False

    async def __anext__(self) -> str:
        item = None if self._over else await self._stream.next_item()
        if isinstance(item, Restarted):
            raise self._stream.restart_error(item)
        if item is None and not self._over:
            self._over = True
            if (restarted := self._stream.end()) is not None:
                raise self._stream.restart_error(restarted)
            item = self._stream.text_unless_streamed()
        if item is None:
            raise StopAsyncIteration
        return item
