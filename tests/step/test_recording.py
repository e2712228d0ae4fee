"""Runs with an id: one run however often it is called, in memory and in a file."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import enum
import sqlite3
import threading
from collections import Counter
from typing import Any, Generic, Literal, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from llmflow import (
    BadRequest,
    Band,
    Budget,
    BudgetExceeded,
    Cache,
    Deadline,
    DeadlineExceeded,
    DefinitionError,
    Fallback,
    Hedge,
    JournalUnavailable,
    Model,
    Price,
    ProviderUnavailable,
    Reply,
    Retry,
    RunConflict,
    Runtime,
    StepError,
    Usage,
    flow,
    gather,
    or_else,
    prompt,
    step,
    switch,
    task,
    when,
)
from llmflow.stores._database import write_lock
from llmflow.testing._scripted import after, hang, pieces, scripted

pytestmark = pytest.mark.anyio

T = TypeVar("T")
PRICE = Price(input=1.0, output=1.0)


def rows(path, statement, *values):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(statement, values).fetchall()
    finally:
        connection.close()


class Asked(Model):
    """A model that answers from the prompt, and knows what it was asked for; `fails` holds words it breaks on."""

    __slots__ = ("count", "fails")

    def __init__(self, name: str = "asked/model") -> None:
        super().__init__(name, handler=self.answer, price=PRICE)
        self.count: Counter[str] = Counter()
        self.fails: set[str] = set()

    async def answer(self, request):
        word = request.messages[-1].content.split()[-1]
        self.count[word] += 1
        await checkpoint()
        if word in self.fails:
            raise BadRequest("no", status=400)
        return Reply(text=word.upper(), usage=Usage(input_tokens=10, output_tokens=5), model=self.model)


@pytest.fixture
def model():
    return Asked()


@pytest.fixture
def shout(model):
    @step(model)
    def shout(word: str) -> str:
        return prompt(f"Shout {word}")

    return shout


@pytest.fixture
def pair(shout):
    """A flow of two steps, the second of which needs the first."""

    @flow
    async def pair(word: str) -> str:
        first = await shout(word)
        return await shout(first)

    return pair


# -- twice ------------------------------------------------------------------------------------------------------------


async def test_the_same_id_twice_is_one_run(url, pair, model):
    """The second call gives the value of the first and asks nobody."""
    async with Runtime(journal=url):
        first = await pair.with_(run_id="a").run("x")
        second = await pair.with_(run_id="a").run("x")

    assert ("X", False) == (first.value, first.recorded)
    assert ("X", True, 0, "a") == (second.value, second.recorded, second.cost_usd, second.run_id)
    assert {"x": 1, "X": 1} == model.count


async def test_the_same_id_in_the_next_runtime(file, pair, model):
    """What the file holds is there for whoever comes later."""
    values = []
    for _ in range(2):
        async with Runtime(journal=f"sqlite:///{file}"):
            values.append(await pair.with_(run_id="a")("x"))

    assert (["X", "X"], {"x": 1, "X": 1}) == (values, model.count)
    assert [("a", "ok", 0, 1)] == rows(file, "SELECT run_id, status, resumed, named FROM runs")


async def test_without_an_id_each_call_is_a_run(url, pair, model):
    """Nobody asked for one run."""
    async with Runtime(journal=url):
        await pair("x")
        await pair("x")

    assert {"x": 2, "X": 2} == model.count


@pytest.mark.parametrize("kind", ["step", "task", "flow", "eager flow"])
async def test_every_kind_of_unit_takes_an_id(url, kind, shout, model):
    """Other inputs or another target under the same id are refused before anything is sent."""

    @task
    async def double(word: str) -> str:
        model.count[word] += 1
        return word * 2

    @flow
    async def traced(word: str) -> str:
        return await shout(word)

    @flow(eager=True)
    async def eager(word: str) -> str:
        return await shout(word)

    unit = {"step": shout, "task": double, "flow": traced, "eager flow": eager}[kind].with_(run_id="a")
    other = (double if kind != "task" else shout).with_(run_id="a")
    async with Runtime(journal=url):
        values = [await unit("x"), await unit("x")]
        with pytest.raises(RunConflict, match="run 'a' was begun with other inputs") as caught:
            await unit("y")
        with pytest.raises(RunConflict, match=rf"run 'a' is a \w+ of '{unit.name}', not a \w+ of '{other.name}'"):
            await other("x")

    assert isinstance(caught.value, StepError)
    assert values[0] == values[1]
    assert {"x": 1} == model.count


class Color(enum.Enum):
    RED = "red"


class Ticket(BaseModel):
    category: Literal["bug", "other"]
    number: int = Field(alias="theNumber")


class Box(BaseModel, Generic[T]):
    inside: T


@dataclasses.dataclass
class Point:
    x: int
    when: dt.datetime


class Row(TypedDict):
    number: int


NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (str, "é"),
        (type(None), None),
        (int | None, None),
        (float, 0.1),
        (bytes, b"\xff\0"),
        (dt.datetime, NOW),
        (Color, Color.RED),
        (set[int], {1, 2}),
        (tuple[int, str], (1, "a")),
        (dict[int, list[str]], {1: ["a"]}),
        (Ticket, Ticket(category="bug", theNumber=3)),
        (list[Ticket], [Ticket(category="bug", theNumber=3)]),
        (Box[Point], Box[Point](inside=Point(1, NOW))),
        (Point, Point(1, NOW)),
        (Row, {"number": 1}),
        (Any, {"a": [1, None]}),
    ],
    ids=repr,
)
async def test_the_value_is_equal_and_of_its_class(url, annotation, value):
    """Models, dataclasses, TypedDicts, enums, bytes, times, sets, aliases, generics, None: of a task and of its flow."""
    ran = []

    def make():
        ran.append(1)
        return value

    make.__annotations__ = {"return": annotation}
    unit = task(make)

    async def both():
        return await unit()

    both.__annotations__ = {"return": annotation}
    whole = flow(eager=True)(both)
    async with Runtime(journal=url):
        found = [await one.with_(run_id=name)() for name, one in [("t", unit), ("t", unit), ("f", whole), ("f", whole)]]

    assert [value] * 4 == found
    assert {type(value)} == {type(one) for one in found}
    assert 2 == len(ran)


@pytest.mark.parametrize("run_id", ["", "a\nb", "x" * 201, 5, "\ud800"])
def test_an_id_is_checked_where_it_is_given(pair, run_id):
    """It names a row, a command's argument, maybe a file."""
    with pytest.raises(DefinitionError, match=r"flow 'pair': run_id is .*, expected a text of 1 to 200 printable"):
        pair.with_(run_id=run_id)


