"""What a run of a graph does when nothing goes wrong."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import weakref
from dataclasses import dataclass
from enum import Enum
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from llmflow.context import Frame, Scope, frame
from llmflow.engine import LocalEngine
from llmflow.errors import DeadlineExceeded, DefinitionError, StepError
from llmflow.graph import DEFAULT, Constant, Input, Ref, Structure, flow, switch, task
from llmflow.graph._groups import open_group
from llmflow.policies import Deadline
from llmflow.runtime import Runtime

from .engine_graphs import Builder, around, run_graph, task_count

pytestmark = pytest.mark.anyio

VIRTUAL_TIME = pytest.mark.parametrize(
    "anyio_backend", ["asyncio on virtual time", "trio on virtual time"], indirect=True
)
"""For limits that must not be over before what they limit has begun, however long the machine stands still."""


@task
async def increment(value: int) -> int:
    await checkpoint()
    return value + 1


@task
async def total(values: list[int]) -> int:
    return sum(values)


@task
async def same(value: Any) -> Any:
    return value


@task
async def fail(value: Any = None) -> Any:
    raise ZeroDivisionError(value)


@task
async def where() -> tuple[int, Frame | None]:
    return anyio.get_current_task().id, frame.get()


async def test_value_of_a_chain(runtime: Runtime) -> None:
    """Each node gets the value of the one before."""
    flow = Builder("start")
    value: Any = Input("start")
    for _ in range(200):
        value = flow.call(increment, value=value)

    assert 205 == await run_graph(flow.graph(value), runtime, start=5)


async def test_flow_without_nodes(runtime: Runtime) -> None:
    """A flow that only hands its input on works too."""
    assert (1, "x") == await run_graph(Builder("a").graph(Structure(tuple, (Input("a"), Constant("x")))), runtime, a=1)


async def test_chain_runs_in_the_callers_task(runtime: Runtime) -> None:
    """No task is started where there is nothing to do in parallel."""
    flow = Builder()
    first = flow.call(where)
    graph = flow.graph(Structure(list, (first, flow.call(same, value=first))))
    (inside, _), _ = await run_graph(graph, runtime)

    assert anyio.get_current_task().id == inside


@pytest.mark.parametrize("width", [2, 3, 100, 257])
async def test_everything_that_is_ready_runs_at_once(runtime: Runtime, width: int) -> None:
    """Nodes that wait for each other all get started."""
    inside = 0
    everybody = anyio.Event()

    @task
    async def meet(number: int) -> int:
        nonlocal inside
        inside += 1
        if inside == width:
            everybody.set()
        await everybody.wait()
        return number

    flow = Builder()
    parts = tuple(flow.call(meet, number=number) for number in range(width))
    graph = flow.graph(flow.call(total, values=Structure(list, parts)))
    with anyio.fail_after(60):
        assert sum(range(width)) == await run_graph(graph, runtime)


async def test_everything_that_becomes_ready_runs_at_once(runtime: Runtime) -> None:
    """The same where the graph forks again, long after its start."""
    inside = 0
    everybody = anyio.Event()

    @task
    async def meet(after: int) -> int:
        nonlocal inside
        inside += 1
        if inside == 10:
            everybody.set()
        await everybody.wait()
        return after

    flow = Builder()
    left, right = flow.call(same, value=1), flow.call(same, value=2)
    for _ in range(20):  # by now no helper of the first fork is on its way any more
        left = flow.call(increment, value=left)
    parts = [flow.call(meet, after=left) for _ in range(10)]
    with anyio.fail_after(60):
        assert 212 == await run_graph(flow.graph(flow.call(total, values=Structure(list, (right, *parts)))), runtime)


def test_a_wide_fork_has_begun_after_a_few_cycles_of_the_loop(runtime: Runtime) -> None:
    """Helpers double from cycle to cycle."""
    inside = 0

    @task
    async def wait() -> None:
        nonlocal inside
        inside += 1
        await anyio.sleep_forever()

    async def main() -> int:
        flow = Builder()
        graph = flow.graph(Structure(list, tuple([flow.call(wait) for _ in range(500)])))
        running = asyncio.ensure_future(run_graph(graph, runtime))
        cycles = 0
        while inside < 500:
            await asyncio.sleep(0)
            cycles += 1
        running.cancel()
        await asyncio.wait([running])
        return cycles

    assert asyncio.run(main()) <= 12


async def test_tasks_of_a_group_start_in_the_context_it_was_opened_in() -> None:
    """What one of them sets, none of the others sees, whoever started it."""
    color = contextvars.ContextVar[str]("color")
    color.set("red")
    seen: list[str] = []

    async def work() -> None:
        seen.append(color.get())
        color.set("blue")
        if len(seen) < 3:
            group.start()

    group = open_group(work, lambda: None)
    await group.run()

    assert (["red"] * 3, "red") == (seen, color.get())


async def test_a_waiting_node_does_not_hold_up_what_others_make_ready(runtime: Runtime) -> None:
    """A branch goes on while its sibling waits, and may be what the sibling waits for."""
    reached = anyio.Event()

    @task
    async def wait() -> int:
        await reached.wait()
        return 1

    @task
    async def reach(value: int) -> int:
        reached.set()
        return value

    flow = Builder()
    waiting = flow.call(wait)
    value = flow.call(increment, value=0)
    left, right = flow.call(increment, value=value), flow.call(increment, value=value)
    last = flow.call(reach, value=flow.call(total, values=Structure(list, (left, right))))
    with anyio.fail_after(60):
        assert [1, 4] == await run_graph(flow.graph(Structure(list, (waiting, last))), runtime)


async def test_nodes_that_never_wait_let_others_have_the_loop(runtime: Runtime) -> None:
    """A long chain of nodes without an await inside gives way now and then."""
    flow = Builder()
    value: Any = Constant(0)
    for _ in range(500):
        value = flow.call(same, value=value)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        await LocalEngine().prepare(flow.graph(value), runtime, None)({}, around())
        group.cancel_scope.cancel()

    assert ticks >= 5


@dataclass
class Point:
    x: int
    y: Any


async def test_paths_and_structures(runtime: Runtime) -> None:
    """Fields, items and literals are taken apart and put together as the body says."""
    flow = Builder("given")
    point = flow.build(
        Point, x=Input("given", (("item", "x"),)), y=Structure(dict, (Constant(2), Input("given")), ("two", "all"))
    )
    inner = Ref(point.node, (("attr", "y"), ("item", "two")))
    graph = flow.graph(Structure(tuple, (Ref(point.node, (("attr", "x"),)), flow.call(increment, value=inner))))

    assert (1, 3) == await run_graph(graph, runtime, given={"x": 1})


async def test_written_down_lists_are_new_in_every_run(runtime: Runtime) -> None:
    """What a task does to a list literal of the body is not seen by another run."""

    @task
    async def grow(values: Any) -> Any:
        values[0]["seen"].append(1)
        return values

    flow = Builder()
    graph = flow.graph(flow.call(grow, values=Constant(({"seen": [0]}, {1}, "text"))))
    await run_graph(graph, runtime)

    assert ({"seen": [0, 1]}, {1}, "text") == await run_graph(graph, runtime)


@pytest.mark.parametrize(("condition", "expected"), [(True, 2), ([], 11), ("text", 2), (0, 11)])
async def test_when_runs_one_branch(runtime: Runtime, condition: object, expected: int) -> None:
    """The truth of the condition chooses, and the other branch does not start."""
    flow = Builder("condition")
    ten = flow.call(same, value=10)
    branches = {True: flow.branch(increment, value=1), False: flow.branch(increment, value=ten)}
    graph = flow.graph(flow.add(flow.node("when", "when", condition=Input("condition"), branches=branches)))

    assert expected == await run_graph(graph, runtime, condition=condition)


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@pytest.mark.parametrize(("value", "expected"), [("a", 1), (Color.RED, 2), (Color.BLUE, 100), ("b", 100), (None, 100)])
async def test_switch_takes_the_branch_of_the_value(runtime: Runtime, value: object, expected: int) -> None:
    """Equal keys choose, enum members included; anything else takes the default."""
    flow = Builder("value")
    branches = {
        "a": flow.branch(increment, value=0),
        Color.RED: flow.branch(increment, value=1),
        DEFAULT: flow.branch(increment, value=99),
    }
    graph = flow.graph(flow.add(flow.node("switch", "switch", condition=Input("value"), branches=branches)))

    assert expected == await run_graph(graph, runtime, value=value)


async def test_switch_without_a_fitting_branch(runtime: Runtime) -> None:
    """A value outside of its type, with no default, is named together with the cases there are."""
    flow = Builder("value")
    branches = {"a": flow.branch(increment, value=0)}
    graph = flow.graph(flow.add(flow.node("switch", "switch", condition=Input("value"), branches=branches)))
    with pytest.raises(DefinitionError, match=r"'b'.*none of 'a'"):
        await run_graph(graph, runtime, value="b")


@pytest.mark.parametrize("value", ["b", 3, None])
async def test_switch_over_an_open_type_says_the_same_traced_and_eager(value: object) -> None:
    """The type says nothing, so that only the run can tell that no branch fits."""

    async def body(given: Any) -> Any:
        return await switch(await same(given), {"a": increment(0)})

    eager: Any = flow(eager=True)(body)
    traced: Any = flow(body)
    with pytest.raises(DefinitionError) as expected:
        await eager(value)
    with pytest.raises(DefinitionError) as caught:
        await traced(value)

    assert str(expected.value) == str(caught.value)
    assert f"switch on {value!r}, which is none of 'a'" in str(caught.value)


async def test_or_else_takes_the_other_branch(runtime: Runtime) -> None:
    """A failure of one of the named kinds is answered by the other call, or by a value."""
    flow = Builder()
    options = {"errors": (StepError, ArithmeticError)}
    other = {"call": flow.branch(fail), "otherwise": flow.branch(increment, value=1)}
    call = flow.add(flow.node("or_else", "or_else", branches=other, **options))
    value = flow.add(flow.node("or_else", "or_else#2", branches={"call": flow.branch(fail)}, items=call, **options))
    kept = flow.add(
        flow.node("or_else", "or_else#3", branches={"call": flow.branch(same, value=7)}, items=value, **options)
    )

    assert [2, 2, 7] == await run_graph(flow.graph(Structure(list, (call, value, kept))), runtime)


async def test_or_else_lets_other_failures_through(runtime: Runtime) -> None:
    """A failure of another kind leaves the flow."""
    flow = Builder()
    node = flow.node("or_else", "or_else", branches={"call": flow.branch(fail)}, items=Constant(1), errors=(StepError,))
    with pytest.raises(ZeroDivisionError):
        await run_graph(flow.graph(flow.add(node)), runtime)


async def test_failure_of_the_other_branch_does_not_name_the_first(runtime: Runtime) -> None:
    """What the second branch raises is not said to have happened while the first was handled."""

    @task
    async def worse() -> int:
        raise KeyError

    flow = Builder()
    branches = {"call": flow.branch(fail), "otherwise": flow.branch(worse)}
    node = flow.node("or_else", "or_else", branches=branches, errors=(ArithmeticError,))
    with pytest.raises(KeyError) as caught:
        await run_graph(flow.graph(flow.add(node)), runtime)

    assert caught.value.__context__ is None


async def test_map_over_values_of_the_run(runtime: Runtime) -> None:
    """A map reads its items, and its fixed arguments, when it runs."""

    @task
    async def scale(value: int, factor: int) -> int:
        await checkpoint()
        return value * factor

    flow = Builder("items")
    call = scale.partial(factor=0).map(())
    graph = flow.graph(flow.map(call, Input("items"), factor=flow.call(increment, value=9)))

    assert [10, 20, 30] == await run_graph(graph, runtime, items=[1, 2, 3])
    assert [40] == await run_graph(graph, runtime, items=[4])


async def test_map_collects(runtime: Runtime) -> None:
    """With on_error="collect" a failure is an outcome."""

    @task
    async def halve(value: int) -> int:
        return 10 // value

    flow = Builder()
    outcomes = await run_graph(flow.graph(flow.map(halve.map((), on_error="collect"), Constant([0, 5]))), runtime)

    assert [False, True] == [one.ok for one in outcomes]
    assert 2 == outcomes[1].unwrap()


async def test_frame_of_a_node(runtime: Runtime) -> None:
    """Calls inside a node see the run, the deadline, and the node's scope inside that of the flow."""
    outer = Scope("outer", (), None)
    flow = Builder()
    inner = Scope("inner", (), flow.scope)
    parts = (flow.call(where), flow.call(where, scope=inner), flow.call(where, scope=inner))
    given = around(123.0)
    before = frame.get()
    run = LocalEngine().prepare(flow.graph(Structure(list, parts)), runtime, outer)
    frames: list[Frame] = [one for _, one in await run({}, given)]

    assert [["flow", "outer"], ["inner", "flow", "outer"], ["inner", "flow", "outer"]] == [
        [scope.flow for scope in one.scope.path()] for one in frames if one.scope
    ]
    assert {(given.run, 123.0)} == {(one.run, one.deadline) for one in frames}
    assert frames[1] is frames[2]
    assert before is frame.get()


