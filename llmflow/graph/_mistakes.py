"""What is said when a flow's body does what cannot be traced."""

from __future__ import annotations

from types import CodeType
from typing import TYPE_CHECKING, Any, cast

from llmflow.context import tracer
from llmflow.errors import DefinitionError
from llmflow.graph._location import current_location
from llmflow.graph._types import display
from llmflow.step import MapCall

if TYPE_CHECKING:
    from llmflow.graph._placeholder import State

__all__ = ["Mistakes"]

_WAYS_OUT = "do it in a @task, choose with when() or switch(), fan out with .map(), construct with build(), or use @flow(eager=True)"


class Mistakes:
    """The part of a trace that makes errors and remembers the first.

    Attributes:
        flow: Name of the flow.
        error: The first DefinitionError that was raised, also when the body swallowed it.
        dropped: The first error for a call that nobody awaited.
        ending: Where the body returned, once it has.
    """

    def __init__(self, flow: str, module: str, driver: CodeType) -> None:
        self.flow = flow
        self.error: DefinitionError | None = None
        self.dropped: DefinitionError | None = None
        self.ending: str | None = None
        self._module = module
        self._driver = driver

    @property
    def location(self) -> str:
        """The author's line that is running."""
        return self.ending or current_location(self._module, self._driver)

    def fail(self, message: str, *, location: str | None = None) -> DefinitionError:
        """Return the error for a mistake, and remember the first one."""
        error = DefinitionError(f"{location or self.location}: flow {self.flow!r}: {message}")
        self.error = self.error or error
        return error

    def refuse(self, attempted: str, state: State | None = None, *, location: str | None = None) -> DefinitionError:
        """Return the error for what needs a real value."""
        if state is None:
            return self.fail(
                f"{attempted} is not possible while the flow is built; await it, or use @flow(eager=True)",
                location=location,
            )
        return self.fail(
            f"{attempted} needs a real value, but {state.label} is only known when the flow runs; {_WAYS_OUT}",
            location=location,
        )

    def misfit(self, why: str, state: State) -> DefinitionError:
        """Return the error for a field or an item that the type does not have."""
        kind = display(state.annotation)
        return self.fail(
            f"{state.label} is {kind}: {why}; what the type does not promise is done in a @task or with @flow(eager=True)"
        )

    def check_live(self, state: State) -> None:
        """Raise when a placeholder of this trace is used outside of it."""
        active = cast(object, tracer.get())
        if active is self:
            return
        if isinstance(active, Mistakes):
            raise active.foreign(state)
        msg = (
            f"{state.label} stands for a value of flow {self.flow!r} and means nothing outside of its body, which has been read; "
            f"it was stored somewhere while the flow was built. Return it from the flow, or use @flow(eager=True)"
        )
        raise DefinitionError(msg)

    def check_own(self, state: State) -> None:
        """Raise when a placeholder belongs to another flow."""
        if state.trace is not self:
            raise self.foreign(state)

    def foreign(self, state: State) -> DefinitionError:
        """Return the error for a placeholder of another flow."""
        return self.fail(
            f"{state.label} belongs to flow {state.trace.flow!r}; a value gets from one flow to another as an argument or as its result"
        )

    def drop(self, call: Any, /) -> None:
        """Take note of a call that nobody awaited; a call of a flow that is built already may be told about late."""
        if self.ending is None and self.error is None and self.dropped is None:
            name = call.unit.name if isinstance(call, MapCall) else call.name
            msg = f"{self.location}: flow {self.flow!r}: {name!r} was called but never awaited, so it would not run; write `await` before it"
            self.dropped = DefinitionError(msg)