def test_no_run_is_called_last(pair):
    """The commands call the one so that began last."""
    with pytest.raises(DefinitionError, match=r"flow 'pair': run_id is 'last', which names the run that began last"):
        pair.with_(run_id="last")


async def test_an_id_is_of_the_outermost_call(url, shout):
    """A run inside a run would have two owners."""

    @flow
    async def traced(word: str) -> str:
        return await shout.with_(run_id="inner")(word)

    @flow(eager=True)
    async def eager(word: str) -> str:
        return await shout.with_(run_id="inner")(word)

    @flow(eager=True)
    async def mapped(word: str) -> list[str]:
        return await shout.with_(run_id="inner").map([word])

    async with Runtime(journal=url):
        for unit in (traced, eager, mapped):
            with pytest.raises(DefinitionError, match="'shout' has the run id 'inner', but is called inside of"):
                await unit("x")


async def test_a_failed_run_is_taken_up(url, model, shout):
    """What went well is not asked again, what failed is."""

    @task
    async def plus(one: str, two: str) -> str:
        return f"{one}+{two}"

    @flow
    async def three(word: str) -> str:
        one, two = await gather(shout(word), shout("two"))
        return await shout(await plus(one, two))

    model.fails = {"X+TWO"}
    async with Runtime(journal=url):
        for _ in range(2):
            with pytest.raises(BadRequest):
                await three.with_(run_id="a")("x")
        model.fails = set()
        result = await three.with_(run_id="a").run("x")

    assert ("X+TWO", {"x": 1, "two": 1, "X+TWO": 3}) == (result.value, model.count)
    assert ("a", ["X+TWO"]) == (result.run_id, [one.value for one in result.calls])


