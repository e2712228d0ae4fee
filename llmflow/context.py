"""What surrounds a call: the runtime, the run it belongs to, the flow it is in, who it is for.

All of it lives in context variables, so it follows tasks, worker threads and `.sync()` calls.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from llmflow.errors import DefinitionError
    from llmflow.journal import Spent
    from llmflow.messages import Result
    from llmflow.policy import Off, Policy

__all__ = [
    "Caller",
    "Frame",
    "Run",
    "Scope",
    "Tracer",
    "blocked_loop",
    "caller",
    "context",
    "frame",
    "leave",
    "new_id",
    "runtimes",
    "tracer",
]

S = TypeVar("S")

_counter = itertools.count(1)
_prefix = os.urandom(5).hex()


def _reseed() -> None:
    """Give a forked child ids of its own."""
    global _prefix  # noqa: PLW0603  # one prefix per process, and fork makes a new process
    _prefix = os.urandom(5).hex()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reseed)


def new_id() -> str:
    """Return an id that no other call of any process has; cheap, as every call needs two."""
    return f"{_prefix}{next(_counter):06x}"


class Run:
    """One outermost call and everything inside it.

    Attributes:
        id: Given by `with_(run_id=...)`, else made.
        target: Name of the step, flow or task that was called.
        calls: Results of the steps inside, kept only when somebody asked for a `Result` of the whole.
        record: What is written about it and found of it in the journal, None when nothing is.
        spent: What an earlier try of it has spent, by step.
    """

    __slots__ = ("_lock", "_shared", "calls", "id", "record", "spent", "target")

    def __init__(self, target: str, *, run_id: str | None = None, collect: bool = False) -> None:
        self.id = run_id or new_id()
        self.target = target
        self.calls: list[Result[Any]] | None = [] if collect else None
        self.record: Any = None
        self.spent: Mapping[str, Spent] = {}
        self._shared: dict[Hashable, Any] | None = None
        self._lock = threading.Lock()

    def shared(self, key: Hashable, make: Callable[[], S], /) -> S:
        """Return the one object of this run under `key`, made by `make` at the first call; it goes with the run."""
        with self._lock:
            if self._shared is None:
                self._shared = {}
            if key not in self._shared:
                self._shared[key] = make()
            return self._shared[key]  # type: ignore[no-any-return]

    def add(self, result: Result[Any]) -> None:
        """Take note of a finished call."""
        if self.calls is None:
            return
        with self._lock:
            self.calls.append(result)


class Scope:
    """The flows around a step, for the policies they declare. One object for each place a flow is bound at."""

    __slots__ = ("flow", "parent", "policies")

    def __init__(self, flow: str, policies: tuple[Policy | Off, ...], parent: Scope | None) -> None:
        self.flow = flow
        self.policies = policies
        self.parent = parent

    def path(self) -> Iterator[Scope]:
        """Yield this scope and those around it, innermost first."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent


class Frame:
    """What a call inherits from the call around it.

    Attributes:
        node: Where in the run it is: the path of what is around, such as `support/triage`; empty outside of everything.
    """

    __slots__ = ("deadline", "node", "run", "scope")

    def __init__(self, run: Run, scope: Scope | None, deadline: float, node: str = "") -> None:
        self.run = run
        self.scope = scope
        self.deadline = deadline
        self.node = node


class Tracer(Protocol):
    """Records calls instead of running them while a flow is being built."""

    def record(self, call: Any, /) -> Any:
        """Take note of an awaited call and return the placeholder of its value."""
        ...

    def drop(self, call: Any, /) -> None:
        """Take note of a call that nobody awaited."""
        ...

    def refuse(self, attempted: str, /) -> DefinitionError:
        """Return the error for what cannot be done while a flow is being built, naming the author's line."""
        ...


frame: ContextVar[Frame | None] = ContextVar("llmflow_frame", default=None)
tracer: ContextVar[Tracer | None] = ContextVar("llmflow_tracer", default=None)


def leave(token: Token[Frame | None]) -> None:
    """Go back to the frame before; a coroutine that is thrown away half-way ends in a context that never knew this one."""
    try:
        frame.reset(token)
    except ValueError:
        return


blocked_loop: ContextVar[object | None] = ContextVar("llmflow_blocked_loop", default=None)
"""The event loop whose thread waits for the running `.sync()` call, if any: what that loop holds cannot be waited for."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a call is for: kept in records and used as key by policies."""

    tenant: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


_nobody = Caller()
caller: ContextVar[Caller] = ContextVar("llmflow_caller", default=_nobody)


@contextmanager
def context(*, tenant: str | None = None, tags: Mapping[str, str] | None = None) -> Generator[None]:
    """Record the calls inside as made for `tenant` and with `tags`; nested contexts add up."""
    around = caller.get()
    token = caller.set(Caller(tenant if tenant is not None else around.tenant, {**around.tags, **(tags or {})}))
    try:
        yield
    finally:
        caller.reset(token)


class Runtimes:
    """Which runtime a call uses: the one entered around it, else the process default, else one made on demand."""

    def __init__(self) -> None:
        self._local: ContextVar[Any] = ContextVar("llmflow_runtime", default=None)
        self._default: Any = None
        self._made: Any = None
        self._factory: Callable[[], Any] | None = None
        self._lock = threading.Lock()

    def set_factory(self, factory: Callable[[], Any]) -> None:
        """Say how a runtime is made when nobody entered one; called once, by the package itself."""
        self._factory = factory

    @contextmanager
    def made_by(self, factory: Callable[[], Any]) -> Generator[None]:
        """While the block runs, let `factory` make the runtime that is made when nobody entered one."""
        before, self._factory = self._factory, factory
        try:
            yield
        finally:
            self._factory = before

    def current(self) -> Any:
        """Return the runtime of the call that is running."""
        return self._local.get() or self._default or self._made or self._make()

    def _make(self) -> Any:
        with self._lock:
            if self._made is None:
                assert self._factory is not None
                self._made = self._factory()
            return self._made

    def enter(self, runtime: Any) -> Callable[[], None]:
        """Make `runtime` current and return what undoes it.

        Outside of any call the first one entered becomes the default of the whole process; one entered inside a
        running call, or while there is a default already, is local to the context.
        """
        with self._lock:
            if self._default is None and frame.get() is None:
                self._default = runtime
                return self._leave_default
        token = self._local.set(runtime)
        return lambda: self._local.reset(token)

    def _leave_default(self) -> None:
        with self._lock:
            self._default = None

    def forget_made(self) -> Any:
        """Drop the runtime that was made on demand, and return it to be closed."""
        with self._lock:
            made, self._made = self._made, None
            return made


runtimes = Runtimes()
