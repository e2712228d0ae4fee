"""`@task`: a plain function as a node of a flow."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Protocol, TypeVar, overload

from llmflow.errors import DefinitionError
from llmflow.graph._bound_task import FoldedTask, PlainTask
from llmflow.graph._threads import abandoned_threads, in_thread
from llmflow.policy import Band, Declared, Off, resolve
from llmflow.step import Bound, Unit, read_signature

if TYPE_CHECKING:
    from llmflow.context import Scope
    from llmflow.models import Model, Params
    from llmflow.policy import Policy
    from llmflow.schema import Codec

__all__ = ["Task", "TaskDecorator", "task"]

P = ParamSpec("P")
T = TypeVar("T")

_FOR_ANSWERS = {Band.FALLBACK.rank, Band.CACHE.rank, Band.REPAIR.rank}


class Task(Unit[P, T]):
    """A plain function as a node of a flow: it fetches, splits, joins, stores.

    An `async def` runs on the event loop, a `def` in a worker thread. What it returns is the author's own and is not
    validated; without a return annotation its value counts as `Any` where a flow's types are checked.

    Attributes:
        name: What it is called in records, plans and errors.
        journal: Whether its value is kept, so that a resumed run does not run it again.
    """

    kind: ClassVar[str] = "task"

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        policies: tuple[Any, ...] = (),
        journal: bool = True,
        name: str | None = None,
    ) -> None:
        name = name or str(getattr(function, "__name__", type(function).__name__))
        signature = read_signature(function, kind="task", name=name)
        super().__init__(function, signature, name=name, policies=policies)
        self.journal = journal
        _check_task_policies(self.policies, name)

    def bind(self, runtime: Any, scope: Scope | None) -> Bound:
        """Make the task ready for a runtime and a place."""
        body = self.function if self.signature.is_async else in_thread(self.function, abandoned_threads(runtime))
        layers = resolve([[Declared(one, f"task:{self.name}") for one in self.policies]])
        if not layers:
            return PlainTask(self.name, body, runtime.clock)
        return FoldedTask(self.name, body, layers, runtime, scope)

    def _make_codec(self) -> Codec | None:
        return super()._make_codec() if self.journal else None

    def _adjust(self, model: Model | None, params: Params | None, version: str | None) -> None:
        super()._adjust(model, params, version)
        _check_task_policies(self.policies, self.name)

    @overload
    def __get__(self, instance: None, owner: type, /) -> Task[P, T]: ...

    @overload
    def __get__(self, instance: object, owner: type, /) -> Task[..., T]: ...

    def __get__(self, instance: object | None, owner: type, /) -> Any:
        """Bind a task that is a method to its object."""
        if instance is None or not self.signature.names:
            return self
        return self.partial(**{self.signature.names[0]: instance})


def _check_task_policies(policies: tuple[Any, ...], name: str) -> None:
    """Refuse policies that need what only a model's call has: an answer, a price."""
    for policy in policies:
        if isinstance(policy, Off):
            continue
        kind, band = type(policy).__name__, policy.band
        if band.rank in _FOR_ANSWERS or band == Band.BUDGET:
            msg = f"task {name!r} has {kind}, which acts on what a model answers or costs; put it on a step or a flow"
            raise DefinitionError(msg)
        if band.rank == Band.RETRY.rank and getattr(policy, "on", policy) is None:
            msg = (
                f"task {name!r} has {kind} without on=; only its author knows which of its failures may pass, "
                f"so write {kind}(on=ConnectionError) or on=(TimeoutError, ...)"
            )
            raise DefinitionError(msg)


class TaskDecorator(Protocol):
    """What `task(...)` with arguments returns."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]], /) -> Task[P, T]: ...

    @overload
    def __call__(self, function: Callable[P, T], /) -> Task[P, T]: ...


@overload
def task(function: Callable[P, Coroutine[Any, Any, T]], /) -> Task[P, T]: ...


@overload
def task(function: Callable[P, T], /) -> Task[P, T]: ...


@overload
def task(*policies: Policy | Off, journal: bool = True, name: str | None = None) -> TaskDecorator: ...


def task(*args: Any, journal: bool = True, name: str | None = None) -> Any:
    """Turn a plain function into a task: a node of a flow that no model answers.

    Write one for whatever a flow does beside asking: fetching, splitting, joining, storing. A `def` runs in a worker
    thread, so it may block. A policy acts on a task only when it is named here; of those around it a task keeps the
    Deadline alone. `Retry` must say `on=` what.

    Args:
        *args: Policies: Deadline, Retry, Hedge, CircuitBreaker, RateLimit, Bulkhead, Timeout.
        journal: Whether the value is kept for a resumed run; False for values that pydantic cannot serialise.
        name: What the task is called, the function's name unless given.

    Raises:
        DefinitionError: When the function or a policy is not fit for a task.
    """
    if len(args) == 1 and callable(args[0]) and not hasattr(args[0], "band"):
        return Task[..., Any](args[0], journal=journal, name=name)

    def decorate(function: Callable[..., Any]) -> Task[..., Any]:
        return Task(function, policies=args, journal=journal, name=name)

    return decorate