async def test_a_value_that_cannot_be_kept_is_refused_or_run_again(url, caplog):
    """A task without a codec is refused under an id, unless it says journal=False; then it runs again."""
    ran = Counter()

    class Client:
        pass

    @task
    async def connect() -> Client:
        return Client()

    @task(journal=False)
    async def connect_again() -> Client:
        ran["client"] += 1
        return Client()

    @task
    async def use(client: Client) -> int:
        ran["use"] += 1
        if ran["use"] == 1:
            raise ValueError
        return 1

    @flow
    async def refused() -> int:
        return await use(await connect())

    @flow
    async def fine() -> int:
        return await use(await connect_again())

    async with Runtime(journal=url):
        with pytest.raises(
            DefinitionError, match="task 'connect' returns Client, which pydantic cannot serialise.*Unable to generate"
        ):
            await refused.with_(run_id="a")()
        with pytest.raises(ValueError):
            await fine.with_(run_id="b")()
        assert 1 == await fine.with_(run_id="b")()

    assert ({"client": 2, "use": 2}, []) == (ran, [one for one in caplog.records if "JSON" in one.getMessage()])


async def test_a_task_whose_value_is_not_what_it_says(url, caplog):
    """It is said once, and the task runs again."""
    ran = Counter()

    @task
    async def odd() -> Any:
        ran["odd"] += 1
        return NOW

    @task
    async def end(when: Any, fails: bool) -> int:
        ran["end"] += 1
        if ran["end"] < 3:
            raise ValueError
        return 1

    @flow
    async def both() -> int:
        return await end(await odd(), False)

    async with Runtime(journal=url):
        for _ in range(2):
            with pytest.raises(ValueError):
                await both.with_(run_id="a")()
        assert 1 == await both.with_(run_id="a")()

    said = [one.getMessage() for one in caplog.records if "JSON" in one.getMessage()]
    assert ({"odd": 3, "end": 3}, 1) == (ran, len(said))
    assert "task 'odd' returned datetime, which JSON cannot hold or give back" in said[0]


async def test_a_flow_whose_value_was_not_kept(url):
    """Its second call says so instead of running it all again under the same id."""

    @task(journal=False)
    async def now() -> Any:
        return NOW

    @flow
    async def tell() -> Any:
        return await now()

    async with Runtime(journal=url):
        await tell.with_(run_id="a")()
        with pytest.raises(RunConflict, match="it has ended well, but its value was not stored") as caught:
            await tell.with_(run_id="a")()

    assert any("use another run id" in note for note in caught.value.__notes__)


async def test_branches_are_taken_again_as_they_were(url, shout, model):
    """when, switch and or_else: only the branch that was chosen has nodes, and a fallback that was taken stays taken."""

    @task
    async def end(parts: list[str]) -> str:
        model.count["end"] += 1
        if model.count["end"] == 1:
            raise ValueError
        return "".join(parts)

    @flow
    async def choose(word: Literal["x", "y"], loud: bool) -> str:
        one = await when(loud, shout("loud"), shout("quiet"))
        two = await switch(word, {"x": shout("sx"), "y": shout("sy")})
        three = await or_else(shout("breaks"), shout("instead"))
        four = await or_else(shout("breaks4"), "value")
        return await end([one, two, three, four])

    model.fails = {"breaks", "breaks4"}
    async with Runtime(journal=url):
        with pytest.raises(ValueError):
            await choose.with_(run_id="a")("x", True)
        model.fails = set()
        value = await choose.with_(run_id="a")("x", True)

    assert "LOUDSXINSTEADvalue" == value
    assert {"loud": 1, "sx": 1, "breaks": 1, "breaks4": 1, "instead": 1, "end": 2} == model.count


