"""Tasks: plain functions as nodes of a flow."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from llmflow.context import Frame, Run, frame
from llmflow.errors import DeadlineExceeded, DefinitionError, ProviderTimeout, RateLimited, StepError
from llmflow.events import AttemptStarted, RetryScheduled
from llmflow.graph import Task, flow, task
from llmflow.graph._bound_task import PlainTask, TaskReply, TaskRequest
from llmflow.graph._threads import AbandonedThreads, _ThreadCall
from llmflow.messages import Reply, Request, Result
from llmflow.policies import Bulkhead, Deadline, Fallback, Repair, Retry, Timeout
from llmflow.policy import Band, RequestLayer, Site
from llmflow.runtime import Runtime

pytestmark = pytest.mark.anyio

VIRTUAL_TIME = pytest.mark.parametrize(
    "anyio_backend", ["asyncio on virtual time", "trio on virtual time"], indirect=True
)
"""For limits that must not be over before what they limit has begun, however long the machine stands still."""


@task
async def double(value: int) -> int:
    return 2 * value


@task
def halve(value: int) -> float:
    return value / 2


# -- being a unit ------------------------------------------------------------------------------------------------------


async def test_async_task(runtime: Runtime) -> None:
    """Awaiting a call of it gives what the function returns."""
    assert 6 == await double(3)


async def test_sync_task_runs_in_a_thread(runtime: Runtime) -> None:
    """A `def` runs in a worker thread and sees the caller's context variables."""
    color = contextvars.ContextVar[str]("color")
    color.set("red")

    @task
    def look() -> tuple[str, int, bool]:
        return color.get(), threading.get_ident(), frame.get() is not None

    seen, ident, inside = await look()

    assert "red" == seen
    assert threading.get_ident() != ident
    assert inside


async def test_run_gives_a_result(runtime: Runtime) -> None:
    """`run` returns the value with the run's id and how long it took; it is an ordinary Result."""
    result = await double.run(4)

    assert Result(value=8, latency_s=result.latency_s, run_id=result.run_id, step="double") == result
    assert result.run_id
    assert 0 <= result.latency_s < 5


def test_sync_call() -> None:
    """`sync` works for both kinds."""
    assert (8, 2.0) == (double.sync(4), halve.sync(4))


async def test_map(runtime: Runtime) -> None:
    """A task fans out like a step."""
    assert [0, 2, 4] == await double.map(range(3))
    assert [0.0, 0.5, 1.0] == await halve.map(range(3))


def test_task_looks_like_its_function() -> None:
    """Names, signature and docstring are the function's, and it is a coroutine function to those who ask."""

    @task(name="other", journal=False)
    def documented(value: int, scale: float = 1.0) -> float:
        """Scale it."""
        return value * scale

    assert ("other", "Scale it.", False) == (documented.name, documented.__doc__, documented.journal)
    assert ["value", "scale"] == list(inspect.signature(documented).parameters)
    assert inspect.iscoroutinefunction(documented)
    assert isinstance(documented, Task)
    assert double.journal


async def test_task_without_annotations(runtime: Runtime) -> None:
    """Neither parameters nor the return value need a type."""

    @task
    def untyped(value):  # type: ignore[no-untyped-def]
        return [value]

    assert [1] == await untyped(1)


async def test_task_as_a_method(runtime: Runtime) -> None:
    """A task in a class is bound to the object it is called on."""

    class Store:
        def __init__(self, prefix: str) -> None:
            self.prefix = prefix

        @task
        async def name(self, key: str) -> str:
            return self.prefix + key

    assert "a/x" == await Store("a/").name("x")
    assert isinstance(Store.name, Task)


def test_tasks_without_policies_take_the_short_way(runtime: Runtime) -> None:
    """Nothing is folded where there is nothing to fold."""
    assert isinstance(double.bound(runtime, None), PlainTask)
    assert isinstance(double.with_(Deadline.off).bound(runtime, None), PlainTask)


# -- in a flow ---------------------------------------------------------------------------------------------------------


