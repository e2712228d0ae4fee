"""What leaves an eager `gather` whose calls are cancelled or fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from llmflow import flow, gather, task

pytestmark = pytest.mark.anyio


@task
async def unchanged(value: int) -> int:
    return value


@task
async def await_cancelled(value: int) -> int:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    future.cancel()
    return await future


@task
async def break_in_cleanup(value: int) -> int:
    try:
        await anyio.sleep_forever()
    finally:
        raise KeyError(value)


@task
async def stop_program(value: int) -> int:
    try:
        await anyio.sleep_forever()
    finally:
        raise SystemExit(value)


@task
async def fail(value: int) -> int:
    await anyio.sleep(0.01)
    raise ZeroDivisionError(value)


async def _cancelled_inside(value: int) -> list[int]:
    return [*await gather(unchanged(value), await_cancelled(value), unchanged(value))]


@pytest.mark.parametrize("body", [flow(_cancelled_inside), flow(eager=True)(_cancelled_inside), _cancelled_inside])
def test_a_child_cancelled_by_somebody_else(body: Callable[[int], Awaitable[Any]]) -> None:
    """Its cancellation leaves, traced or not; it does not become a value."""

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await body(1)
        assert (current := asyncio.current_task()) is not None
        assert not current.cancelling()
        assert {current} == asyncio.all_tasks()

    asyncio.run(main())


async def test_cancellation_from_outside_is_not_replaced() -> None:
    """A clean-up that fails does not turn a cancellation into an error."""
    with anyio.move_on_after(0.02) as scope:
        await gather(break_in_cleanup(1), break_in_cleanup(2))

    assert scope.cancelled_caught


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_ends_the_program_goes_first(backend: str) -> None:
    """As in a traced flow, a SystemExit is not hidden behind the failure that led to it."""

    async def main() -> None:
        await gather(fail(1), stop_program(3))

    with pytest.raises(SystemExit):
        anyio.run(main, backend=backend)


async def test_failure_gives_up_calls_that_did_not_begin() -> None:
    """And nobody is told that they were forgotten."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await gather(fail(1), fail(2), unchanged(3))

    assert scope.cancelled_caught


async def test_nothing_to_gather() -> None:
    """Is no values."""
    assert () == await gather()