# -- what may not be known yet ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eager", [False, True])
async def test_a_map_of_a_flow_is_taken_up(url, model, shout, eager):
    """Each item is a flow of its own, whose inputs are known when it is reached."""

    @flow(eager=eager)
    async def loud(word: str) -> str:
        return await shout(word)

    model.fails = {"b"}
    async with Runtime(journal=url):
        named = loud.with_(run_id="m")
        with pytest.raises(BadRequest):
            await named.map(["a", "b"], concurrency=1)
        model.fails = set()
        values = await named.map(["a", "b"], concurrency=1)

    assert (["A", "B"], {"a": 1, "b": 2}) == (values, model.count)


async def test_a_branch_whose_arguments_are_not_there(url, model, shout):
    """It is not taken, so nobody needs them when the run is taken up either."""

    @task
    async def nothing() -> str:
        return "none"

    @flow
    async def first(wanted: bool, words: list[str]) -> tuple[str, str]:
        found = await when(wanted, shout(words[0]), nothing())
        return found, await shout("last")

    model.fails = {"last"}
    async with Runtime(journal=url):
        with pytest.raises(BadRequest):
            await first.with_(run_id="a")(False, [])
        model.fails = set()

        assert ("none", "LAST") == await first.with_(run_id="a")(False, [])


async def test_or_else_hides_no_conflict(url, model, shout):
    """That what is recorded is the answer to other inputs is no failure of the call."""
    day = ["1"]

    @task(journal=False)
    async def today() -> str:
        return day[0]

    @flow
    async def report(word: str) -> str:
        found = await or_else(shout(await today()), "instead")
        return await shout(await join(found, word))

    @task
    async def join(one: str, other: str) -> str:
        return f"{one} {other}"

    model.fails = {"last"}
    async with Runtime(journal=url):
        with pytest.raises(BadRequest):
            await report.with_(run_id="a")("last")
        model.fails, day[0] = set(), "2"
        with pytest.raises(RunConflict, match="other inputs"):
            await report.with_(run_id="a")("last")

    assert {"1": 1, "last": 1} == model.count


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("error", [JournalUnavailable, RunConflict])
async def test_or_else_catches_what_it_names(eager, error):
    """A refusal of the journal passes `on=(StepError,)`, and is caught by its own name."""

    @task
    async def broken() -> str:
        raise error("no")

    @flow(eager=eager)
    async def careless() -> str:
        return await or_else(broken(), "instead", on=(StepError,))

    @flow(eager=eager)
    async def careful() -> str:
        return await or_else(broken(), "instead", on=(StepError, error))

    async with Runtime():
        assert "instead" == await careful()
        with pytest.raises(error):
            await careless()


class _Speechless(Exception):
    def __str__(self):
        raise ValueError("nothing to say")


@pytest.mark.parametrize("where", ["task", "body"])
async def test_an_error_that_says_nothing_ends_its_run(url, where):
    """It leaves as itself, and nobody finds the run busy."""

    @task
    async def talk() -> str:
        raise _Speechless

    @flow(eager=True)
    async def both() -> str:
        if where == "body":
            raise _Speechless
        return await talk()

    async with Runtime(journal=url):
        for _ in range(2):
            with anyio.fail_after(30), pytest.raises(_Speechless):
                await both.with_(run_id="a")()


async def test_a_journal_in_use_is_waited_for_within_the_deadline(file, shout, model):
    """Somebody holds its lock: the deadline of the call is one all the same."""
    async with Runtime(journal=f"sqlite:///{file}"):
        await shout("before")
        with write_lock(file), pytest.raises(DeadlineExceeded, match="its journal is in use, within 0.05 s"):
            await shout.with_(Deadline(0.05), run_id="a")("x")
        assert "X" == await shout.with_(run_id="a")("x")

    assert {"before": 1, "x": 1} == model.count


