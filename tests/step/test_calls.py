"""A call: a coroutine of its own kind, taken by everything that takes coroutines, and used once."""

from __future__ import annotations

import asyncio
import gc
import inspect
import warnings
from dataclasses import dataclass

import anyio
import pytest
from pydantic import BaseModel

from llmflow import DefinitionError, Fallback, InvalidOutput, Model, QuotaExceeded, Retry, Timeout, prompt, step
from llmflow.testing._scripted import scripted

pytestmark = pytest.mark.anyio


async def test_awaiting_a_call_gives_the_value(echo):
    """As any async function."""
    assert "abab" == await echo("ab")


async def test_run_gives_the_record_too(echo):
    """`run` returns a Result with the value in it."""
    result = await echo.run("ab")

    assert ("abab", "double", "scripted/model", 1) == (result.value, result.step, result.model, len(result.attempts))
    assert result.run_id
    assert result.prompt_version == echo.prompt_version


async def test_a_call_is_used_once(echo):
    """A second await says so instead of asking again."""
    call = echo("ab")
    await call

    with pytest.raises(RuntimeError, match="awaited before"):
        await call
    assert 1 == len(echo.asked.requests)


def test_a_call_that_is_dropped_warns(echo):
    """As a coroutine does, with the step's name."""
    with pytest.warns(RuntimeWarning, match="'double' was never awaited"):
        echo("ab")
        gc.collect()


def test_a_call_that_was_closed_does_not_warn(echo):
    """`close()` says that it was meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        echo("ab").close()
        gc.collect()


async def test_wrong_arguments_are_a_type_error_at_the_call(echo):
    """With the step's name, before anything is awaited."""
    with pytest.raises(TypeError, match="step 'double'"):
        echo("ab", "cd")
    with pytest.raises(TypeError, match="step 'double'"):
        echo(words="ab")


async def test_a_call_sends_throws_and_closes_as_a_coroutine(echo):
    """It is a `collections.abc.Coroutine`."""
    call = echo("ab")
    with pytest.raises(KeyError):
        call.throw(KeyError("from outside"))

    assert inspect.isawaitable(echo("x").close() or call)
    assert 0 == len(echo.asked.requests)


async def test_two_hundred_calls_at_a_time_are_not_mixed_up(echo):
    """Fault 75: no answer goes to the wrong caller."""
    answers = {}

    async def call(word):
        answers[word] = await echo(word)

    async with anyio.create_task_group() as group:
        for n in range(200):
            group.start_soon(call, f"w{n}")

    assert {f"w{n}": f"w{n}w{n}" for n in range(200)} == answers


async def test_anyio_starts_a_step_as_a_task(echo):
    """`start_soon` takes the step and its arguments."""
    async with anyio.create_task_group() as group:
        group.start_soon(echo, "ab")
        group.start_soon(echo, "cd")

    assert 2 == len(echo.asked.requests)


def test_asyncio_takes_calls_wherever_it_takes_coroutines(echo):
    """`gather`, `create_task`, `TaskGroup`, `wait_for`, `run`."""

    async def main():
        task = asyncio.create_task(echo("c"))
        async with asyncio.TaskGroup() as group:
            other = group.create_task(echo("d"))
        return [
            *await asyncio.gather(echo("a"), echo("b")),
            await task,
            other.result(),
            await asyncio.wait_for(echo("e"), 5),
        ]

    assert ["aa", "bb", "cc", "dd", "ee"] == asyncio.run(main())
    assert "ff" == asyncio.run(_awaiting(echo("f")))


async def _awaiting(call):
    return await call


def test_trio_takes_steps_wherever_it_takes_async_functions(echo):
    """`nursery.start_soon` and `trio.run`."""
    import trio

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo, "a")
            nursery.start_soon(echo, "b")

    trio.run(main)

    assert "cc" == trio.run(echo, "c")
    assert 3 == len(echo.asked.requests)


def test_fault_55_two_runs_in_a_row(echo):
    """Each `asyncio.run` has its own loop; nothing is kept from the first."""

    async def main():
        return await echo("ab")

    assert ["abab", "abab"] == [asyncio.run(main()), asyncio.run(main())]


def test_a_step_says_that_it_is_a_coroutine_function(echo):
    """So FastAPI, pytest and others await it."""
    assert inspect.iscoroutinefunction(echo)
    assert asyncio.iscoroutinefunction(echo)
    assert "(word: str) -> str" == str(inspect.signature(echo))
    assert "double" == echo.__name__


async def test_partial_fixes_arguments():
    """The signature loses them; a name that does not exist is refused."""
    model = scripted(default=lambda request: request.messages[-1].content)

    @step(model)
    def translate(text: str, language: str, tone: str = "polite") -> str:
        return prompt(f"{text}/{language}/{tone}")

    german = translate.partial(language="German")

    assert "hi/German/polite" == await german("hi")
    assert "hi/German/rude" == await german.partial(tone="rude")("hi")
    assert "(text: str, *, tone: str = 'polite') -> str" == str(inspect.signature(german))
    assert "hi/French/polite" == await translate("hi", "French")
    with pytest.raises(DefinitionError, match="'lang'"):
        translate.partial(lang="German")


