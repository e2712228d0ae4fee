"""What steps, tasks and flows have in common: being called, run, mapped and adjusted."""

from __future__ import annotations

import copy
import inspect
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, ParamSpec, Protocol, Self, TypeVar, overload

from llmflow.backend import monotonic
from llmflow.context import Frame, Run, frame, leave, runtimes, tracer
from llmflow.errors import DefinitionError
from llmflow.events import RunFinished, RunStarted
from llmflow.models import Model, Params, as_model
from llmflow.policy import check_policies, kind_of
from llmflow.records import quick
from llmflow.schema import codec_of
from llmflow.step._call import Call
from llmflow.step._map import MapCall
from llmflow.step._run_ids import check_run_id, inner_run
from llmflow.step._signature import Signature, origin
from llmflow.step._stream import Stream
from llmflow.step._sync import run_blocking

if TYPE_CHECKING:
    from llmflow.context import Scope
    from llmflow.messages import Outcome, Result
    from llmflow.policy import Off, Policy
    from llmflow.schema import Codec
    from llmflow.step._feed import Feed
    from llmflow.step._recorder import Shape
    from llmflow.step._recording import Recording

__all__ = ["Bound", "Unary", "Unit"]

P = ParamSpec("P")
T = TypeVar("T")
A_contra = TypeVar("A_contra", contravariant=True)
A = TypeVar("A")
S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)
U = TypeVar("U", bound="Unit[..., Any]")

new_run_finished = quick(RunFinished)  # made on every call

INFINITE = float("inf")
_KEPT = 256
_UNASKED = object()


class Unary(Protocol[A_contra, S_co]):
    """A step, task or flow that can be called with one argument."""

    def __call__(self, item: A_contra, /) -> Coroutine[Any, Any, S_co]: ...


class Bound(Protocol):
    """A step, task or flow made ready for one runtime and one place."""

    async def invoke(self, inputs: dict[str, object], around: Frame) -> Result[Any]:
        """Run one call."""
        ...