async def test_threads_that_wait_for_runs_leave_one_to_begin_them(file, shout):
    """Every thread of the event loop's pool may be a blocking function that waits for a run."""
    async with Runtime(journal=f"sqlite:///{file}"):
        limiter = anyio.to_thread.current_default_thread_limiter()
        before, limiter.total_tokens = limiter.total_tokens, 2

        async def call(number):
            return await shout.with_(run_id=str(number))("x")

        try:
            with anyio.fail_after(60):
                async with anyio.create_task_group() as group:
                    for number in range(4):
                        group.start_soon(anyio.to_thread.run_sync, anyio.from_thread.run, call, number)
        finally:
            limiter.total_tokens = before

    assert 4 == len(rows(file, "SELECT run_id FROM runs WHERE status = 'ok'"))


# -- several at once ---------------------------------------------------------------------------------------------------


async def test_a_second_caller_waits(url, pair, model):
    """Ten at once are one run; none of them pays twice."""
    values = []

    async def call():
        values.append(await pair.with_(run_id="a")("x"))

    async with Runtime(journal=url):
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(call)

    assert (["X"] * 10, {"x": 1, "X": 1}) == (values, model.count)


async def test_two_runtimes_of_one_process_share_the_run(file, pair, model):
    """The file is what they have in common, and the process that runs it is the same."""
    values = []

    async def call():
        async with Runtime(journal=f"sqlite:///{file}"):
            values.append(await pair.with_(run_id="a")("x"))

    async with Runtime(), anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(call)

    assert (["X"] * 3, {"x": 1, "X": 1}) == (values, model.count)


def test_threads_share_the_run(url, pair, model):
    """With .sync() in threads of their own."""
    values = []
    with Runtime(journal=url):
        named = pair.with_(run_id="a")
        threads = [threading.Thread(target=lambda: values.append(named.sync("x"))) for _ in range(5)]
        for one in threads:
            one.start()
        for one in threads:
            one.join(120)

    assert (["X"] * 5, {"x": 1, "X": 1}) == (values, model.count)


async def test_a_waiter_takes_over_from_one_that_failed(url, model):
    """Whoever waits gets the run when it ends without a value."""
    outcomes = []
    hold = anyio.Event()

    @task
    async def first_fails() -> str:
        model.count["task"] += 1
        await hold.wait()
        if model.count["task"] == 1:
            raise ValueError
        return "fine"

    @flow
    async def only() -> str:
        return await first_fails()

    async def call():
        try:
            outcomes.append(await only.with_(run_id="a")())
        except ValueError as exc:
            outcomes.append(type(exc))

    async with Runtime(journal=url), anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(call)
        await anyio.sleep(0.03)
        hold.set()

    assert ([ValueError, "fine"], 2) == (outcomes, model.count["task"])


def test_sync_inside_a_running_loop(url, pair, model):
    """As in Jupyter: the run is recorded by a loop of another thread."""

    async def cell():
        return [pair.with_(run_id="a").sync("x") for _ in range(2)]

    with Runtime(journal=url):
        values = asyncio.run(cell())

    assert (["X", "X"], {"x": 1, "X": 1}) == (values, model.count)


def test_one_loop_after_the_other(url, pair, model):
    """A journal belongs to no loop."""
    with Runtime(journal=url):
        values = [asyncio.run(_call(pair, "x")) for _ in range(3)]

    assert (["X"] * 3, {"x": 1, "X": 1}) == (values, model.count)


async def _call(unit, word):
    return await unit.with_(run_id="a")(word)


# -- cancelled ---------------------------------------------------------------------------------------------------------


