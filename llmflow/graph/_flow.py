"""`@flow`: steps, tasks and flows composed into one typed function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from inspect import Parameter
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Protocol, TypeAlias, TypeVar, overload

from llmflow.backend import alarm
from llmflow.context import Frame, Scope, frame, leave
from llmflow.errors import DeadlineExceeded, DefinitionError
from llmflow.graph._build import Blueprint
from llmflow.graph._shape import Shape
from llmflow.graph._splice import rescoped
from llmflow.messages import Result
from llmflow.policy import Band, Off
from llmflow.prices import total
from llmflow.step import Unit, annotate, read_signature, total_cost, total_usage

if TYPE_CHECKING:
    from llmflow.context import Run
    from llmflow.graph._ir import Graph
    from llmflow.policy import Policy

__all__ = ["BoundFlow", "Flow", "FlowDecorator", "flow"]

P = ParamSpec("P")
T = TypeVar("T")

Program: TypeAlias = Callable[[dict[str, object], Frame], Awaitable[object]]


class Flow(Unit[P, T]):
    """A function that awaits steps, tasks and flows, and runs them in the order their data allows.

    Attributes:
        name: What it is called in records, plans and errors.
        eager: Whether the body runs as ordinary Python at every call, instead of once to be turned into a graph.
    """

    kind: ClassVar[str] = "flow"

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        policies: tuple[Any, ...] = (),
        eager: bool = False,
    ) -> None:
        name = name or str(getattr(function, "__name__", type(function).__name__))
        signature = read_signature(function, kind="flow", name=name, asynchronous=True)
        if signature.returns is Parameter.empty:
            msg = f"flow {name!r} has no return annotation; say what it returns, `-> None` if nothing"
            raise DefinitionError(msg)
        super().__init__(function, signature, name=name, policies=policies)
        self.eager = eager
        self._blueprint = Blueprint(name, function, signature, self.policies, self.origin)
        self._graph: Graph | None = None
        self._shape: Shape | None = None

    def graph(self) -> Graph:
        """Return what the flow does as data; built at the first call, without running any step.

        Raises:
            DefinitionError: For whatever in the body cannot be traced, and for an eager flow, which has no graph.
        """
        if self.eager:
            msg = f"flow {self.name!r} is eager: what it does is decided while it runs, so it has no graph"
            raise DefinitionError(msg)
        built = self._blueprint.graph()
        if self.policies == self._blueprint.policies:
            return built
        if self._graph is None:
            self._graph = rescoped(built, self.policies)
        return self._graph

    @property
    def inlines(self) -> bool:
        """Whether a flow around may take over this flow's nodes one by one.

        An eager flow has none. A deadline of its own starts when the flow does, and a run id makes it a record of its
        own; with its nodes spread among others there would be neither a start nor a record.
        """
        return not self.eager and self.run_id is None and not _deadlines(self.policies)

    @property
    def shape(self) -> Shape | None:
        """The graph, as recorded runs are compared with it; None for an eager flow."""
        if self.eager:
            return None
        graph = self.graph()
        if self._shape is None or self._shape.graph is not graph:
            self._shape = Shape(graph)
        return self._shape

    def units(self) -> Iterable[Unit[..., Any]]:
        """Return the steps, tasks and flows inside; none for an eager flow."""
        return () if self.eager else self.graph().units()

    def bind(self, runtime: Any, scope: Scope | None) -> BoundFlow:
        """Make the flow ready for a runtime and a place."""
        program = _eager_program(self) if self.eager else runtime.engine.prepare(self.graph(), runtime, scope)
        return BoundFlow(self, program, runtime, scope)

    def _repr_svg_(self) -> str | None:
        """Show the flow as a drawing in a notebook."""
        from llmflow.graph._render import svg  # only a notebook needs it

        return None if self.eager else svg(self.graph())

    def _copy(self) -> Any:
        made = super()._copy()
        made._graph = None  # noqa: SLF001  # a copy of our own class
        made._shape = None  # noqa: SLF001  # a copy of our own class
        return made

    @overload
    def __get__(self, instance: None, owner: type, /) -> Flow[P, T]: ...

    @overload
    def __get__(self, instance: object, owner: type, /) -> Flow[..., T]: ...

    def __get__(self, instance: object | None, owner: type, /) -> Any:
        """Bind a flow that is a method to its object."""
        if instance is None or not self.signature.names:
            return self
        return self.partial(**{self.signature.names[0]: instance})


class BoundFlow:
    """One flow in one runtime at one place."""

    __slots__ = ("_clock", "_program", "_scope", "flow", "limit")

    def __init__(self, flow: Flow[..., Any], program: Program, runtime: Any, scope: Scope | None) -> None:
        self.flow = flow
        self._program = program
        self._scope = Scope(flow.name, flow.policies, scope)
        self._clock = runtime.clock
        self.limit = _limit(flow.policies, runtime)

    async def invoke(self, inputs: dict[str, object], around: Frame) -> Result[Any]:
        """Run the flow and return its value with the record of what it took."""
        started = self._clock.monotonic()
        mine = started + self.limit
        inside = Frame(around.run, self._scope, min(mine, around.deadline), around.node or self.flow.name)
        token = frame.set(inside)
        try:
            if mine < around.deadline:
                value = await self._run_limited(inputs, inside)
            else:
                value = await self._program(inputs, inside)
        finally:
            leave(token)
        return self._record(value, around, self._clock.monotonic() - started)

    async def _run_limited(self, inputs: dict[str, object], inside: Frame) -> object:
        with alarm(self.limit) as bell:
            return await self._program(inputs, inside)
        assert bell.fired  # the only way out of the block without a value
        error = DeadlineExceeded(f"not finished within {self.limit:g} s")
        annotate(
            error, self.flow.name, inside.run.id, [one for call in inside.run.calls or () for one in call.attempts]
        )
        raise error

    def _record(self, value: object, around: Frame, latency: float) -> Result[Any]:
        run = around.run
        if run.calls is None or around.scope is not None:  # inside another flow the calls are that one's to report
            return Result(value=value, latency_s=latency, run_id=run.id, step=self.flow.name)
        return _summary(value, run, latency, self.flow.name)


def _summary(value: object, run: Run, latency: float, name: str) -> Result[Any]:
    calls = tuple(run.calls or ())
    attempts = tuple(attempt for call in calls for attempt in call.attempts)
    return Result(
        value=value,
        usage=total_usage(attempts),
        cost_usd=total_cost(attempts),
        attempts=attempts,
        latency_s=latency,
        run_id=run.id,
        step=name,
        saved_usd=total(call.saved_usd for call in calls if call.cached)
        if any(call.cached for call in calls)
        else None,
        calls=calls,
    )


def _eager_program(flow: Flow[..., Any]) -> Program:
    async def run(inputs: dict[str, object], _: Frame) -> object:
        return await flow.function(**inputs)

    return run


def _deadlines(policies: tuple[Any, ...]) -> list[float]:
    """Return the seconds of every policy that limits the whole run."""
    return [one.seconds for one in policies if not isinstance(one, Off) and one.band == Band.DEADLINE]


def _limit(policies: tuple[Any, ...], runtime: Any) -> float:
    """Return how long one run of a flow with these policies may take."""
    taken_out = any(isinstance(one, Off) and getattr(one.policy, "band", None) == Band.DEADLINE for one in policies)
    inherited = [] if taken_out or runtime.flow_deadline is None else [runtime.flow_deadline]
    return min([*_deadlines(policies), *inherited], default=float("inf"))


class FlowDecorator(Protocol):
    """What `flow(...)` with arguments returns."""

    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]], /) -> Flow[P, T]: ...


@overload
def flow(function: Callable[P, Coroutine[Any, Any, T]], /) -> Flow[P, T]: ...


@overload
def flow(*policies: Policy | Off, eager: bool = False, name: str | None = None) -> FlowDecorator: ...


def flow(*args: Any, eager: bool = False, name: str | None = None) -> Any:
    """Turn an `async def` that awaits steps, tasks and flows into one that runs as parallel as its data allows.

    The body is run once, with placeholders for the values of its steps, to find out what depends on what. What needs a
    real value goes into a `@task`, `when`, `switch`, `.map` or `build`.

    Args:
        *args: Policies: settings are defaults for the steps inside, limits act on the whole run.
        eager: Run the body as ordinary Python at every call instead; everything is allowed in it, and nothing is known
            about it before it runs.
        name: What the flow is called, the function's name unless given.

    Raises:
        DefinitionError: When it is not an `async def` with a return annotation, or a policy is wrong.
    """
    if len(args) == 1 and not eager and name is None and callable(args[0]) and not hasattr(args[0], "band"):
        return Flow[..., Any](args[0])

    def decorate(function: Callable[..., Any]) -> Flow[..., Any]:
        return Flow[..., Any](function, name=name, policies=args, eager=eager)

    return decorate
