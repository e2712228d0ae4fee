"""Running the body of a flow once, without an event loop, to see which calls it makes."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NoReturn, cast

from llmflow.backend import running_loop  # pyright: ignore[reportPrivateUsage]  # exported there under this name
from llmflow.context import tracer
from llmflow.errors import DefinitionError
from llmflow.graph._location import at, suspended_location

if TYPE_CHECKING:
    from llmflow.graph._trace import Trace

__all__ = ["EVENT_LOOPS", "INSTEAD", "drive"]

EVENT_LOOPS = ("asyncio", "anyio", "trio", "sniffio")
INSTEAD = "run steps side by side with llmflow.gather() or .map(), wait inside a @task, or use @flow(eager=True)"


def drive(
    function: Callable[..., Coroutine[Any, Any, Any]], arguments: dict[str, Any], trace: Trace, module: str
) -> object:
    """Return what the body returns when every llmflow call gives a placeholder.

    Raises:
        DefinitionError: The first mistake, also when the body swallowed it.
    """
    coroutine = cast("CoroutineType[Any, Any, Any]", function(**arguments))
    token = tracer.set(trace)
    try:
        with _no_loop(trace):
            value = _finish(coroutine, trace, module)
    except DefinitionError as error:
        _forget_locals(error, trace.error)
        raise trace.error or error from None
    except Exception as error:
        if trace.error is not None:
            _forget_locals(error, trace.error)
            raise trace.error from error
        raise
    finally:
        with suppress(RuntimeError):  # a body that goes on after GeneratorExit
            coroutine.close()
        tracer.reset(token)
    if (mistake := trace.error or trace.dropped) is not None:
        raise mistake
    return value


def _finish(coroutine: CoroutineType[Any, Any, Any], trace: Trace, module: str) -> object:
    try:
        yielded = coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    except DefinitionError as error:
        if trace.error is not None:
            raise
        raise trace.fail(str(error), location=_own_line(error, module)) from error
    except Exception as error:
        if (mistake := _explain(error, trace, module)) is None:
            raise
        raise mistake from error
    where = suspended_location(coroutine, module)
    what = "something" if yielded is None else type(yielded).__name__
    raise trace.fail(
        f"awaits {what} that is no llmflow call; while the flow is built nothing can be waited for: {INSTEAD}",
        location=where,
    )


def _explain(error: Exception, trace: Trace, module: str) -> DefinitionError | None:
    """Return the error that helps for what needs a running loop or a real value; None for the author's own."""
    modules = {
        str(frame.f_globals.get("__name__", "")).partition(".")[0]
        for frame, _ in traceback.walk_tb(error.__traceback__)
    }
    said = f"{type(error).__name__}: {error}"
    if not modules.isdisjoint(EVENT_LOOPS):
        return trace.fail(
            f"{said}; while the flow is built no event loop runs: {INSTEAD}", location=_own_line(error, module)
        )
    if "Placeholder" in str(error):
        return trace.fail(
            f"{said}; a value that is only known when the flow runs was given to code that needs it now: "
            f"do that in a @task, or use @flow(eager=True)",
            location=_own_line(error, module),
        )
    error.add_note(
        f"raised while flow {trace.flow!r} was being built: its body runs once with placeholders for the values of its steps"
    )
    return None


def _own_line(error: Exception, module: str) -> str:
    """Return the author's line, the innermost of those in the flow's package, at which an error came out."""
    home = module.partition(".")[0]
    lines = [
        at(frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] == home
    ]
    return lines[-1] if lines else "?"


def _forget_locals(*errors: BaseException | None) -> None:
    """Drop the calls that the body made and did not come to await, while they still know that nothing was to run.

    Kept alive by the traceback, they would warn much later, and far from here, that nobody awaited them.
    """
    seen: set[int] = set()
    for error in errors:
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            traceback.clear_frames(error.__traceback__)
            error = error.__cause__ or error.__context__  # noqa: PLW2901  # down the chain


class _NoLoop:
    """Stands in for the running event loop while a flow is built, so that nothing can be scheduled on the real one.

    A task that the body creates would run a step for real, later, outside of the graph.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def __getattr__(self, name: str) -> NoReturn:
        raise self._trace.fail(
            f"asyncio's event loop is asked for {name!r}, but none runs while the flow is built; {INSTEAD}"
        )


@contextmanager
def _no_loop(trace: Trace) -> Generator[None, None, None]:
    real = running_loop()
    asyncio._set_running_loop(cast("Any", _NoLoop(trace)))  # noqa: SLF001  # listed in asyncio.events.__all__ for exactly this
    try:
        yield
    finally:
        asyncio._set_running_loop(real)  # noqa: SLF001  # see above