async def test_a_cancelled_run_can_be_taken_up(url, model, shout):
    """Cancelled by its caller: what was done is kept, and nobody finds it busy."""
    stuck = scripted(hang(), default="ok")

    @step(stuck)
    def slow(word: str) -> str:
        return prompt(word)

    @flow
    async def both(word: str) -> str:
        return await slow(await shout(word))

    async with Runtime(journal=url):
        with anyio.move_on_after(60) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(both.with_(run_id="a"), "x")
                while not stuck.requests:
                    await anyio.sleep(0.001)
                group.cancel_scope.cancel()
        value = await both.with_(run_id="a")("x")

    assert (False, "ok", {"x": 1}, 2) == (scope.cancelled_caught, value, model.count, len(stuck.requests))


class _Cancels:
    """A coroutine driven to its n-th suspension on an event loop, and cancelled there."""

    def __init__(self, coroutine, nth):
        self._coroutine, self._left = coroutine, nth
        self.cancelled = False

    def __await__(self):
        send, sent = self._coroutine.send, None
        while True:
            try:
                waited_for = send(sent)
            except StopIteration as stop:
                return stop.value
            self._left -= 1
            if self._left == 0:
                self.cancelled = True
                asyncio.current_task().cancel()
            try:
                send, sent = self._coroutine.send, (yield waited_for)
            except BaseException as exc:
                send, sent = self._coroutine.throw, exc


async def _drive(driven):
    return await driven


@pytest.mark.parametrize("in_file", [False, True])
def test_cancelled_at_every_await_on_asyncio(tmp_path, pair, model, in_file):
    """For n = 1, 2, ...: cancelled at its n-th suspension, a run can be taken up at once, and no answer is paid twice."""
    nth = 1
    while asyncio.run(_cancelled_at(nth, f"sqlite:///{tmp_path}/{nth}.db" if in_file else "memory://", pair, model)):
        nth += 1

    assert nth > (5 if in_file else 2)


async def _cancelled_at(nth, url, pair, model):
    model.count.clear()
    async with Runtime(journal=url):
        driven = _Cancels(pair.with_(run_id="a")("x"), nth)
        await asyncio.gather(asyncio.create_task(_drive(driven)), return_exceptions=True)
        sent = dict(model.count)
        value = await asyncio.wait_for(pair.with_(run_id="a")("x"), 60)
    assert "X" == value
    # A request that was in flight is asked again; whatever else was asked is not.
    assert sum(model.count.values()) <= 2 + driven.cancelled
    assert {asyncio.current_task()} == asyncio.all_tasks(), sent
    return driven.cancelled


async def test_cancelled_at_every_moment(tmp_path, pair, model, anyio_backend_name):
    """The same by turns of the loop, on both backends, with a file."""
    for turns in range(0, 40, 3):
        model.count.clear()
        done = []

        async def call(done=done):
            done.append(await pair.with_(run_id="a")("x"))

        async with Runtime(journal=f"sqlite:///{tmp_path}/{turns}.db"):
            async with anyio.create_task_group() as group:
                group.start_soon(call)
                for _ in range(turns):
                    await anyio.sleep(0.0005)
                group.cancel_scope.cancel()
            with anyio.fail_after(60):
                assert "X" == await pair.with_(run_id="a")("x")
        assert sum(model.count.values()) <= 3
        (run,) = rows(tmp_path / f"{turns}.db", "SELECT status, owner FROM runs")
        assert ("ok", None) == run
        assert [] == rows(tmp_path / f"{turns}.db", "SELECT * FROM attempts WHERE outcome IS NULL")


# -- what the rows say -------------------------------------------------------------------------------------------------

_ATTEMPTS = "SELECT number, kind, outcome, cost_nano, hedge, node, run_id FROM attempts ORDER BY started, number"


