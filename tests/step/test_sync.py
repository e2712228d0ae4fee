"""`.sync()`: from a script, from a thread, from a notebook's running loop, after a fork, and under Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import anyio
import pytest

from llmflow import Model, Runtime, context, prompt, step
from llmflow.context import caller
from llmflow.testing._scripted import scripted

pytestmark = pytest.mark.anyio


def python(code: str, **options):
    """Start Python on a piece of code."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LLMFLOW_DISABLE_PLUGINS": "1"},
        **options,
    )


def test_sync_gives_the_value(echo):
    """From plain code."""
    assert "abab" == echo.sync("ab")


def test_run_sync_gives_the_record(echo):
    """With the value in it."""
    result = echo.run_sync("ab")

    assert ("abab", 1) == (result.value, len(result.attempts))


def test_sync_raises_what_the_call_raises():
    """Unchanged, with its note."""
    mistake = KeyError("oops")

    @step(scripted(mistake))
    def ask(word: str) -> str:
        return prompt(word)

    with pytest.raises(KeyError) as caught:
        ask.sync("x")

    assert caught.value is mistake


def test_sync_refuses_wrong_arguments_at_once(echo):
    """As the call does."""
    with pytest.raises(TypeError, match="step 'double'"):
        echo.sync()


async def test_fault_56_sync_works_inside_a_running_loop(echo):
    """As a notebook needs it, on asyncio and trio."""
    assert "abab" == echo.sync("ab")


async def test_sync_works_in_the_body_of_another_step(echo):
    """A loop that waits for another one's answer."""

    @step(scripted(default=lambda request: request.messages[-1].content))
    def outer(word: str) -> str:
        return prompt(echo.sync(word))

    assert "abab" == await outer("ab")
    assert "abab" == await anyio.to_thread.run_sync(outer.sync, "ab")


def test_fault_57_fifty_threads_are_not_mixed_up(echo):
    """50 threads, 20 calls each: every answer goes to who asked."""
    wrong = []

    def work(n):
        for m in range(20):
            word = f"t{n}-{m}"
            if echo.sync(word) != word * 2:
                wrong.append(word)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert ([], 1000) == (wrong, len(echo.asked.requests))


def test_threads_run_at_the_same_time():
    """Ten calls in ten threads, of which none is answered before all are asked."""
    asked, answers = [], []
    deadline = time.monotonic() + 60

    async def answer(request):
        asked.append(request)
        while len(asked) < 10 and time.monotonic() < deadline:
            await anyio.sleep(0.01)
        return "fine" if len(asked) == 10 else "alone"

    @step(Model("my/model", handler=answer))
    def ask(word: str) -> str:
        return prompt(word)

    threads = [threading.Thread(target=lambda: answers.append(ask.sync("x"))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert ["fine"] * 10 == answers


def test_the_context_goes_with_the_call():
    """Tenant and tags are known inside."""
    seen = []

    @step(scripted(default=lambda request: seen.append(caller.get().tenant) or "fine"))
    def ask(word: str) -> str:
        return prompt(word)

    with context(tenant="acme"):
        ask.sync("x")

    assert ["acme"] == seen


def test_calls_of_a_body_belong_to_its_run(echo):
    """A run is the outermost call, across `.sync()` too."""
    runs = []

    @step(scripted(default="fine"))
    def outer(word: str) -> str:
        runs.append(echo.run_sync(word).run_id)
        return prompt(word)

    assert [outer.run_sync("x").run_id] == runs


def test_fault_62_closing_the_runtime_stops_the_threads(echo):
    """0 threads are left."""
    Runtime().close()  # whatever earlier tests left idle
    before = set(threading.enumerate())
    with Runtime():
        echo.sync("ab")
        assert set(threading.enumerate()) - before

    deadline = time.monotonic() + 60
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before


def test_a_closed_runtime_may_be_followed_by_another(echo):
    """The next `.sync()` starts its loop again."""
    for _ in range(3):
        with Runtime():
            assert "abab" == echo.sync("ab")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fault_54_a_forked_child_works():
    """After use in the parent, the child answers, with ids of its own."""
    process = python(
        """
        import os, warnings
        from llmflow import prompt, step
        from llmflow.testing._scripted import scripted

        @step(scripted(default="fine"))
        def ask(word: str) -> str:
            return prompt(word)

        ids = [ask.run_sync("x").run_id]
        read, write = os.pipe()
        warnings.simplefilter("ignore")  # Python 3.12 warns of any fork in a program with threads
        pid = os.fork()
        if pid == 0:
            os.write(write, ask.run_sync("x").run_id.encode())
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        ids += [os.read(read, 100).decode(), ask.run_sync("x").run_id]
        print(status, len(set(ids)), len({one[:10] for one in ids}))
        """
    )
    out, err = process.communicate(timeout=120)

    assert ("0 3 2\n", "") == (out, err)


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_fault_45_ctrl_c_ends_a_sync_call():
    """KeyboardInterrupt soon, whenever the answer would come, one short traceback, and the request cancelled."""
    process = python(
        """
        import threading
        from llmflow import Runtime, prompt, step
        from llmflow.testing._scripted import hang, scripted

        async def waiting(request):
            print("asked", flush=True)
            try:
                await model.answer(request)
            except BaseException as exc:
                print(type(exc).__name__, flush=True)
                raise

        from llmflow import Model
        model = scripted(hang())

        @step(Model("my/model", handler=waiting))
        def ask(word: str) -> str:
            return prompt(word)

        with Runtime():
            ask.sync("x")
        """
    )
    assert "asked\n" == process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)  # the answer never comes; 3 s would do on a machine of one's own

    assert "CancelledError\n" == out
    assert err.strip().endswith("KeyboardInterrupt")
    assert 1 == err.count("Traceback")
    assert process.returncode in (1, -signal.SIGINT, 130)


def test_a_program_ends_with_a_sync_call_behind_it():
    """The threads of `.sync()` keep no interpreter alive, and say nothing at its end."""
    process = python(
        """
        from llmflow import prompt, step
        from llmflow.testing._scripted import scripted

        @step(scripted(default="fine"))
        def ask(word: str) -> str:
            return prompt(word)

        print(ask.sync("x"))
        """
    )
    out, err = process.communicate(timeout=120)

    assert ("fine\n", "", 0) == (out, err, process.returncode)


def test_sync_and_async_calls_share_one_program(echo):
    """In any order."""

    async def main():
        return await echo("a"), echo.sync("b")

    assert ("aa", "bb") == asyncio.run(main())
    assert "cc" == echo.sync("c")
    assert ("aa", "bb") == asyncio.run(main())
