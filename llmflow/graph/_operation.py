"""What `when`, `switch`, `gather`, `build` and `or_else` return: awaited once, in a traced flow or outside of any."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping
from contextlib import suppress
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

from llmflow.context import tracer
from llmflow.errors import DefinitionError
from llmflow.graph._ir import Node, Operand
from llmflow.graph._operands import to_operand
from llmflow.graph._placeholder import is_placeholder
from llmflow.graph._splice import needs
from llmflow.step import Call, MapCall
from llmflow.step._call import Deferred

if TYPE_CHECKING:
    from llmflow.graph._trace import Trace

__all__ = ["Branch", "Operation", "check_branches", "discard", "is_branch", "mistake"]

T_co = TypeVar("T_co", covariant=True)


class Operation(Deferred[T_co]):
    """Something made of calls that were not awaited themselves.

    Subclasses say what it does for real (`perform`) and what it is in a graph (`node`).
    """

    __slots__ = ("_taken",)

    kind: Literal["when", "switch", "or_else", "build", "gather"]

    def __init__(self, taken: Iterable[object]) -> None:
        super().__init__()
        self._taken = tuple(taken)

    @property
    def name(self) -> str:
        """The name of the function that made it."""
        return self.kind

    async def perform(self) -> T_co:
        """Do it, with real values."""
        raise NotImplementedError

    def node(self, trace: Trace, /) -> Node:
        """Return it as a node that is not in the graph yet."""
        raise NotImplementedError

    def record(self, trace: Trace, /) -> Any:
        """Put it into the graph and return what awaiting it gives."""
        return trace.append(self.node(trace))

    def close(self) -> None:
        """Give it and the calls in it up."""
        super().close()
        discard(self._taken)

    def discard(self) -> None:
        """Mark it and the calls in it as taken by something else."""
        super().discard()
        discard(self._taken)

    def make_node(
        self,
        trace: Trace,
        output: Any,
        *,
        name: str | None = None,
        branches: Mapping[Any, Branch] | None = None,
        inputs: Mapping[str, object] | None = None,
        condition: object = None,
        items: Operand | None = None,
        errors: tuple[type[BaseException], ...] = (),
    ) -> Node:
        """Return a node of this kind; its branches are recorded first, as they stand before it in the source."""
        assert self.kind != "gather"
        made = Node(
            index=-1,
            key=trace.key(name or self.kind),
            kind=self.kind,
            name=name or self.kind,
            output=output,
            location=trace.location,
            scope=trace.scope,
            inputs={key: to_operand(value, trace, f"field {key!r}") for key, value in (inputs or {}).items()},
            items=items,
            condition=None if condition is None else to_operand(condition, trace, "the condition"),
            branches={key: trace.branch(branch) for key, branch in (branches or {}).items()},
            errors=errors,
        )
        made.after = needs(made)
        return made

    def _open(self) -> Coroutine[Any, Any, T_co]:
        self._use()
        self._coroutine = self.perform()
        return self._coroutine

    def __del__(self) -> None:
        if not getattr(self, "_used", True):  # one that was refused while it was made has nothing yet
            super().__del__()
            discard(self._taken)

    def __repr__(self) -> str:
        return f"<{self.kind} of {', '.join(map(repr, self._taken))}>"


Branch: TypeAlias = "Call[Any] | MapCall[Any, Any, Any] | Operation[Any]"


def discard(calls: Iterable[object]) -> None:
    """Mark calls that will not run, so that nobody is told they were forgotten."""
    for call in calls:
        if is_branch(call):
            with suppress(RuntimeError):  # it was used before
                call.discard()  # type: ignore[attr-defined]  # it is a branch


def is_branch(value: object) -> bool:
    """Whether a value is a call that has not been awaited."""
    return not is_placeholder(value) and isinstance(value, Call | MapCall | Operation)


def mistake(message: str, *calls: object) -> DefinitionError:
    """Return the error for an operation that cannot be made; the calls it was given are given up."""
    discard(calls)
    active = tracer.get()
    return active.fail(message) if isinstance(active, Failing) else DefinitionError(message)


@runtime_checkable
class Failing(Protocol):
    """A trace, which says in whose flow and at which line a mistake was made."""

    def fail(self, message: str) -> DefinitionError:
        """Return the error and remember it."""
        ...


def check_branches(given: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return branches, refusing what is no single call; the keys say what they are.

    Raises:
        DefinitionError: For values, for coroutines that are not llmflow's, and for `gather`.
    """
    for what, value in given.items():
        if is_branch(value) and getattr(value, "kind", None) == "gather":
            msg = f"{what} is a gather(); make a branch of several calls a flow, and call that"
            raise mistake(msg, *given.values())
        if not is_branch(value):
            kind = "a value that is already awaited" if is_placeholder(value) else type(value).__name__
            if type(value) is CoroutineType:  # it would warn that nobody awaited it
                value.close()
            msg = f"{what} must be a call that is not awaited, such as `draft(text)`, not {kind}"
            raise mistake(msg, *given.values())
    return tuple(given.values())