async def test_with_changes_a_copy():
    """Policies of a kind are replaced; the step itself stays as it is."""
    failing, fine = scripted(default=QuotaExceeded("quota")), scripted(default="fine")

    @step(failing, Timeout(5), Fallback(failing))
    def ask(word: str) -> str:
        return prompt(word)

    other = ask.with_(Fallback(fine), Retry(1), params={"temperature": 0.1}, version="v7")

    result = await other.run("x")
    assert ("fine", "v7") == (result.value, result.prompt_version)
    assert 0.1 == fine.requests[0].params["temperature"]
    assert [Timeout(5), Fallback(fine), Retry(1)] == list(other.policies)
    assert 2 == len(ask.policies)
    assert ask.version != "v7"


async def test_with_another_model():
    """`with_(model=...)` asks another one first."""
    one, other = scripted(default="one"), scripted(default="other")

    @step(one)
    def ask(word: str) -> str:
        return prompt(word)

    assert ("one", "other") == (await ask("x"), await ask.with_(model=other)("x"))


async def test_a_run_id_may_be_given(echo):
    """It is on the result, and on the next call there is another one again."""
    assert "order-42" == (await echo.with_(run_id="order-42").run("x")).run_id
    assert "order-42" != (await echo.run("x")).run_id


class Clerk:
    """An object with a step as a method."""

    model = scripted(default=lambda request: request.messages[-1].content)

    def __init__(self, name):
        self.name = name

    @step(model)
    def greet(self, guest: str) -> str:
        return prompt(f"{self.name} greets {guest}")


async def test_a_step_may_be_a_method():
    """`self` is the object; two objects do not get in each other's way."""
    ann, bob = Clerk("Ann"), Clerk("Bob")

    assert ["Ann greets X", "Bob greets Y"] == [await ann.greet("X"), await bob.greet("Y")]
    assert "Ann greets Z" == await Clerk.greet(ann, "Z")
    assert ["Ann greets 1", "Ann greets 2"] == await ann.greet.map(["1", "2"])


async def test_an_async_body_may_wait():
    """For a database, say."""
    model = scripted(default=lambda request: request.messages[-1].content)

    @step(model)
    async def ask(word: str) -> str:
        await anyio.sleep(0)
        return prompt(word)

    assert "x" == await ask("x")


async def test_what_a_body_raises_leaves_unchanged_with_a_note():
    """The user's own error, naming the step; nothing is asked."""
    mistake = ZeroDivisionError("1/0")
    model = scripted()

    @step(model)
    def ask(word: str) -> str:
        raise mistake

    with pytest.raises(ZeroDivisionError) as caught:
        await ask("x")

    assert caught.value is mistake
    assert ["raised in the body of step 'ask'"] == caught.value.__notes__
    assert [] == model.requests


@dataclass
class Point:
    """A dataclass as an answer."""

    x: int
    y: int = 0


class Node(BaseModel):
    """A recursive model as an answer."""

    name: str
    children: list[Node] = []


@pytest.mark.parametrize(
    ("returns", "answer", "expected"),
    [
        (int, "4", 4),
        (bool, "true", True),
        (list[int], "[1, 2]", [1, 2]),
        (dict[str, float], '{"a": 1}', {"a": 1.0}),
        (tuple[int, str], '[1, "a"]', (1, "a")),
        (int | None, "null", None),
        (Point, '{"x": 1}', Point(1)),
        (Node, '{"name": "a", "children": [{"name": "b"}]}', Node(name="a", children=[Node(name="b")])),
        (list[Point], '[{"x": 1, "y": 2}]', [Point(1, 2)]),
    ],
    ids=str,
)
async def test_v1_an_answer_is_an_instance_of_the_annotation(returns, answer, expected):
    """V1: the author's own classes."""

    def ask(word):
        return prompt(word)

    ask.__annotations__ = {"word": str, "return": returns}

    value = await step(scripted(answer))(ask)("x")

    assert expected == value
    assert type(expected) is type(value)


async def test_a_handler_that_returns_junk_is_a_definition_error():
    """A model that is a function is the author's code: the message says what it should return."""

    async def handler(request):
        return 7

    @step(Model("my/model", handler=handler))
    def ask(word: str) -> str:
        return prompt(word)

    with pytest.raises(DefinitionError, match="'my/model' returned int"):
        await ask("x")


async def test_scripted_answers_fit_any_handler():
    """A scripted model's `answer` is a handler, and says when its script has ended."""
    model = scripted("only one")

    @step(Model("my/model", handler=model.answer))
    def ask(word: str) -> str:
        return prompt(word)

    assert "only one" == await ask("x")
    with pytest.raises(AssertionError, match="the script has 1 replies, and this is request 2"):
        await ask("x")


async def test_scripted_takes_data_as_json():
    """What is no text is dumped."""

    @step(scripted(Point(1, 2)))
    def ask(word: str) -> Point:
        return prompt(word)

    assert Point(1, 2) == await ask("x")


async def test_an_error_is_complete(echo):
    """V5: step, run, attempts, cost, status, retryable and cause."""

    @step(scripted(default="x"))
    def count(word: str) -> int:
        return prompt(word)

    with pytest.raises(InvalidOutput) as caught:
        await count("x")

    error = caught.value
    assert ("count", 3, None, None, False, ()) == (
        error.step,
        len(error.attempts),
        error.cost_usd,
        error.status,
        error.retryable,
        error.others,
    )
    assert str(error).startswith("step 'count': ")
    assert str(error).count("step 'count'") == 1