async def test_tasks_in_a_flow(runtime: Runtime) -> None:
    """Tasks are nodes; the two kinds mix."""

    @task
    def add(left: float, right: float) -> float:
        return left + right

    @flow
    async def compute(value: int) -> float:
        return await add(await halve(value), await double(value))

    assert 10.0 == await compute(4)


@VIRTUAL_TIME
async def test_policies_around_a_task_do_not_act_on_it(runtime: Runtime) -> None:
    """A flow's settings are for its steps: the task is tried once, and is not ended by a Timeout."""
    tries = 0

    @task
    async def fail() -> int:
        nonlocal tries
        tries += 1
        await anyio.sleep(0.05)
        raise RateLimited("busy")

    @flow(Retry(5, wait_initial=0), Timeout(0.01))
    async def around() -> int:
        return await fail()

    with pytest.raises(RateLimited):
        await around()

    assert 1 == tries


@VIRTUAL_TIME
async def test_deadline_of_the_flow_ends_a_task(runtime: Runtime) -> None:
    """The one policy that a task inherits."""

    @task
    async def sleep() -> int:
        await anyio.sleep(60)
        return 1

    @flow(Deadline(0.05))
    async def around() -> int:
        return await sleep()

    with anyio.fail_after(5), pytest.raises(DeadlineExceeded):
        await around()


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policies", [(), (Timeout(5),), (Retry(2, on=OSError),)])
async def test_what_the_author_raises_leaves_unchanged(runtime: Runtime, policies: tuple[Any, ...]) -> None:
    """The same object, with a note naming the task; whether it is llmflow's class or the author's own."""
    for error in (ValueError("mine"), StepError("mine too")):
        text = str(error)

        @task(*policies, name="raises")
        async def raises() -> int:
            raise error

        with pytest.raises(type(error)) as caught:
            await raises()

        assert error is caught.value
        assert text == str(error)
        assert 1 == caught.value.__notes__.count("raised in task 'raises'")


async def test_sync_body_that_raises(runtime: Runtime) -> None:
    """A failure in the thread arrives as itself."""

    @task
    def raises() -> int:
        raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        await raises()

    assert ["raised in task 'raises'"] == caught.value.__notes__


# -- policies ----------------------------------------------------------------------------------------------------------


async def test_retry_of_what_it_is_told(runtime: Runtime) -> None:
    """`on=` says what is tried again; each try is in the result."""
    tries = 0

    @task(Retry(3, wait_initial=0, on=ConnectionError))
    async def fetch(url: str) -> str:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ConnectionError
        return f"content of {url}"

    result = await fetch.run("a")

    assert "content of a" == result.value
    assert [("ConnectionError", 1), ("ConnectionError", 2), ("ok", 3)] == [
        (one.outcome, one.number) for one in result.attempts
    ]
    assert {"task/fetch"} == {one.model for one in result.attempts}


async def test_note_is_added_once(runtime: Runtime) -> None:
    """Tries that raise one and the same object do not write on it again and again."""
    error = ConnectionError()

    @task(Retry(3, wait_initial=0, on=ConnectionError))
    async def fetch() -> str:
        raise error

    with pytest.raises(ConnectionError):
        await fetch()

    assert ["raised in task 'fetch'"] == error.__notes__


async def test_retry_leaves_the_rest_alone(runtime: Runtime) -> None:
    """What `on=` does not name ends the task at once."""
    tries = 0

    @task(Retry(3, wait_initial=0, on=ConnectionError))
    async def fetch() -> str:
        nonlocal tries
        tries += 1
        raise KeyError

    with pytest.raises(KeyError):
        await fetch()

    assert 1 == tries


async def test_retry_is_told_to_listeners_and_attempts_are_not() -> None:
    """A retry of a task is an event; a try is no physical request, so it is none."""
    seen: list[object] = []

    class Listener:
        def __init__(self) -> None:
            from llmflow.hookspecs import hookimpl

            self.llmflow_retry_scheduled = hookimpl(
                lambda event: seen.append(event), specname="llmflow_retry_scheduled"
            )
            self.llmflow_attempt_started = hookimpl(
                lambda event: seen.append(event), specname="llmflow_attempt_started"
            )

    with Runtime(plugins=[Listener()]):

        @task(Retry(2, wait_initial=0, on=ConnectionError))
        async def fetch() -> str:
            raise ConnectionError

        with pytest.raises(ConnectionError):
            await fetch()

    assert [RetryScheduled] == [type(event) for event in seen]
    assert not any(isinstance(event, AttemptStarted) for event in seen)


