"""`when`, `switch` and `or_else`: decisions and failure as parts of a graph."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from llmflow.errors import JournalUnavailable, RunConflict, StepError
from llmflow.graph._ir import DEFAULT, Constant, Node
from llmflow.graph._operands import to_operand, type_of
from llmflow.graph._operation import Operation, check_branches, discard, is_branch, mistake
from llmflow.graph._placeholder import is_placeholder
from llmflow.graph._types import cases, display, is_a, is_open, members, union_of

if TYPE_CHECKING:
    from llmflow.graph._trace import Trace

__all__ = ["is_of_the_record", "or_else", "switch", "when"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
T = TypeVar("T")
S = TypeVar("S")


# -- when --------------------------------------------------------------------------------------------------------------


class _When(Operation[Any]):
    kind = "when"

    def __init__(self, condition: object, then_call: Any, else_call: Any) -> None:
        super().__init__(
            check_branches({"the second argument of when()": then_call, "the third argument of when()": else_call})
        )
        self._condition = condition

    async def perform(self) -> Any:
        then_call, else_call = self._taken
        chosen, other = (then_call, else_call) if self._condition else (else_call, then_call)
        discard((other,))
        return await chosen  # type: ignore[misc]  # checked to be a call

    def node(self, trace: Trace, /) -> Node:
        trace.check_type(self._condition, bool, "when() takes a bool as its condition")
        branches: dict[Any, Any] = dict(zip((True, False), self._taken, strict=True))
        node = self.make_node(trace, None, condition=self._condition, branches=branches)
        node.output = union_of([branch.output for branch in node.branches.values()])
        return node

    def record(self, trace: Trace, /) -> Any:
        if (known := _known(self._condition, trace)) is not None:
            chosen, other = self._taken if known.value else self._taken[::-1]
            discard((other,))
            return trace.await_call(chosen)
        return super().record(trace)


def when(cond: bool, then_call: Awaitable[T], else_call: Awaitable[S]) -> Coroutine[Any, Any, T | S]:  # noqa: FBT001  # the point of it
    """Run one of two calls, and only that one.

    `await when(ticket.urgent, page(ticket), draft(ticket))`. What is awaited to make the arguments of a call is not
    conditional; make a branch of several steps a flow.

    Raises:
        DefinitionError: When a branch is not a call.
    """
    return _When(cond, then_call, else_call)


# -- switch ------------------------------------------------------------------------------------------------------------


class _Switch(Operation[Any]):
    kind = "switch"

    def __init__(self, value: object, branches: Mapping[Any, Any], default: Any) -> None:
        every = dict(branches) if default is None else {**branches, DEFAULT: default}
        super().__init__(check_branches({f"the case {key!r} of switch()": call for key, call in every.items()}))
        self._value = value
        self._branches: dict[Any, Any] = every

    async def perform(self) -> Any:
        chosen = self._choose(self._value)
        discard(call for call in self._branches.values() if call is not chosen)
        return await chosen

    def _choose(self, value: object) -> Any:
        """Return the call for a real value; what no case can ever miss is demanded of every value, as in a graph."""
        kind = type(value)
        if isinstance(value, enum.Enum | bool) and (problem := self._problem(kind)) is not None:
            raise mistake(problem, *self._taken)
        if value in self._branches:
            return self._branches[value]
        if DEFAULT in self._branches:
            return self._branches[DEFAULT]
        msg = f"switch on {value!r}, which is none of {', '.join(map(repr, self._branches))}; give it a default="
        raise mistake(msg, *self._taken)

    def node(self, trace: Trace, /) -> Node:
        annotation = type_of(self._value)
        if (problem := self._problem(annotation)) is not None:
            raise mistake(problem, *self._taken)
        node = self.make_node(trace, None, condition=self._value, branches=self._branches)
        node.output = union_of([branch.output for branch in node.branches.values()])
        return node

    def record(self, trace: Trace, /) -> Any:
        if (known := _known(self._value, trace)) is not None:
            chosen = self._choose(known.value)
            discard(call for call in self._branches.values() if call is not chosen)
            return trace.await_call(chosen)
        return super().record(trace)

    def _problem(self, annotation: Any) -> str | None:
        """Say what is wrong with the cases for a type, None when they are fine."""
        possible = cases(annotation)
        given = [key for key in self._branches if key is not DEFAULT]
        if possible is None:
            return (
                None
                if DEFAULT in self._branches or any(map(is_open, members(annotation)))
                else self._unbounded(annotation)
            )
        if impossible := [key for key in given if key not in possible]:
            return (
                f"switch has a case {impossible[0]!r}, which {display(annotation)} never is; it is {_listed(possible)}"
            )
        missing = [one for one in possible if one not in given]
        if missing and DEFAULT not in self._branches:
            return f"switch over {display(annotation)} does not cover {_listed(missing)}; add the missing cases or a default="
        return None

    def _unbounded(self, annotation: Any) -> str:
        return f"switch over {display(annotation)} cannot cover every value; give it a default="


def _listed(values: Any) -> str:
    return ", ".join(map(repr, values))


def switch(
    value: A, branches: Mapping[A, Awaitable[T]], default: Awaitable[S] | None = None
) -> Coroutine[Any, Any, T | S]:
    """Run the call whose key equals the value, else the default, and only that one.

    Over a Literal, an Enum or a bool it may go without a default when it covers every case.

    Raises:
        DefinitionError: When a case is missing or can never be, or a branch is not a call.
    """
    return _Switch(value, branches, default)


# -- or_else -----------------------------------------------------------------------------------------------------------


class _OrElse(Operation[Any]):
    kind = "or_else"

    def __init__(self, call: Any, otherwise: Any, on: type[Exception] | tuple[type[Exception], ...]) -> None:
        given = {"the first argument of or_else()": call}
        if is_branch(otherwise):
            given["the second argument of or_else()"] = otherwise
        check_branches(given)
        self._on = _check_errors(on, *given.values())
        super().__init__((call, otherwise))

    async def perform(self) -> Any:
        taken: tuple[Any, ...] = self._taken
        call, otherwise = taken
        try:
            value = await call
        except self._on as exc:  # left behind, so that what the second call raises does not carry it as its context
            if is_of_the_record(exc, self._on):
                discard((otherwise,))
                raise
        except BaseException:
            discard((otherwise,))
            raise
        else:
            discard((otherwise,))
            return value
        return await otherwise if is_branch(otherwise) else otherwise

    def node(self, trace: Trace, /) -> Node:
        call, otherwise = self._taken
        if is_branch(otherwise):
            branches: dict[Any, Any] = {"call": call, "otherwise": otherwise}
            node = self.make_node(trace, None, branches=branches, errors=self._on)
            node.output = union_of([branch.output for branch in node.branches.values()])
            return node
        value = to_operand(otherwise, trace, "the second argument of or_else()")
        node = self.make_node(trace, None, branches={"call": call}, items=value, errors=self._on)  # type: ignore[dict-item]
        node.output = union_of([node.branches["call"].output, _type_of_value(otherwise)])
        return node


_OF_THE_RECORD = (JournalUnavailable, RunConflict)


def is_of_the_record(error: BaseException, on: tuple[type[BaseException], ...]) -> bool:
    """Whether an error says that the run cannot be recorded or taken up, and `on` does not name it.

    An `or_else` would hide that, and write down that its call has failed although its answer may be there.
    """
    return isinstance(error, _OF_THE_RECORD) and not any(issubclass(one, _OF_THE_RECORD) for one in on)


def _type_of_value(value: object) -> Any:
    known = type_of(value)
    return known if not is_open(known) else type(value)


def _check_errors(on: type[Exception] | tuple[type[Exception], ...], *calls: object) -> tuple[type[Exception], ...]:
    errors = on if isinstance(on, tuple) else (on,)
    for error in errors:
        if not is_a(error, Exception):
            msg = f"or_else: on= holds {error!r}, expected exception classes such as StepError"
            raise mistake(msg, *calls)
    return errors


@overload
def or_else(
    call: Awaitable[T], value_or_call: Awaitable[S], on: type[Exception] | tuple[type[Exception], ...] = ...
) -> Coroutine[Any, Any, T | S]: ...
@overload
def or_else(
    call: Awaitable[T], value_or_call: S, on: type[Exception] | tuple[type[Exception], ...] = ...
) -> Coroutine[Any, Any, T | S]: ...


def or_else(call: Any, value_or_call: Any, on: type[Exception] | tuple[type[Exception], ...] = (StepError,)) -> Any:
    """Run a call; when it fails with one of `on`, the value is that of the second call, or the value given.

    That a run cannot be recorded or taken up (`JournalUnavailable`, `RunConflict`) is no failure of the call, and only caught
    when `on` names it.

    Raises:
        DefinitionError: When the first argument is not a call, or `on` holds something else than exceptions.
    """
    return _OrElse(call, value_or_call, on)


def _known(value: object, trace: Trace) -> Constant | None:
    """Return a value that is the same in every run, so that the choice can be made now."""
    if not is_placeholder(value):
        return Constant(value)
    operand = to_operand(value, trace, "the condition")
    return operand if isinstance(operand, Constant) else None
