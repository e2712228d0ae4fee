"""What leaves a flow whose nodes fail or are cancelled, and that nothing is left behind."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from llmflow.engine import LocalEngine
from llmflow.errors import StepError
from llmflow.graph import Constant, Graph, Ref, Structure, task
from llmflow.runtime import Runtime
from llmflow.step import Unit

from .engine_graphs import Builder, around, run_graph, task_count

pytestmark = pytest.mark.anyio

VIRTUAL_TIME = pytest.mark.parametrize(
    "anyio_backend", ["asyncio on virtual time", "trio on virtual time"], indirect=True
)
"""For limits that must not be over before what they limit has begun, however long the machine stands still."""


class Failure(Exception):
    """The author's own."""


@task
async def fail(error: BaseException, pauses: int = 0) -> int:
    for _ in range(pauses):
        await checkpoint()
    raise error


@task
async def forever() -> None:
    await anyio.sleep_forever()


@task
async def same(value: Any) -> Any:
    return value


def beside(*calls: tuple[Unit[..., Any], dict[str, Any]]) -> Graph:
    """Return a flow of nodes that need nothing of each other."""
    flow = Builder()
    return flow.graph(Structure(list, tuple([flow.call(unit, **inputs) for unit, inputs in calls])))


async def test_failure_leaves_as_itself(runtime: Runtime) -> None:
    """The very object that was raised comes out, with the node's name in a note."""
    error = Failure("mine")
    with pytest.raises(Failure) as caught:
        await run_graph(beside((fail, {"error": error})), runtime)

    assert error is caught.value
    assert "in node 'flow/fail' (app.py:1)" in caught.value.__notes__
    assert not hasattr(error, "others")


async def test_siblings_are_cancelled_and_awaited(runtime: Runtime) -> None:
    """When the failure leaves, the clean-up of every sibling has ended."""
    ended: list[str] = []

    @task
    async def slow(name: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                for _ in range(5):
                    await checkpoint()
            ended.append(name)

    error = Failure()
    graph = beside((slow, {"name": "a"}), (slow, {"name": "b"}), (fail, {"error": error, "pauses": 3}))
    with anyio.fail_after(5), pytest.raises(Failure) as caught:
        await run_graph(graph, runtime)

    assert error is caught.value
    assert ["a", "b"] == sorted(ended)


async def test_later_failures_are_kept(runtime: Runtime) -> None:
    """What goes wrong while siblings are cancelled is in `.others`, and a note says so."""

    @task
    async def break_in_cleanup() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise KeyError("later")

    error = StepError("first")
    graph = beside((break_in_cleanup, {}), (break_in_cleanup, {}), (fail, {"error": error, "pauses": 2}))
    with pytest.raises(StepError) as caught:
        await run_graph(graph, runtime)

    assert error is caught.value
    assert [KeyError, KeyError] == [type(one) for one in error.others]
    assert any(note.startswith("2 more failed after it: KeyError: 'later'") for note in error.__notes__)


async def test_the_same_failure_twice_is_one(runtime: Runtime) -> None:
    """Two nodes that raise one object do not make it its own `other`."""
    error = Failure()
    with pytest.raises(Failure):
        await run_graph(beside((fail, {"error": error, "pauses": 1}), (fail, {"error": error, "pauses": 1})), runtime)

    assert not getattr(error, "others", ())


async def test_nothing_starts_after_a_failure(runtime: Runtime) -> None:
    """A sibling that ends well although it was cancelled starts nobody."""
    started: list[int] = []

    @task
    async def stubborn() -> int:
        try:
            await anyio.sleep_forever()
        except BaseException:  # noqa: BLE001  # what nobody should do
            return 1
        return 0

    @task
    async def after(value: int) -> int:
        started.append(value)
        return value

    flow = Builder()
    value = flow.call(stubborn)
    flow.call(after, value=value)
    flow.call(fail, error=Failure(), pauses=2)
    with pytest.raises(Failure):
        await run_graph(flow.graph(value), runtime)

    assert [] == started


async def test_nodes_that_wait_for_a_helper_do_not_start_after_a_failure(runtime: Runtime) -> None:
    """Ready is not started."""
    started: list[int] = []

    @task
    async def note(value: int) -> int:
        started.append(value)
        return value

    calls: list[tuple[Unit[..., Any], dict[str, Any]]] = [(fail, {"error": Failure()})]
    with pytest.raises(Failure):
        await run_graph(beside(*calls, *[(note, {"value": one}) for one in range(50)]), runtime)

    assert [] == started


@VIRTUAL_TIME
async def test_cancellation_from_outside(runtime: Runtime) -> None:
    """It ends every node and passes on."""
    ended: list[str] = []

    @task
    async def slow(name: str) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(name)

    with anyio.move_on_after(0.05) as scope:
        await run_graph(beside((slow, {"name": "a"}), (slow, {"name": "b"}), (slow, {"name": "c"})), runtime)

    assert scope.cancelled_caught
    assert ["a", "b", "c"] == sorted(ended)


@VIRTUAL_TIME
async def test_outer_time_limit(runtime: Runtime) -> None:
    """`fail_after` round a flow raises its TimeoutError."""
    with pytest.raises(TimeoutError):
        with anyio.fail_after(0.05):
            await run_graph(beside((forever, {}), (forever, {})), runtime)


@VIRTUAL_TIME
async def test_cancellation_wins_over_failures_that_it_causes(runtime: Runtime) -> None:
    """A clean-up that fails does not turn a cancellation into an error."""

    @task
    async def break_in_cleanup() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise KeyError("later")

    for other in (break_in_cleanup, forever):
        with anyio.move_on_after(0.05) as scope:
            try:
                await run_graph(beside((break_in_cleanup, {}), (other, {})), runtime)
            except anyio.get_cancelled_exc_class() as exc:
                assert "failed as well: KeyError: 'later'" in exc.__notes__
                raise

        assert scope.cancelled_caught


async def test_cancelled_while_siblings_clean_up(runtime: Runtime) -> None:
    """A cancellation that arrives after a failure still waits for everybody."""
    ended: list[str] = []

    @task
    async def slow_to_end() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                scope.cancel()
                for _ in range(5):
                    await checkpoint()
            ended.append("slow")

    with anyio.CancelScope() as scope:
        await run_graph(beside((slow_to_end, {}), (fail, {"error": Failure(), "pauses": 2})), runtime)

    assert scope.cancelled_caught
    assert ["slow"] == ended


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_ends_it(runtime: Runtime, kind: type[BaseException]) -> None:
    """KeyboardInterrupt and SystemExit pass, from a chain and from between siblings, and leave no task."""
    for graph in (beside((fail, {"error": kind()})), beside((forever, {}), (fail, {"error": kind(), "pauses": 2}))):
        for backend in ("asyncio", "trio"):
            run = LocalEngine().prepare(graph, runtime, None)
            with pytest.raises(kind):
                anyio.run(run, {}, around(), backend=backend)


def test_what_ends_the_program_goes_before_failures(runtime: Runtime) -> None:
    """A SystemExit in a clean-up is not hidden by the failure that caused the clean-up."""

    @task
    async def leave() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise SystemExit(3)

    run = LocalEngine().prepare(beside((leave, {}), (fail, {"error": Failure(), "pauses": 2})), runtime, None)
    for backend in ("asyncio", "trio"):
        with pytest.raises(SystemExit):
            anyio.run(run, {}, around(), backend=backend)


def test_cancelled_by_something_else(runtime: Runtime) -> None:
    """A node that awaits what somebody else cancelled ends the flow as it would end any coroutine."""

    @task
    async def await_cancelled() -> None:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.cancel)
        await future

    async def main() -> None:
        before = task_count()
        with pytest.raises(asyncio.CancelledError):
            await run_graph(beside((await_cancelled, {}), (forever, {})), runtime)

        assert before == task_count()
        assert (task := asyncio.current_task()) is not None
        assert not task.cancelling()

    asyncio.run(main())