@VIRTUAL_TIME
async def test_timeout(runtime: Runtime) -> None:
    """A Timeout on a task ends one try, and speaks of the task."""

    @task(Timeout(0.05))
    async def fetch() -> str:
        await anyio.sleep(60)
        return ""

    with anyio.fail_after(5), pytest.raises(ProviderTimeout) as caught:
        await fetch()

    assert "task 'fetch': not done within 0.05 s" == str(caught.value)
    assert ("fetch", 1, True) == (caught.value.step, len(caught.value.attempts), bool(caught.value.run_id))


@VIRTUAL_TIME
async def test_timeout_is_retried(runtime: Runtime) -> None:
    """A timed-out try is one that may pass."""
    tries = 0

    @task(Timeout(0.05), Retry(2, wait_initial=0, on=OSError))
    async def fetch() -> int:
        nonlocal tries
        tries += 1
        if tries == 1:
            await anyio.sleep(60)
        return tries

    with anyio.fail_after(5):
        assert 2 == await fetch()


@VIRTUAL_TIME
async def test_deadline(runtime: Runtime) -> None:
    """A Deadline on a task covers all tries and waits, and calls inside see it."""
    inside: list[float] = []

    @task(Deadline(0.1), Retry(10**6, wait_initial=0.01, on=OSError))
    async def fetch() -> int:
        around = frame.get()
        assert around is not None
        inside.append(around.deadline)
        raise OSError

    started = runtime.clock.monotonic()
    with anyio.fail_after(5), pytest.raises((OSError, DeadlineExceeded)):
        await fetch()

    assert runtime.clock.monotonic() - started < 2
    assert 1 == len(set(inside))
    assert started < inside[0] < started + 1


@VIRTUAL_TIME
async def test_deadline_of_a_task_that_waits(runtime: Runtime) -> None:
    """A body that does not end in time is ended."""

    @task(Deadline(0.05))
    async def fetch() -> int:
        await anyio.sleep(60)
        return 1

    with anyio.fail_after(5), pytest.raises(DeadlineExceeded, match="task 'fetch': "):
        await fetch()


@VIRTUAL_TIME
async def test_a_try_that_the_deadline_cuts_is_the_deadlines_failure(runtime: Runtime) -> None:
    """A Timeout that ends with the deadline does not look like the work's own slowness."""

    @task(Timeout(60))
    async def fetch() -> int:
        await anyio.sleep(60)
        return 1

    @flow(Deadline(0.05))
    async def around() -> int:
        return await fetch()

    with anyio.fail_after(5), pytest.raises(DeadlineExceeded):
        await around()


@VIRTUAL_TIME
async def test_a_cut_try_is_the_deadlines_failure(runtime: Runtime) -> None:
    """A Timeout that had less time than it says does not look like the work's own slowness."""

    @task(Timeout(60))
    async def fetch() -> int:
        await anyio.sleep(60)
        return 1

    around = Frame(Run("x"), None, runtime.clock.monotonic() + 0.05)
    with anyio.fail_after(5), pytest.raises(DeadlineExceeded, match="task 'fetch': its deadline has passed") as caught:
        await fetch.bound(runtime, None).invoke({}, around)

    assert ["ProviderTimeout"] == [one.outcome for one in caught.value.attempts]
    assert isinstance(caught.value.__cause__, ProviderTimeout)


@VIRTUAL_TIME
async def test_failure_of_a_call_in_the_body_is_that_calls(runtime: Runtime) -> None:
    """What already says whose failure it is keeps saying so."""

    @task(Timeout(0.02))
    async def inner() -> int:
        await anyio.sleep(60)
        return 1

    @task(Timeout(60))
    async def outer() -> int:
        return await inner()

    with anyio.fail_after(5), pytest.raises(ProviderTimeout, match="^task 'inner': not done") as caught:
        await outer()

    assert "inner" == caught.value.step
    assert ["raised in task 'outer'"] == caught.value.__notes__