async def test_rows_of_retries_and_fallbacks(file):
    """Every physical request, what became of it and where it belongs; one call; one node with the model that answered."""
    first = scripted(ProviderUnavailable("503"), ProviderUnavailable("503"), name="a/one", price=PRICE)
    second = scripted("junk", "4", name="b/two", price=PRICE, usage=Usage(input_tokens=7, output_tokens=3))

    @step(first, Fallback(second), Retry(2, wait_initial=0.001, wait_max=0.001))
    def count(word: str) -> int:
        return prompt(word)

    async with Runtime(journal=f"sqlite:///{file}"):
        result = await count.with_(run_id="a").run("x")

    attempts = rows(file, "SELECT number, model, outcome, status, cost_nano FROM attempts ORDER BY number")
    assert [1, 2, 3, 4] == [one[0] for one in attempts]
    assert ["a/one", "a/one", "b/two", "b/two"] == [one[1] for one in attempts]
    assert ["ProviderUnavailable", "ProviderUnavailable", "ok", "ok"] == [one[2] for one in attempts]
    assert [10_000, 10_000] == [one[4] for one in attempts[2:]]
    assert [("a", "count", "count", "b/two", 4, 1, 0)] == rows(
        file, "SELECT run_id, node, step, model, attempts, reasks, cached FROM calls"
    )
    assert [("count", "step", "ok", "b/two", "4", result.prompt_version)] == rows(
        file, "SELECT key, kind, status, model, output, prompt_version FROM nodes"
    )
    assert [("a", "step", "ok", None, 0)] == rows(file, "SELECT run_id, kind, status, output, resumed FROM runs")
    assert [("count", result.prompt_version)] == rows(file, "SELECT step, version FROM prompts")


async def test_rows_of_a_hedge(file):
    """Both requests, the loser cancelled."""
    model = scripted(hang(), "fine", price=PRICE)

    @step(model, Hedge(after=0.02))
    def ask(word: str) -> str:
        return prompt(word)

    async with Runtime(journal=f"sqlite:///{file}"):
        assert "fine" == await ask.with_(run_id="a")("x")

    assert [(1, "cancelled", 0), (2, "ok", 1)] == rows(
        file, "SELECT number, outcome, hedge FROM attempts ORDER BY number"
    )


async def test_rows_of_cache_hits(file):
    """An answer that took no request has a row of its own, which says what it saved."""
    model = scripted(default="fine", price=PRICE, usage=Usage(input_tokens=7, output_tokens=3))

    @step(model, Cache("1h"))
    def ask(word: str) -> str:
        return prompt(word)

    async with Runtime(store=f"sqlite:///{file}"):
        await ask.with_(run_id="a")("x")
        result = await ask.with_(run_id="b").run("x")

    assert (True, 1) == (result.cached, len(model.requests))
    assert [("a", 1, "attempt", 10_000, None), ("b", 0, "hit", 0, 10_000)] == rows(
        file, "SELECT run_id, number, kind, cost_nano, saved_nano FROM attempts ORDER BY run_id"
    )
    assert [("a", 0, 1), ("b", 1, 0)] == rows(file, "SELECT run_id, cached, attempts FROM calls ORDER BY run_id")


async def test_a_stream_is_recorded(url):
    """A run that was streamed gives its value when it is called again."""
    model = scripted(pieces("a", "b", "c"))

    @step(model)
    def tell(word: str) -> str:
        return prompt(word)

    async with Runtime(journal=url):
        async with tell.with_(run_id="a").stream("x") as stream:
            shown = [one async for one in stream]
            value = await stream.final()
        async with tell.with_(run_id="a").stream("x") as stream:
            again = await stream.final()

    assert ("abc", "abc", "abc", 1) == (shown[-1], value, again, len(model.requests))


async def test_what_is_left_early_is_cancelled(file):
    """A stream whose block is left: its request, its node and its run are cancelled, and can be asked again."""
    model = scripted(pieces("a", after(100, "b")), "whole")

    @step(model)
    def tell(word: str) -> str:
        return prompt(word)

    async with Runtime(journal=f"sqlite:///{file}") as runtime:
        async with tell.with_(run_id="a").stream("x") as stream:
            async for _ in stream:
                break
        await runtime.journal.settled()
        before = rows(file, "SELECT count(*) FROM runs WHERE status = 'running'")
        value = await tell.with_(run_id="a")("x")

    assert ([(0,)], "whole") == (before, value)
    assert ["cancelled", "ok"] == [one for (one,) in rows(file, "SELECT outcome FROM attempts ORDER BY started")]


