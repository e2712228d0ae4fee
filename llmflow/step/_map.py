"""Fanning one step, task or flow out over many items, bounded and lazily read."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable
from contextlib import aclosing
from contextvars import Token
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from llmflow.backend import monotonic
from llmflow.context import Frame, Run, frame, leave, runtimes, tracer
from llmflow.errors import DefinitionError
from llmflow.events import RunFinished, RunStarted
from llmflow.messages import Outcome
from llmflow.policy import check_count
from llmflow.step._call import Deferred
from llmflow.step._run_ids import inner_run

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from llmflow.step._unit import Unit

__all__ = ["MapCall", "Outcomes", "raise_first"]

A = TypeVar("A")
S = TypeVar("S")
L_co = TypeVar("L_co", covariant=True)


class MapCall(Deferred[L_co], Generic[A, S, L_co]):
    """A map that has not run yet: `await` it for the list, or `async with` it for an iterator of outcomes.

    Attributes:
        unit: What is called for every item.
        items: Where the items come from; a placeholder of a list while a flow is being traced.
        spread: Whether items are tuples of arguments.
        collect: Whether a failure becomes an `Outcome` instead of stopping the map.
    """

    def __init__(
        self,
        unit: Unit[..., Any],
        items: Any,
        *,
        spread: bool,
        concurrency: int,
        on_error: str,
        key: Callable[[Any], str] | None,
    ) -> None:
        super().__init__()
        self._used = True  # what is refused below is not reported as forgotten
        if on_error not in ("raise", "collect"):
            msg = f"{unit.kind} {unit.name!r}: on_error is {on_error!r}, expected 'raise' or 'collect'"
            raise DefinitionError(msg)
        self.unit = unit
        self.items = items
        self.spread = spread
        self.collect = on_error == "collect"
        self.concurrency = check_count(concurrency, name=f"{unit.kind} {unit.name!r}: concurrency")
        self.key = key
        self.path: str | None = None
        """Where the map is in a recorded run, when a graph says it."""
        self._check_arity()
        self._stream: Outcomes[S] | None = None
        self._used = False

    @property
    def name(self) -> str:
        """What it is called in errors and warnings."""
        return f"{self.unit.name}.map"

    def _check_arity(self) -> None:
        if self.spread:
            return
        required = self.unit.signature.required
        if len(self.unit.signature.names) == 0 or len(required) > 1:
            what = f"requires {', '.join(required)}" if required else "takes no argument"
            msg = (
                f"{self.unit.kind} {self.unit.name!r} {what}, but .map() gives one argument to each call; "
                f"fix the others with .partial(name=value), or use .starmap() with tuples"
            )
            raise DefinitionError(msg)

    def arguments(self, item: Any) -> dict[str, object]:
        """Return the inputs of the call for one item."""
        if not self.spread:
            return self._single(item)
        if not isinstance(item, tuple | list):
            msg = f"{self.unit.kind} {self.unit.name!r}: .starmap() items are tuples of arguments, got {type(item).__name__}"
            raise TypeError(msg)
        return self.unit.inputs(tuple(cast("Iterable[object]", item)), {})

    def _single(self, item: Any) -> dict[str, object]:
        signature = self.unit.signature
        name = signature.required[0] if signature.required else signature.names[0]
        return self.unit.inputs((), {name: item})

    def _open(self) -> Coroutine[Any, Any, L_co]:
        self._use()
        self._coroutine = self._gather()
        return self._coroutine

    async def _gather(self) -> Any:
        outcomes: list[Outcome[S]] = []
        async with Outcomes(self) as stream:
            async for outcome in stream:
                if outcome.error is not None and not self.collect:
                    stream.stop(outcome.error)
                    break
                outcomes.append(outcome)
        outcomes.sort(key=lambda one: one.index)
        return outcomes if self.collect else [one.value for one in outcomes]

    async def __aenter__(self) -> Outcomes[S]:
        self._use()
        if tracer.get() is not None:
            msg = f"map of {self.unit.name!r}: `async with` needs real values while the flow is traced; await the map, or use @flow(eager=True)"
            raise DefinitionError(msg)
        self._stream = Outcomes(self)
        return await self._stream.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._stream is not None
        await self._stream.__aexit__(kind, exc, tb)


class Outcomes(AsyncIterator[Outcome[S]], Generic[S]):
    """The outcomes of a running map, in the order they come.

    One task reads the source, as an async iterator may hold a cancel scope that only one task can leave; workers are
    started as items come, up to the limit.
    """

    def __init__(self, call: MapCall[Any, S, Any]) -> None:
        self._call = call
        self._working = 0
        self._error: BaseException | None = None
        self._later: list[BaseException] = []
        self._token: Token[Frame | None] | None = None

    async def __aenter__(self) -> Self:
        self._runtime = runtimes.current()
        around = frame.get()
        self._bound = self._call.unit.bound(self._runtime, around.scope if around is not None else None)
        if around is None:  # a map that is not inside any call is a run of its own, and all items belong to it
            around = Frame(Run(self._call.unit.name, run_id=self._call.unit.run_id), None, float("inf"))
            await self._record(around.run)
            self._token = frame.set(around)
            self._started = monotonic()
            self._runtime.emit(RunStarted(run_id=around.run.id, target=around.run.target, kind="map"))
        elif self._call.unit.run_id not in (None, around.run.id):
            unit = self._call.unit
            raise inner_run(unit.name, unit.run_id, f"run {around.run.id!r} of {around.run.target!r}")
        self._around = around
        limit = self._call.concurrency
        self._give, self._take = anyio.create_memory_object_stream[_Taken](0)
        self._send, self._receive = anyio.create_memory_object_stream[Outcome[S]](limit)
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._read)
        return self

    async def _record(self, run: Run) -> None:
        """Begin the record of a map that is a run, if its runs are recorded."""
        unit, recorder = self._call.unit, self._runtime.recorder
        if recorder.records(unit):
            record = recorder.open(unit, run, "map")
            await record.begin(unit.fixed)
            run.record = record
            self._call.path = unit.name

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._group.cancel_scope.cancel()
        try:
            await self._group.__aexit__(None, None, None)
        except BaseExceptionGroup as group:  # KeyboardInterrupt and its like, which no outcome holds
            raise _first_leaf(group) from None
        finally:
            for stream in (self._give, self._take, self._send, self._receive):
                stream.close()
            if self._token is not None:
                try:
                    self._end_run(exc)
                    if (record := self._around.run.record) is not None and record.is_named:
                        await record.settled()
                finally:
                    leave(self._token)
        if self._error is not None:
            raise_first(self._error, self._later)

    def _end_run(self, exc: BaseException | None) -> None:
        run, ended_by = self._around.run, self._error or exc
        name = None if ended_by is None else type(ended_by).__name__ if isinstance(ended_by, Exception) else "cancelled"
        latency = monotonic() - self._started
        if run.record is not None:
            run.record.close(ended_by)
        self._runtime.emit(RunFinished(run_id=run.id, target=run.target, latency_s=latency, error=name, kind="map"))

    def stop(self, error: BaseException) -> None:
        """End the map with an error once the workers are cancelled."""
        self._error = error

    async def __anext__(self) -> Outcome[S]:
        try:
            return await self._receive.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def _read(self) -> None:
        """Read the source as far as there is room: a worker takes each item before the next one is read."""
        self._working += 1
        try:
            async with aclosing(_numbered(self._call.items, self._call.unit.name)) as source:
                async for index, item in source:
                    taken = self._taken(index, item)
                    if self._take.statistics().tasks_waiting_receive == 0 and self._working <= self._call.concurrency:
                        self._working += 1
                        self._group.start_soon(self._work, taken)
                        await checkpoint()
                    else:
                        await self._give.send(taken)
        except Exception as exc:  # noqa: BLE001  # whatever the author's iterator raises ends the map as itself
            self._error = exc
            self._group.cancel_scope.cancel()
        finally:
            self._give.close()
            self._retire()

    def _taken(self, index: int, item: Any) -> _Taken:
        """Give an item its key, and its place in a recorded run: in the order they are read in, as two may be equal."""
        record, path = self._around.run.record, self._call.path
        given = self._call.key
        if record is None:
            return index, None, None, item
        try:
            key = None if given is None else given(item)
            return index, key, None if path is None else record.keys.of_item(path, item, key), item
        except Exception as exc:  # noqa: BLE001  # the author's own function; it is this item's failure
            return index, None, None, _Unkeyed(exc)

    async def _work(self, taken: _Taken) -> None:
        """Take items until there are none."""
        try:
            await checkpoint_if_cancelled()
            await self._deliver(await self._one(*taken))
            async for following in self._take:
                await self._deliver(await self._one(*following))
        finally:
            self._retire()

    def _retire(self) -> None:
        """Leave; the last one to do so ends the outcomes."""
        self._working -= 1
        if self._working == 0:
            self._send.close()

    async def _deliver(self, outcome: Outcome[S]) -> None:
        """Hand an outcome over; one that fails after the map has ended with an error is only noted."""
        if self._error is not None and outcome.error is not None:
            self._later.append(outcome.error)
            return
        await self._send.send(outcome)

    async def _one(self, index: int, given: str | None, path: str | None, item: Any) -> Outcome[S]:
        key, record = given or str(index), self._around.run.record
        if isinstance(item, _Unkeyed):
            return Outcome(index=index, key=key, error=item.error)
        try:
            if given is None and self._call.key is not None:
                key = self._call.key(item)
            inputs = self._call.arguments(item)
            if record is None:
                result = await self._bound.invoke(inputs, self._around)
            else:
                unit = self._call.unit
                place = path or record.keys.of_call(self._around, unit, inputs, given)
                result = await record.node(place, unit, self._bound, inputs, self._around)
        except Exception as exc:  # noqa: BLE001  # collecting failures is what this is for; cancellation is no Exception
            return Outcome(index=index, key=key, error=exc, cost_usd=getattr(exc, "cost_usd", None))
        return Outcome(index=index, key=key, value=result.value, cost_usd=result.cost_usd)


_Taken: TypeAlias = "tuple[int, str | None, str | None, Any]"
"""An item as it was read: its position, the key it was given, its place in a recorded run, and itself."""


class _Unkeyed:
    """Stands for an item whose key could not be made."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