async def test_no_try_begins_after_the_deadline(runtime: Runtime) -> None:
    """When the time is up before the body was asked, it is not asked."""
    bound = double.with_(Timeout(1)).bound(runtime, None)
    with pytest.raises(DeadlineExceeded, match="task 'double': its deadline has passed"):
        await bound.invoke({"value": 1}, Frame(Run("x"), None, runtime.clock.monotonic() - 1))


async def test_bulkhead(runtime: Runtime) -> None:
    """At most so many bodies run at a time."""
    running = most = 0

    @task(Bulkhead(3))
    async def work(value: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(3):
            await checkpoint()
        running -= 1
        return value

    assert list(range(20)) == await work.map(range(20))
    assert 3 == most


@pytest.mark.parametrize(("name", "expected"), [("database", 2), (None, 4)])
async def test_named_bulkhead_is_shared(runtime: Runtime, name: str | None, expected: int) -> None:
    """Tasks that name the same bulkhead share its places; without a name each has its own."""
    running = most = 0

    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(3):
            await checkpoint()
        running -= 1

    read, write = task(Bulkhead(2, name=name), name="read")(work), task(Bulkhead(2, name=name), name="write")(work)
    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(read)
            group.start_soon(write)

    assert expected == most


async def test_third_party_policies_work_on_tasks(runtime: Runtime) -> None:
    """A request policy sees the arguments and the value, and may change both."""

    class Doubling:
        band = Band.before(Band.RETRY)

        def wrap(self, proceed: RequestLayer, site: Site, /) -> RequestLayer:
            from dataclasses import replace

            async def doubled(request: Request) -> Reply:
                assert isinstance(request, TaskRequest)
                assert ("name_of", "task:name_of", "task/name_of") == (site.step, site.declared, site.model.name)
                reply = await proceed(replace(request, inputs={"text": 2 * str(request.inputs["text"])}))
                assert isinstance(reply, TaskReply)
                return replace(reply, value=reply.value + "!")

            return doubled

    @task(Doubling())
    async def name_of(text: str) -> str:
        return text.upper()

    assert "ABAB!" == await name_of("ab")


async def test_policy_that_loses_the_value(runtime: Runtime) -> None:
    """A reply that is not the task's says so, instead of failing somewhere later."""

    class Swap:
        band = Band.after(Band.RETRY)

        def wrap(self, proceed: RequestLayer, site: Site, /) -> RequestLayer:
            async def swap(request: Request) -> Reply:
                await proceed(request)
                return Reply(text="nothing")

            return swap

    @task(Swap())
    async def value() -> int:
        return 1

    with pytest.raises(StepError, match="task 'value': a policy returned Reply"):
        await value()


# -- wrong use ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [Fallback("openai/gpt-5-mini"), Repair(1)])
def test_policies_for_answers_are_refused(policy: Any) -> None:
    """What acts on a model's answers has nothing to act on."""
    name = type(policy).__name__
    with pytest.raises(DefinitionError, match=f"task 'f' has {name}, which acts on what a model"):

        @task(policy)
        async def f() -> int:
            return 1


@pytest.mark.parametrize("decorate", [lambda f: task(Retry())(f), lambda f: task(f).with_(Retry())])
def test_retry_must_say_on_what(decorate: Any) -> None:
    """Nobody else knows which failures of the author's code pass."""

    async def f() -> int:
        return 1

    with pytest.raises(DefinitionError, match=r"task 'f' has Retry without on=.*Retry\(on=ConnectionError\)"):
        decorate(f)


async def generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda: 1, "lambda"),
        (generator, "task 'generator' is a generator"),
        (int, "the class 'int'"),
        (lambda *args: 1, "lambda"),
    ],
)
def test_what_is_no_task(function: Any, problem: str) -> None:
    """What cannot be a task is refused where it is decorated."""
    with pytest.raises(DefinitionError, match=problem):
        task(function)