@VIRTUAL_TIME
async def test_flows_inside_keep_their_deadlines(runtime: Runtime) -> None:
    """A deadline of an inner flow ends that flow in time, and the outer flow with it, and starts when the inner one does."""

    @task
    async def sleep(seconds: float, after: int = 0) -> int:
        await anyio.sleep(seconds)
        return 1

    @flow(Deadline(0.2))
    async def inner(seconds: float, after: int) -> int:
        return await sleep(seconds, after)

    @flow
    async def outer(first: float, second: float) -> int:
        return await inner(second, await sleep(first))

    assert 1 == await outer(0.3, 0)
    with anyio.fail_after(5), pytest.raises(DeadlineExceeded, match="inner"):
        await outer(0, 60)


class Big:
    """Something whose end can be seen."""


@pytest.mark.parametrize("width", [1, 2])
async def test_values_nobody_needs_are_released(runtime: Runtime, width: int) -> None:
    """A value lives as long as a node still wants it, and no longer."""
    alive: list[weakref.ref[Big]] = []

    @task
    async def make(after: Any = None) -> Big:
        made = Big()
        alive.append(weakref.ref(made))
        return made

    @task
    async def use(big: Big) -> int:
        return 1

    @task
    async def count(after: Any) -> int:
        gc.collect()
        return sum(one() is not None for one in alive)

    flow = Builder()
    flow.call(make)  # nobody uses it
    big = flow.call(make, after=flow.call(same, value=1) if width == 1 else Structure(list, ()))
    used = [flow.call(use, big=big) for _ in range(width)]
    kept = flow.call(make, after=used[0])
    counted = flow.call(count, after=Structure(list, (kept, *used)))
    count_left, result = await run_graph(flow.graph(Structure(list, (counted, kept))), runtime)

    assert 1 == count_left
    assert isinstance(result, Big)