class Unit(Generic[P, T]):
    """A function that llmflow runs: a `Step`, a `Task` or a `Flow`.

    Type checkers see an async function with the parameters and the return type of the one that was decorated. Calling
    it returns a `Call`, which runs when it is awaited.
    """

    kind: ClassVar[str] = "unit"

    def __init__(
        self, function: Callable[..., Any], signature: Signature, *, name: str, policies: tuple[Any, ...]
    ) -> None:
        self.name = name
        self.function = function
        self.signature = signature
        self.policies = check_policies(policies, f"{self.kind} {name!r}")
        self.fixed: dict[str, object] = {}
        self.run_id: str | None = None
        self.said: Mapping[str, object] = {}
        """What `.with_()` said that makes the same inputs another question."""
        self._codec: object = _UNASKED
        self.origin = origin(function)
        self._last: tuple[object, Scope | None, Bound] | None = None
        self._bounds: dict[tuple[object, Scope | None], Bound] = {}
        self._look_like(function)

    def _look_like(self, function: Callable[..., Any]) -> None:
        """Carry the function's names and pass for a coroutine function.

        `inspect.iscoroutinefunction` takes an object for a function when it has these attributes, and reads the flag
        from `__code__`; FastAPI and pytest ask it.
        """
        self.__name__ = self.name
        self.__qualname__ = function.__qualname__
        self.__module__ = function.__module__
        self.__doc__ = function.__doc__
        self.__annotations__ = dict(function.__annotations__)
        self.__defaults__ = function.__defaults__
        self.__kwdefaults__ = function.__kwdefaults__
        self.__code__ = _coroutine_function.__code__
        self.__globals__ = function.__globals__
        self.__signature__ = self._visible_signature()

    def _visible_signature(self) -> inspect.Signature:
        """The signature with its type hints resolved, as FastAPI and documentation tools want it."""
        hints = self.signature.hints
        parameters = [
            one.replace(annotation=hints.get(name, one.annotation))
            for name, one in self.signature.inspected.parameters.items()
        ]
        return self.signature.inspected.replace(parameters=parameters, return_annotation=self.signature.returns)

    # -- calling -------------------------------------------------------------------------------------------------------

    if TYPE_CHECKING:

        async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
            """Run it and return the value."""
            raise NotImplementedError

        async def run(self, *args: P.args, **kwargs: P.kwargs) -> Result[T]:
            """Run it and return the value together with what it took to get it."""
            raise NotImplementedError

    else:

        def __call__(self, *args, **kwargs):  # noqa: ANN002, ANN003, ANN204  # typed above
            """Return a call that runs when it is awaited and gives the value."""
            return Call(self, self.inputs(args, kwargs))

        def run(self, *args, **kwargs):  # noqa: ANN002, ANN003, ANN202  # typed above
            """Return a call that runs when it is awaited and gives the value and what it took to get it."""
            return Call(self, self.inputs(args, kwargs), wants_result=True)

    def sync(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run it from code that is not async, and return the value; works inside a running loop too (Jupyter)."""
        self._refuse_tracing("sync")
        return run_blocking(lambda: self.execute(self.inputs(args, kwargs), wants_result=False))  # type: ignore[no-any-return]

    def run_sync(self, *args: P.args, **kwargs: P.kwargs) -> Result[T]:
        """Run it from code that is not async, and return the value together with what it took to get it."""
        self._refuse_tracing("run_sync")
        return run_blocking(lambda: self.execute(self.inputs(args, kwargs), wants_result=True))  # type: ignore[no-any-return]

    def _refuse_tracing(self, method: str) -> None:
        """Raise when a flow is being built: calls are recorded then, and this one cannot be."""
        if (active := tracer.get()) is not None:
            raise active.refuse(f"running {self.name!r} with .{method}()")

    def inputs(self, args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, object]:
        """Return the arguments of a call by name, fixed ones and defaults included."""
        try:
            given = self.signature.bind(args, kwargs)
        except TypeError as exc:
            msg = f"{self.kind} {self.name!r}: {exc}"
            raise TypeError(msg) from None
        return {**self.fixed, **given} if self.fixed else given

    def stream(self, *args: P.args, **kwargs: P.kwargs) -> Stream[T]:
        """Run it and read the answer while it is being written; see `Stream`.

        A step streams what its model says. A task or a flow has no text of its own: it gives its value at the end.
        """
        self._refuse_tracing("stream")
        return Stream(self, self.inputs(args, kwargs), getattr(self, "output", None))

    # -- running -------------------------------------------------------------------------------------------------------

    async def execute(self, inputs: dict[str, object], *, wants_result: bool, feed: Feed | None = None) -> Any:
        """Run one call in the runtime and the run that are current; what a `Call` does when it is awaited."""
        runtime = runtimes.current()
        around = frame.get()
        if around is None:
            result = await self._outermost(runtime, inputs, collect=wants_result, feed=feed)
            return result if wants_result else result.value
        bound, record = _fed(self.bound(runtime, around.scope), feed), around.run.record
        if self.run_id is not None and self.run_id != around.run.id:
            raise inner_run(self.name, self.run_id, f"run {around.run.id!r} of {around.run.target!r}")
        if record is None:
            result = await bound.invoke(inputs, around)
        else:
            result = await record.node(record.keys.of_call(around, self, inputs), self, bound, inputs, around)
        return result if wants_result else result.value

    async def _outermost(
        self, runtime: Any, inputs: dict[str, object], *, collect: bool, feed: Feed | None
    ) -> Result[Any]:
        bound = _fed(self.bound(runtime, None), feed)
        run = Run(self.name, run_id=self.run_id, collect=collect)
        around = Frame(run, None, INFINITE)
        token = frame.set(around)
        try:
            if runtime.records_runs or self.run_id is not None:
                return await self._recorded(runtime, bound, inputs, around)
            if runtime.watches_runs:
                return await _watched(runtime, self.kind, bound, inputs, around)
            return await bound.invoke(inputs, around)
        finally:
            leave(token)

    async def _recorded(self, runtime: Any, bound: Bound, inputs: dict[str, object], around: Frame) -> Result[Any]:
        """Run the outermost call with a record of it in the journal, or return what it gave when it ran before."""
        kind: Any = self.kind
        run = around.run
        record = runtime.recorder.open(self, run, kind)
        if (found := await record.begin(inputs, getattr(bound, "limit", INFINITE))) is not None:
            return found  # type: ignore[no-any-return]
        run.record = record
        inner = bound if kind == "flow" else _AsNode(self, bound, record)
        try:
            result = await _watched(runtime, kind, inner, inputs, around)
        except BaseException as exc:
            record.close(exc)
            raise
        record.close(None, result.value)
        if record.is_named:
            await record.settled()
        return result

    @property
    def codec(self) -> Codec | None:
        """What turns its values into JSON for the journal, and back; None when they cannot be kept."""
        if self._codec is _UNASKED:
            self._codec = self._make_codec()
        return self._codec  # type: ignore[return-value]

    def _make_codec(self) -> Codec | None:
        returns = self.signature.returns
        return codec_of(Any if returns is inspect.Parameter.empty else returns)

    @property
    def shape(self) -> Shape | None:
        """The graph, as recorded runs are compared with it; None for what has none."""
        return None

    def units(self) -> Iterable[Unit[..., Any]]:
        """Return the steps, tasks and flows inside, as far as they are known before it runs."""
        return ()

    def bound(self, runtime: Any, scope: Scope | None) -> Bound:
        """Return this unit made ready for a runtime and a place; made once for each."""
        last = self._last
        if last is not None and last[0] is runtime and last[1] is scope:
            return last[2]
        return self._find_bound(runtime, scope)

    def _find_bound(self, runtime: Any, scope: Scope | None) -> Bound:
        """Look a bound form up, or make it; a handful of them is kept, as runtimes and places come and go."""
        bound = self._bounds.get((runtime, scope))
        if bound is None:
            bound = runtime.bind(self, scope)
            if len(self._bounds) >= _KEPT:
                self._bounds = {}
            self._bounds[runtime, scope] = bound
        self._last = (runtime, scope, bound)
        return bound

    def bind(self, runtime: Any, scope: Scope | None) -> Bound:
        """Make this unit ready; called by the runtime, which keeps what is returned."""
        raise NotImplementedError

    # -- fanning out ---------------------------------------------------------------------------------------------------

    @overload
    def map(
        self: Unary[A, S],
        items: Iterable[A] | AsyncIterable[A],
        /,
        *,
        concurrency: int = 16,
        on_error: Literal["raise"] = "raise",
        key: Callable[[A], str] | None = None,
    ) -> MapCall[A, S, list[S]]: ...

    @overload
    def map(
        self: Unary[A, S],
        items: Iterable[A] | AsyncIterable[A],
        /,
        *,
        concurrency: int = 16,
        on_error: Literal["collect"],
        key: Callable[[A], str] | None = None,
    ) -> MapCall[A, S, list[Outcome[S]]]: ...

    def map(self, items: Any, /, *, concurrency: int = 16, on_error: str = "raise", key: Any = None) -> Any:
        """Call it for every item, at most `concurrency` at a time, and return the values in the items' order.

        Args:
            items: A list, an iterator or an async iterator, read only as far as there is room.
            concurrency: How many items are in work at a time.
            on_error: `"raise"` stops at the first failure; `"collect"` gives an `Outcome` for each item.
            key: Gives an item's key, which names it in outcomes and records; without it, its position.

        Returns:
            What `await` turns into the list, and `async with` into an iterator of outcomes that holds none of them.
        """
        call: MapCall[Any, Any, Any] = MapCall(
            self, items, spread=False, concurrency=concurrency, on_error=on_error, key=key
        )
        return call

    @overload
    def starmap(
        self: Unit[..., S],
        items: Iterable[tuple[Any, ...]] | AsyncIterable[tuple[Any, ...]],
        /,
        *,
        concurrency: int = 16,
        on_error: Literal["raise"] = "raise",
        key: Callable[[Any], str] | None = None,
    ) -> MapCall[tuple[Any, ...], S, list[S]]: ...

    @overload
    def starmap(
        self: Unit[..., S],
        items: Iterable[tuple[Any, ...]] | AsyncIterable[tuple[Any, ...]],
        /,
        *,
        concurrency: int = 16,
        on_error: Literal["collect"],
        key: Callable[[Any], str] | None = None,
    ) -> MapCall[tuple[Any, ...], S, list[Outcome[S]]]: ...

    def starmap(self, items: Any, /, *, concurrency: int = 16, on_error: str = "raise", key: Any = None) -> Any:
        """Like `map`, with items that are tuples of arguments."""
        call: MapCall[Any, Any, Any] = MapCall(
            self, items, spread=True, concurrency=concurrency, on_error=on_error, key=key
        )
        return call

    # -- adjusting -----------------------------------------------------------------------------------------------------

    def partial(self, /, **fixed: object) -> Unit[..., T]:
        """Return a copy with some arguments fixed.

        Type checkers cannot take parameters away by name, so to them the copy accepts any arguments.
        """
        unknown = [name for name in fixed if name not in self.signature.names]
        if unknown:
            msg = (
                f"{self.kind} {self.name!r} has no parameter {unknown[0]!r}; it takes {', '.join(self.signature.names)}"
            )
            raise DefinitionError(msg)
        made = self._copy()
        made.fixed = {**self.fixed, **fixed}
        made.signature = self.signature.without(fixed)
        made.__signature__ = made._visible_signature()  # noqa: SLF001  # a copy of our own class
        return made

    def with_(
        self,
        *policies: Policy | Off,
        model: Model | str | None = None,
        params: Params | None = None,
        run_id: str | None = None,
        version: str | None = None,
    ) -> Self:
        """Return a copy with other policies, model, parameters, run id or prompt version.

        A policy given here takes the place of the one of its kind that was declared before.
        """
        made = self._copy()
        kinds = {kind_of(policy) for policy in policies}
        kept = tuple(one for one in self.policies if kind_of(one) not in kinds)
        made.policies = check_policies((*kept, *policies), f"{self.kind} {self.name!r}")
        made.run_id = self.run_id if run_id is None else check_run_id(run_id, f"{self.kind} {self.name!r}")
        made._adjust(None if model is None else as_model(model), params, version)  # noqa: SLF001  # a copy of our own class
        return made

    def _adjust(self, model: Model | None, params: Params | None, version: str | None) -> None:
        """Take over the options that only steps have."""
        given = next(
            (name for name, one in (("model", model), ("params", params), ("version", version)) if one is not None),
            None,
        )
        if given is not None:
            msg = f"{self.kind} {self.name!r} has no {given}; set it on the steps inside, or with Runtime.override()"
            raise DefinitionError(msg)

    def _copy(self) -> Self:
        made = copy.copy(self)
        made._last = None  # noqa: SLF001  # a copy of our own class
        made._bounds = {}  # noqa: SLF001  # a copy of our own class
        return made

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


def _fed(bound: Bound, feed: Feed | None) -> Bound:
    """Return what runs a call whose answer goes to `feed` as it comes."""
    return bound if feed is None else _Fed(bound, feed)


class _AsNode:
    """A step or task that is the only node of its run."""

    __slots__ = ("_bound", "_record", "_unit")

    def __init__(self, unit: Unit[..., Any], bound: Bound, record: Recording) -> None:
        self._unit = unit
        self._bound = bound
        self._record = record

    async def invoke(self, inputs: dict[str, object], around: Frame) -> Result[Any]:
        return await self._record.node(self._unit.name, self._unit, self._bound, inputs, around)


class _Fed:
    """A bound step, for one call that is streamed."""

    __slots__ = ("_bound", "_feed")

    def __init__(self, bound: Any, feed: Feed) -> None:
        self._bound = bound
        self._feed = feed

    @property
    def limit(self) -> float:
        return getattr(self._bound, "limit", INFINITE)

    @property
    def versions(self) -> Sequence[str]:
        return getattr(self._bound, "versions", ())

    @property
    def prompts(self) -> Sequence[Any]:
        return getattr(self._bound, "prompts", ())

    async def invoke(self, inputs: dict[str, object], around: Frame) -> Result[Any]:
        return await self._bound.invoke(inputs, around, self._feed)  # type: ignore[no-any-return]


async def _watched(runtime: Any, kind: str, bound: Bound, inputs: dict[str, object], around: Frame) -> Result[Any]:
    """Run the outermost call and tell the listeners when the run starts and ends."""
    started = monotonic()
    run = around.run
    if runtime.hears_starts:
        runtime.emit(RunStarted(run_id=run.id, target=run.target, kind=kind))
    error: str | None = "cancelled"
    try:
        result = await bound.invoke(inputs, around)
        error = None
    except Exception as exc:
        error = type(exc).__name__
        raise
    else:
        return result
    finally:
        if runtime.hears_ends:
            latency = monotonic() - started
            runtime.emit(new_run_finished(run_id=run.id, target=run.target, latency_s=latency, error=error, kind=kind))


async def _coroutine_function(*args: object, **kwargs: object) -> None:
    """Lends its `__code__` to units, so that they are recognised as coroutine functions."""
