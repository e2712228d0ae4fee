"""The queue in front of a model, with a model that answers when the test says so."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest
from llmflow_local._engine import Engine
from llmflow_local._failures import LocalFailure
from llmflow_local._generation import Generation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

pytestmark = pytest.mark.anyio


class FakeServer:
    """Answers with its prompt once the gate is open, and ends early when stopped."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.started: list[object] = []
        self.stopped: list[object] = []

    def generate(
        self, body: Mapping[str, object], on_text: Callable[[str], None], stopped: Callable[[], bool]
    ) -> Generation:
        prompt = body["prompt"]
        self.started.append(prompt)
        if prompt == "bug":
            raise ZeroDivisionError
        on_text(str(prompt))
        while not self.gate.wait(0.005):
            if stopped():
                self.stopped.append(prompt)
                break
        return Generation(text=str(prompt))

    def immortalize(self) -> None:
        """Nothing to keep."""


async def idle() -> None:
    """Wait until no engine has a thread."""
    with anyio.fail_after(60):
        while any(thread.name == "llmflow-local" for thread in threading.enumerate()):
            await anyio.sleep(0.005)


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(60):
        while not condition():
            await anyio.sleep(0.005)


async def test_requests_are_answered_in_the_order_they_came() -> None:
    """First come, first served, one at a time; and no thread stays when all is done."""
    server = FakeServer()
    engine = Engine(lambda _stopped: server)

    async with anyio.create_task_group() as group:
        for prompt in ("a", "b", "c"):
            group.start_soon(engine.generate, {"prompt": prompt})
            await anyio.wait_all_tasks_blocked()
        server.gate.set()
    await idle()

    assert ["a", "b", "c"] == server.started


async def test_a_cancelled_request_that_waits_is_never_sent() -> None:
    """It leaves the queue, and the others do not notice."""
    server = FakeServer()
    engine = Engine(lambda _stopped: server)

    async with anyio.create_task_group() as group:
        group.start_soon(engine.generate, {"prompt": "first"})
        await until(lambda: server.started)
        with anyio.move_on_after(0.01):
            await engine.generate({"prompt": "cancelled"})
        group.start_soon(engine.generate, {"prompt": "last"})
        server.gate.set()

    assert ["first", "last"] == server.started


async def test_a_cancelled_request_that_runs_is_stopped() -> None:
    """The caller gets away at once and the engine is told."""
    server = FakeServer()
    engine = Engine(lambda _stopped: server)

    async with anyio.create_task_group() as group:
        group.start_soon(engine.generate, {"prompt": "long"})
        await until(lambda: server.started)
        group.cancel_scope.cancel()
    await idle()

    assert ["long"] == server.stopped


async def test_text_is_handed_over_as_it_comes() -> None:
    """Before the answer is finished, and in the task that asked."""
    server = FakeServer()
    seen = []

    async def on_text(text: str) -> None:
        seen.append((text, threading.current_thread().name))
        server.gate.set()

    await Engine(lambda _stopped: server).generate({"prompt": "word"}, on_text)

    assert [("word", threading.current_thread().name)] == seen


async def test_a_model_that_cannot_be_loaded_fails_everybody_who_waits() -> None:
    """The load is not tried again for each of them, but for the next who asks."""
    loads: list[str] = []
    gate = threading.Event()
    failures = []

    def load(_stopped: Callable[[], bool]) -> FakeServer:
        loads.append("load")
        gate.wait(60)
        msg = "no weights"
        raise LocalFailure(msg)

    engine = Engine(load)

    async def ask() -> None:
        with pytest.raises(LocalFailure, match="no weights") as caught:
            await engine.generate({"prompt": "x"})
        failures.append(caught.value)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(ask)
        await anyio.sleep(0.05)
        gate.set()
    assert (1, 3) == (len(loads), len(failures))

    await ask()

    assert 2 == len(loads)


@pytest.mark.parametrize("broken", ["load", "generate"])
async def test_a_bug_below_reaches_the_caller(broken: str) -> None:
    """Whatever is raised on the thread ends the request that it belongs to."""
    server = FakeServer()

    def load(_stopped: Callable[[], bool]) -> FakeServer:
        return server if broken == "generate" else 1 / 0  # type: ignore[return-value]

    with pytest.raises(LocalFailure, match="ZeroDivisionError"):
        await Engine(load).generate({"prompt": "bug"})


async def test_a_closed_engine_stops_and_takes_no_more() -> None:
    """What runs ends early and wakes nobody, what comes later is refused."""
    server = FakeServer()
    engine = Engine(lambda _stopped: server)

    async with anyio.create_task_group() as group:
        group.start_soon(engine.generate, {"prompt": "running"})
        await until(lambda: server.started)
        await anyio.to_thread.run_sync(engine.close, 5.0)
        group.cancel_scope.cancel()

    assert ["running"] == server.stopped
    with pytest.raises(LocalFailure, match="shutting down"):
        await engine.generate({"prompt": "late"})
