"""The runtime a command works in, and the event loop it runs on."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TypeVar

import anyio

from llmflow.cli._failures import UsageError
from llmflow.context import runtimes
from llmflow.runtime import Runtime, default_runtime, plan
from llmflow.step import Unit

__all__ = ["DEFAULT_STORE", "check", "run_async", "session"]

T = TypeVar("T")

DEFAULT_STORE = "sqlite:///.llmflow/llmflow.db"
"""Where commands keep answers and record runs unless told otherwise; the file is made when there is something to keep."""


@contextmanager
def session(model: str | None = None) -> Generator[Runtime]:
    """Give the runtime that the target's module made, else the default one, with every model replaced if asked for."""
    with runtimes.made_by(_runtime):
        runtime: Runtime = runtimes.current()
    if model is None:
        yield runtime
        return
    if "/" not in model.strip("/"):
        raise UsageError(
            f"--model {model!r} does not name its provider",
            f"Write it as provider/name, such as openai/{model.strip('/') or 'gpt-5-mini'}.",
        )
    with runtime.override(model=model) as changed:
        yield changed


def _runtime() -> Runtime:
    """Make the default runtime of a command: what was cached and recorded is still there for the next command."""
    return default_runtime(cache=DEFAULT_STORE, journal=DEFAULT_STORE)


def check(unit: Unit[..., Any], runtime: Runtime) -> None:
    """Find out what is wrong with a target and its models before anything is sent."""
    plan(unit, runtime=runtime)


def run_async(main: Callable[[], Awaitable[T]], runtime: Runtime) -> T:
    """Run a coroutine function to its end, and close its connections.

    What the user's code prints goes to stderr: stdout is for data, which is written around this.
    """

    async def run() -> T:
        try:
            return await main()
        finally:
            with anyio.CancelScope(shield=True):
                await runtime.aclose()

    with redirect_stdout(sys.stderr):
        return anyio.run(run)