async def test_one_preparation_serves_many_runs(runtime: Runtime) -> None:
    """Runs at the same time do not see each other."""
    flow = Builder("start")
    left, right = flow.call(increment, value=Input("start")), flow.call(increment, value=Input("start"))
    run = LocalEngine().prepare(flow.graph(flow.call(total, values=Structure(list, (left, right)))), runtime, None)
    found: dict[int, int] = {}

    async def one(start: int) -> None:
        found[start] = await run({"start": start}, around())

    async with anyio.create_task_group() as group:
        for start in range(50):
            group.start_soon(one, start)

    assert {start: 2 * start + 2 for start in range(50)} == found


def test_one_preparation_serves_many_loops(runtime: Runtime) -> None:
    """Threads with loops of their own, of either kind, share what was prepared."""
    flow = Builder("start")
    left, right = flow.call(increment, value=Input("start")), flow.call(increment, value=Input("start"))
    run = LocalEngine().prepare(flow.graph(flow.call(total, values=Structure(list, (left, right)))), runtime, None)
    found: dict[int, int] = {}

    async def many(start: int) -> None:
        for _ in range(100):
            found[start] = await run({"start": start}, around())

    threads = [
        threading.Thread(target=anyio.run, args=(many, n), kwargs={"backend": ("asyncio", "trio")[n % 2]})
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {start: 2 * start + 2 for start in range(6)} == found


def test_task_factory_of_the_loop_is_used(runtime: Runtime) -> None:
    """Tools that trace tasks see the engine's, too."""
    made: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(coroutine.__qualname__)
        return asyncio.Task(coroutine, loop=loop, **options)

    async def main() -> int:
        asyncio.get_running_loop().set_task_factory(factory)
        flow = Builder()
        parts = tuple(flow.call(increment, value=one) for one in range(3))
        return await run_graph(flow.graph(flow.call(total, values=Structure(list, parts))), runtime)  # type: ignore[no-any-return]

    assert 6 == asyncio.run(main())
    assert made


def eager_task_factory(
    loop: asyncio.AbstractEventLoop, coroutine: Any, *, context: Any = None, **options: Any
) -> asyncio.Task[Any]:
    """Run a task's first step at once, as `asyncio.eager_task_factory` of Python 3.12 does."""
    scheduled: list[asyncio.Handle] = []
    call_soon = loop.call_soon

    def keep(*args: Any, **kwargs: Any) -> asyncio.Handle:
        scheduled.append(call_soon(*args, **kwargs))
        return scheduled[-1]

    loop.call_soon = keep  # type: ignore[method-assign]
    task: Any = asyncio.tasks._PyTask(coroutine, loop=loop, context=context, **options)  # type: ignore[attr-defined]
    del loop.call_soon
    current: Any = asyncio.current_task(loop)
    if current is None:  # from outside of any task, such as run_until_complete
        return task  # type: ignore[no-any-return]
    scheduled[0].cancel()
    asyncio.tasks._leave_task(loop, current)
    try:
        context.run(task._Task__step)
    finally:
        asyncio.tasks._enter_task(loop, current)
    return task  # type: ignore[no-any-return]


factories = [eager_task_factory] if sys.version_info < (3, 12) else [asyncio.eager_task_factory]


@pytest.mark.parametrize("factory", factories)
def test_eager_tasks(runtime: Runtime, factory: Any) -> None:
    """A loop that starts tasks at once runs wide graphs, without deep recursion."""

    @task
    async def odd_ones_wait(value: int) -> int:
        if value % 2:
            await asyncio.sleep(0)
        return value

    async def main() -> int:
        asyncio.get_running_loop().set_task_factory(factory)
        flow = Builder()
        parts = tuple(flow.call(odd_ones_wait, value=one) for one in range(3000))
        more = tuple(flow.call(same, value=one) for one in parts)
        return int(await run_graph(flow.graph(flow.call(total, values=Structure(list, more))), runtime))

    assert sum(range(3000)) == asyncio.run(main())


@pytest.mark.parametrize("factory", factories)
def test_eager_failure(runtime: Runtime, factory: Any) -> None:
    """A node that fails before its task was even returned ends the run as any other."""

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        flow = Builder()
        parts = [flow.call(increment, value=1), flow.call(fail), flow.call(increment, value=2)]
        with pytest.raises(ZeroDivisionError):
            await run_graph(flow.graph(Structure(list, tuple(parts))), runtime)

    asyncio.run(main())


async def test_forks_of_nodes_that_never_wait_cost_few_tasks(runtime: Runtime) -> None:
    """Nodes that end at once are run by whoever is awake."""
    most = 0

    @task
    async def look(value: int) -> int:
        nonlocal most
        most = max(most, task_count())
        return value

    flow = Builder()
    parts = tuple(flow.call(look, value=one) for one in range(60))
    before = task_count()
    await run_graph(flow.graph(flow.call(total, values=Structure(list, parts))), runtime)

    assert most - before <= 3