# -- budgets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [{"calls": 2}, {"calls": 3}, {"usd": "0.000045"}, {"tokens": 45}], ids=repr)
async def test_a_budget_of_a_run_counts_earlier_tries(url, model, budget):
    """One run is one budget, however often it was taken up."""

    @step(model, params={"max_tokens": 5})
    def tiny(word: str) -> str:
        return prompt(word)

    @flow(Budget(per="run", **budget))
    async def three() -> str:
        await tiny("a")
        return await tiny(await tiny("b"))

    model.fails = {"B"}
    async with Runtime(journal=url):
        with pytest.raises((BadRequest, BudgetExceeded)):
            await three.with_(run_id="r")()
        model.fails = set()
        sent = sum(model.count.values())
        with pytest.raises(BudgetExceeded):
            await three.with_(run_id="r")()

    assert (True, sent) == (sent <= 3, sum(model.count.values()))


@pytest.mark.parametrize(
    ("wide", "narrow"), [({"tokens": 250}, {"tokens": 190}), ({"usd": "0.00025"}, {"usd": "0.00019"})]
)
async def test_a_budget_counts_what_was_in_flight(url, wide, narrow):
    """Nobody knows what a request took that was cut off: a budget counts what was reserved for it."""
    model = scripted(hang(), "fine", hang(), price=PRICE)

    @step(model, params={"max_tokens": 100})
    def tiny(word: str) -> str:
        return prompt(word)

    async with Runtime(journal=url):
        named = tiny.with_(Budget(per="run", **wide), run_id="wide")
        await cut_off(named, model)
        assert "fine" == await named("x")

        named = tiny.with_(Budget(per="run", **narrow), run_id="narrow")
        await cut_off(named, model)
        with pytest.raises(BudgetExceeded):
            await named("x")

    assert 3 == len(model.requests)


async def cut_off(unit, model):
    """Cancel a call once its request is on the way."""
    before = len(model.requests)
    async with anyio.create_task_group() as group:
        group.start_soon(unit, "x")
        while len(model.requests) == before:
            await anyio.sleep(0.001)
        group.cancel_scope.cancel()


@pytest.mark.parametrize("how", ["await", "stream"])
async def test_a_step_waits_for_its_run_within_its_deadline(url, model, how):
    """As a flow does: somebody else may never end it."""
    stuck = scripted(hang())

    @step(stuck)
    def slow(word: str) -> str:
        return prompt(word)

    async with Runtime(journal=url), anyio.create_task_group() as group:
        group.start_soon(slow.with_(run_id="a"), "x")
        while not stuck.requests:
            await anyio.sleep(0.001)
        named = slow.with_(Deadline(0.05), run_id="a")
        with anyio.fail_after(30), pytest.raises(DeadlineExceeded, match="being run by somebody else"):
            if how == "await":
                await named("x")
            else:
                async with named.stream("x") as stream:
                    async for _ in stream:
                        pass
        group.cancel_scope.cancel()


@pytest.mark.parametrize("seconds", ["5s", dt.timedelta(seconds=5), None, 5])
async def test_a_deadline_of_somebody_else_says_its_seconds_as_it_likes(url, model, seconds):
    """What is no number is none for waiting, and the call runs."""

    class Their:
        band = Band.DEADLINE

        def __init__(self):
            self.seconds = seconds

        def wrap(self, proceed, site, /):
            return proceed

    @step(model, Their())
    def ask(word: str) -> str:
        return prompt(word)

    async with Runtime(journal=url):
        assert "X" == await ask.with_(run_id="a")("x")