def test_model_of_a_task() -> None:
    """A task has none."""
    with pytest.raises(DefinitionError, match="task 'double' has no model"):
        double.with_(model="openai/gpt-5-mini")


# -- threads -----------------------------------------------------------------------------------------------------------


def count_of(runtime: Runtime) -> AbandonedThreads:
    return runtime.shared(AbandonedThreads, AbandonedThreads)


async def test_thread_past_its_timeout_is_left_alone_and_counted(runtime: Runtime) -> None:
    """The caller does not wait for a body that cannot be stopped; the thread is counted until it ends."""
    finish = threading.Event()

    @task(Timeout(0.05))
    def block() -> None:
        finish.wait(60)

    with anyio.fail_after(30), pytest.raises(ProviderTimeout):
        await block()
    threads = count_of(runtime)

    assert (1, 1) == (threads.running, threads.total)
    assert not threads.join(0.01)
    assert "<AbandonedThreads running=1 total=1>" == repr(threads)
    finish.set()
    assert threads.join(60)
    assert (0, 1) == (threads.running, threads.total)


async def test_cancelled_flow_leaves_its_threads_alone(runtime: Runtime) -> None:
    """Cancellation from outside does not wait for threads either."""
    finish, started = threading.Event(), threading.Event()

    @task
    def block(number: int) -> None:
        started.set()
        finish.wait(60)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(block, 1)
            while not started.is_set():
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()

    assert 1 == count_of(runtime).running
    finish.set()
    assert count_of(runtime).join(60)


async def test_threads_that_end_in_time_are_not_counted(runtime: Runtime) -> None:
    """Only what was left alone counts, failures do not."""

    @task
    def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await fail()
    await halve(1)

    assert 0 == count_of(runtime).total


async def test_call_that_was_given_up_before_a_thread_was_free_does_not_run(runtime: Runtime) -> None:
    """Nobody would see what it did."""
    finish = threading.Event()
    ran: list[int] = []

    @task
    def block(number: int) -> None:
        ran.append(number)
        finish.wait(60)

    limiter = anyio.to_thread.current_default_thread_limiter()
    size, limiter.total_tokens = limiter.total_tokens, 1
    try:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(block, 1)
                group.start_soon(block, 2)
                while not (ran and limiter.statistics().tasks_waiting):
                    await anyio.sleep(0.01)
                group.cancel_scope.cancel()
    finally:
        limiter.total_tokens = size
        finish.set()

    assert 1 == len(ran)
    assert count_of(runtime).join(60)


def test_thread_that_comes_too_late_does_nothing() -> None:
    """A call can be given up between being handed to a thread and beginning there."""
    ran: list[int] = []
    threads = AbandonedThreads()
    call = _ThreadCall(ran.append, {}, threads)
    call.give_up()

    assert call.run() is None
    assert ([], 0) == (ran, threads.total)


def test_sync_call_does_not_wait_for_a_thread_past_its_timeout(runtime: Runtime) -> None:
    """A `.sync()` call ends while its body goes on."""
    finish = threading.Event()
    ended: list[bool] = []

    @task(Timeout(0.05))
    def block() -> None:
        ended.append(finish.wait(60))

    with pytest.raises(ProviderTimeout):
        block.sync()

    assert [] == ended
    finish.set()
    assert count_of(runtime).join(60)


async def test_concurrent_sync_tasks(runtime: Runtime) -> None:
    """Threads work side by side."""
    barrier = threading.Barrier(4)

    @task
    def meet(number: int) -> int:
        barrier.wait(60)
        return number

    assert [0, 1, 2, 3] == await meet.map(range(4), concurrency=4)


def test_asyncio_primitives_take_calls(runtime: Runtime) -> None:
    """`asyncio.gather` and `create_task` take a task's call as any coroutine."""

    async def main() -> list[Any]:
        return list(await asyncio.gather(double(1), asyncio.create_task(double(2)), halve(4)))

    assert [2, 4, 2.0] == asyncio.run(main())