async def _numbered(items: Iterable[Any] | AsyncIterable[Any], name: str) -> AsyncGenerator[tuple[int, Any], None]:
    """Yield items with their position, from whatever kind of iterable they are in."""
    index = 0
    if isinstance(items, AsyncIterable):
        try:
            async for item in items:
                yield index, item
                index += 1
        finally:  # in the task that read it, and not whenever the garbage collector comes by
            if isinstance(items, AsyncGenerator):
                with anyio.CancelScope(shield=True):
                    await items.aclose()
        return
    if not isinstance(items, Iterable) or isinstance(items, str | bytes):
        msg = f"map of {name!r} is given {type(items).__name__}, expected a list, an iterator or an async iterator of items"
        raise TypeError(msg)
    for item in items:
        yield index, item
        index += 1
        if index % 64 == 0:  # a long list whose calls never suspend must not keep the loop to itself
            await checkpoint()


def _first_leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    if not isinstance(first, BaseExceptionGroup):
        return first
    inner: BaseExceptionGroup[BaseException] = first  # pyright: ignore[reportUnknownVariableType]  # narrowed to no argument
    return _first_leaf(inner)


def raise_first(first: BaseException, later: list[BaseException]) -> None:
    """Raise the first of several failures, with the others in `.others` and in a note."""
    if later:
        first.others = (*getattr(first, "others", ()), *later)  # type: ignore[attr-defined]  # StepError has it; on a user's error it is extra
        first.add_note(
            f"{len(later)} more failed after it: " + "; ".join(f"{type(e).__name__}: {e}" for e in later[:3])
        )
    raise first