def test_native_cancellation_is_neither_counted_twice_nor_swallowed(runtime: Runtime) -> None:
    """`asyncio.timeout` round a flow finds its own cancellation again."""

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await run_graph(beside((forever, {}), (forever, {})), runtime)

        assert (task := asyncio.current_task()) is not None
        assert not task.cancelling()

    asyncio.run(main())


def busy(ticks: Any) -> Graph:
    """Return a flow with forks, joins and chains, whose nodes each pass several checkpoints."""

    @task
    async def work(value: Any) -> int:
        for _ in range(3):
            ticks()
            await checkpoint()
        return 1

    flow = Builder()
    first = flow.call(work, value=0)
    second = flow.call(work, value=first)
    wide = [flow.call(work, value=second) for _ in range(5)]
    long = flow.call(work, value=flow.call(work, value=wide[0]))
    joined = flow.call(work, value=Structure(list, (*wide, long)))
    mapped = flow.map(work.map(()), Constant([1, 2, 3]))
    return flow.graph(Structure(list, (joined, mapped, Ref(first.node))))


async def test_cancellation_at_every_checkpoint(runtime: Runtime) -> None:
    """Wherever a run is cancelled, no task is left and the cancellation arrives."""
    for moment in range(1, 1000):
        count = 0
        scope = anyio.CancelScope()

        def tick() -> None:
            nonlocal count
            count += 1
            if count == moment:
                scope.cancel()

        with scope:
            await run_graph(busy(tick), runtime)
            break
        assert scope.cancelled_caught

    assert 3 * (10 + 3) + 1 == moment


async def test_failure_at_every_checkpoint(runtime: Runtime) -> None:
    """Wherever a node fails, that failure leaves, alone, and no task is left."""
    for moment in range(1, 1000):
        count = 0
        error = Failure(moment)

        def tick() -> None:
            nonlocal count
            count += 1
            if count == moment:
                raise error

        try:
            await run_graph(busy(tick), runtime)
        except Failure as caught:
            assert error is caught
            assert not getattr(caught, "others", ())
        else:
            break

    assert 3 * (10 + 3) + 1 == moment


def test_native_cancellation_at_every_cycle(runtime: Runtime) -> None:
    """`Task.cancel()` in any cycle of the loop ends the run and everything in it."""

    async def main() -> int:
        for cycles in range(1000):
            task = asyncio.ensure_future(run_graph(busy(lambda: None), runtime))
            for _ in range(cycles):
                await asyncio.sleep(0)
            if task.done():
                return cycles
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert {asyncio.current_task()} == asyncio.all_tasks()
        return 0

    assert asyncio.run(main()) > 15
