"""A call that has not run yet: what `step(...)` returns, and what it shares with other things that are awaited once."""

from __future__ import annotations

import warnings
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from llmflow.context import tracer

if TYPE_CHECKING:
    from types import TracebackType

    from llmflow.step._unit import Unit

__all__ = ["Call", "Deferred"]

T_co = TypeVar("T_co", covariant=True)


class Deferred(Coroutine[Any, Any, T_co], Generic[T_co]):
    """A single-use coroutine that begins when it is awaited; while a flow is being traced it is recorded instead.

    `asyncio.gather`, `create_task`, task groups and anyio's `start_soon` take it as they take any coroutine.
    """

    __slots__ = ("__weakref__", "_coroutine", "_tracer", "_used")

    def __init__(self) -> None:
        self._coroutine: Coroutine[Any, Any, T_co] | None = None
        self._tracer = tracer.get()  # the garbage collector may run while some other flow is traced
        self._used = False

    @property
    def name(self) -> str:
        """What it is called in errors and warnings."""
        raise NotImplementedError

    def __await__(self) -> Generator[Any, Any, T_co]:
        if (active := tracer.get()) is not None:
            self._use()
            return _immediately(active.record(self))
        return self._open().__await__()

    def send(self, value: Any, /) -> Any:
        """Run until the next suspension, as `Coroutine.send` does."""
        return (self._coroutine or self._start()).send(value)

    def throw(
        self,
        kind: Any,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
        /,
    ) -> Any:
        """Raise inside, as `Coroutine.throw` does."""
        error: Any = kind if value is None else value
        if traceback is not None and isinstance(error, BaseException):
            error = error.with_traceback(traceback)
        return (self._coroutine or self._start()).throw(error)

    def close(self) -> None:
        """Give the call up without running it, or stop it where it is."""
        self._used = True
        if self._coroutine is not None:
            self._coroutine.close()

    def discard(self) -> None:
        """Mark the call as taken by something else, such as a conditional node, so that it does not warn."""
        self._use()

    def _open(self) -> Coroutine[Any, Any, T_co]:
        """Mark it as used and return the coroutine that does the work."""
        raise NotImplementedError

    def _start(self) -> Coroutine[Any, Any, T_co]:
        """Open it for an event loop; while a flow is being traced nothing may run."""
        if (active := tracer.get()) is not None:
            raise active.refuse(f"running {self.name!r} as a task of its own")
        return self._open()

    def _use(self) -> None:
        if self._used:
            msg = f"this call of {self.name!r} was awaited before; call {self.name!r} again for another answer"
            raise RuntimeError(msg)
        self._used = True

    def __del__(self) -> None:
        if getattr(self, "_used", True):  # without the attribute, `__init__` refused it
            return
        if self._tracer is not None:
            self._tracer.drop(self)
        else:
            warnings.warn(f"coroutine '{self.name}' was never awaited", RuntimeWarning, stacklevel=2, source=self)


class Call(Deferred[T_co]):
    """One call of a step, task or flow.

    Awaiting it runs the call; while a flow is being traced, awaiting it gives a placeholder of its value instead.

    Attributes:
        unit: What is called.
        inputs: The arguments by name.
        wants_result: Whether the value is the whole `Result`.
    """

    __slots__ = ("inputs", "unit", "wants_result")

    def __init__(self, unit: Unit[..., Any], inputs: dict[str, object], *, wants_result: bool = False) -> None:
        self.unit = unit
        self.inputs = inputs
        self.wants_result = wants_result
        super().__init__()

    @property
    def name(self) -> str:
        """The name of what is called."""
        return self.unit.name

    def _open(self) -> Coroutine[Any, Any, T_co]:
        self._use()
        self._coroutine = self.unit.execute(self.inputs, wants_result=self.wants_result)
        return self._coroutine

    def __repr__(self) -> str:
        return f"<Call of {self.unit.kind} {self.unit.name!r}>"


def _immediately(value: Any) -> Generator[Any, Any, Any]:
    """Return a value to whoever awaits, without suspending."""
    return value
    yield
