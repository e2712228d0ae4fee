"""A run that is taken up by a program that is not what it was: said before anything is sent, and the user chooses."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter

import anyio
import pytest
from anyio.lowlevel import checkpoint

from llmflow import BadRequest, Model, Reply, RunConflict, Runtime, Usage, flow, gather, hookimpl, prompt, step, task

pytestmark = pytest.mark.anyio

NOTES = [
    'To go on with what is recorded: llmflow resume --use-recorded, or Runtime(on_change="use-recorded").',
    'To ask again, and pay again: llmflow resume --rerun-changed, or Runtime(on_change="rerun-changed").',
]
GIVE_AGAIN = "llmflow run ... --run-id a --rerun-changed with the same input"
"""How it is asked again where the inputs are not stored."""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"


def rows(path, statement):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


class Asked(Model):
    """Answers `5` to all, and breaks on what begins with `Last` while it is told to."""

    __slots__ = ("breaks", "count")

    def __init__(self):
        super().__init__("fake/one", handler=self.answer)
        self.count: Counter[str] = Counter()
        self.breaks = True

    async def answer(self, request):
        word = request.messages[-1].content.split()[0]
        self.count[word] += 1
        await checkpoint()
        if word == "Last" and self.breaks:
            raise BadRequest("no", status=400)
        return Reply(text="5", usage=Usage(input_tokens=1, output_tokens=1), model="fake/one")


@pytest.fixture
def model():
    return Asked()


def program(model, *, text="Ask {{ word }}", returns=str, constant="c", extra=False, name="other", swapped=False):
    """Return a flow of three steps and a task, the last of which breaks; any part of it can be another one."""

    def asks(word):
        return prompt(text)

    def others(word):
        return prompt("Other {{ word }}")

    asks.__annotations__ = {"word": str, "return": str}
    asks.__doc__ = None
    others.__annotations__ = {"word": str, "return": returns}
    ask = step(model, name="ask")(asks)
    other = step(model, name=name)(others)

    @step(model)
    def last(one: str, two: str) -> str:
        return prompt(f"Last {one} {two}")

    @task
    async def show(value: str | int) -> str:
        return str(value)

    @flow
    async def work(word: str) -> str:
        if swapped:
            two = await show(await other(constant))
            return await last(await ask(two), word)
        one, value = await gather(ask(word), other(constant))
        two = await show(value)
        if extra:
            one = await show(one)
        return await last(one, two)

    return work


def asking(model, text):
    """Return a flow of a step with this docstring for a template, then one that breaks."""

    def ask(word):
        return prompt()

    ask.__annotations__ = {"word": str, "return": str}
    ask.__doc__ = text
    first = step(model)(ask)

    @step(model)
    def last(one: str) -> str:
        return prompt(f"Last {one}")

    @flow
    async def work(word: str) -> str:
        return await last(await first(word))

    return work


async def begin(path, unit, **options):
    """Run a flow as far as it comes."""
    async with Runtime(journal=f"sqlite:///{path}", **options):
        with pytest.raises(BadRequest):
            await unit.with_(run_id="a")("x")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"returns": int}, ["step 'other' (work/other) was asked with prompt"]),
        ({"constant": "d"}, ["work/other"]),
        (
            {"extra": True},
            ["task 'work/show#2' is new", "'work/last' comes after 'work/show', 'work/show#2' and came after"],
        ),
        ({"name": "renamed"}, ["step 'work/other' is gone", "step 'work/renamed' is new"]),
        ({"swapped": True}, ["'work/ask' comes after 'work/show' and came after nothing"]),
    ],
    ids=["schema", "constant", "one node more", "renamed", "order"],
)
async def test_a_change_is_refused_before_anything_is_sent(path, model, changed, said):
    """Every change is named, with both ways out; the run can be taken up after that as before."""
    await begin(path, program(model))
    model.breaks, before = False, dict(model.count)
    async with Runtime(journal=f"sqlite:///{path}"):
        with pytest.raises(RunConflict) as caught:
            await program(model, **changed).with_(run_id="a")("x")
        with pytest.raises(RunConflict):  # nor the second time
            await program(model, **changed).with_(run_id="a")("x")
        assert before == model.count
        for one in said:
            assert one in str(caught.value)
        assert (NOTES, "a") == (
            [note for note in caught.value.__notes__ if note.startswith("To ")],
            caught.value.run_id,
        )
        assert "5" == await program(model).with_(run_id="a")("x")

    assert {**before, "Last": 2} == model.count


async def test_a_changed_prompt_is_refused(path, model):
    """The versions are named, and which step it is."""
    await begin(path, asking(model, "Ask {{ word }}"))
    async with Runtime(journal=f"sqlite:///{path}"):
        unit = asking(model, "Ask kindly {{ word }}")
        with pytest.raises(
            RunConflict, match=r"flow 'work' was changed since it began: step 'ask' \(work/ask\) was asked"
        ):
            await unit.with_(run_id="a")("x")

    assert {"Ask": 1, "Last": 1} == model.count


async def test_a_changed_constant_is_refused_before_what_is_beside_it_is_sent(path):
    """A node that did not finish has nothing to wait for; it is not sent in vain."""
    count = Counter()
    gate = anyio.Event()

    async def answer(request):
        word = request.messages[-1].content
        count[word] += 1
        if word == "slow":
            await gate.wait()
            raise BadRequest("no", status=400)
        gate.set()
        return "fine"

    def program(deep):
        @step(Model("fake/one", handler=answer))
        def ask(words: list[str], more: dict[str, str]) -> str:
            return prompt(words[0])

        @flow
        async def work(words: tuple[str, str]) -> str:
            slow, _ = await gather(ask([words[1]], {}), ask([words[0]], {"a": deep}))
            return slow

        return work.with_(run_id="a")

    async with Runtime(journal=f"sqlite:///{path}"):
        with pytest.raises(BadRequest):
            await program("x")(("quick", "slow"))
        with pytest.raises(RunConflict, match=r"since it began: step 'ask' \(work/ask#2\) was given other inputs"):
            await program("y")(("quick", "slow"))
        assert {"quick": 1, "slow": 1} == count
        with pytest.raises(BadRequest):
            await program("x")(("quick", "slow"))

    assert {"quick": 1, "slow": 2} == count


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ({"returns": int}, {"Other": 1, "Last": 1}),
        ({"constant": "d"}, {"Other": 1, "Last": 1}),
        ({"extra": True}, {"Last": 1}),
        ({"name": "renamed"}, {"Other": 1, "Last": 1}),
        ({"swapped": True}, {"Ask": 1, "Last": 1}),
    ],
    ids=["schema", "constant", "one node more", "renamed", "order"],
)
async def test_rerun_changed(path, model, changed, again):
    """Only what changed, and what depends on it, is asked again."""
    await begin(path, program(model))
    model.breaks = False
    model.count.clear()
    async with Runtime(journal=f"sqlite:///{path}", on_change="rerun-changed"):
        value = await program(model, **changed).with_(run_id="a")("x")

    assert ("5", again) == (value, model.count)


@pytest.mark.parametrize("changed", [{"returns": int}, {"constant": "d"}, {"extra": True}, {"swapped": True}], ids=repr)
async def test_use_recorded(path, model, changed):
    """What is recorded is taken, whatever was asked for it."""
    await begin(path, program(model))
    model.breaks = False
    model.count.clear()
    async with Runtime(journal=f"sqlite:///{path}", on_change="use-recorded"):
        value = await program(model, **changed).with_(run_id="a")("x")

    assert ("5", {"Last": 1}) == (value, model.count)


@pytest.mark.parametrize("on_change", ["refuse", "rerun-changed"])
async def test_what_no_longer_fits_its_type(path, on_change):
    """A task returns another type than it did; there is no version that tells."""
    ran = Counter()

    def make(value):
        def produce():
            ran["produce"] += 1
            return value

        produce.__annotations__ = {"return": type(value)}
        produced = task(produce)

        @task
        async def end(value: object) -> str:
            ran["end"] += 1
            if ran["end"] == 1:
                raise ValueError
            return repr(value)

        @flow
        async def work() -> str:
            return await end(await produced())

        return work

    async with Runtime(journal=f"sqlite:///{path}"):
        with pytest.raises(ValueError):
            await make("text").with_(run_id="a")()
    async with Runtime(journal=f"sqlite:///{path}", on_change=on_change):
        if on_change == "refuse":
            with pytest.raises(RunConflict, match=r"what task 'produce' \(work/produce\) gave no longer fits its type"):
                await make(5).with_(run_id="a")()
            assert 1 == ran["produce"]
        else:
            assert "5" == await make(5).with_(run_id="a")()
            assert 2 == ran["produce"]


# -- content -----------------------------------------------------------------------------------------------------------


async def test_only_hashes(path, model):
    """store_content=False: neither inputs nor outputs are in the file, and taking it up says what it cannot do."""
    unit = program(model)
    await begin(path, unit, store_content=False)
    model.breaks = False
    content = b"".join(one.read_bytes() for one in path.parent.glob("journal.db*"))
    found = rows(path, "SELECT inputs, output, content FROM nodes")
    async with Runtime(journal=f"sqlite:///{path}", store_content=False):
        with pytest.raises(
            RunConflict, match=r"only hashes are stored of step '\w+' .*, as store_content was False"
        ) as caught:
            await unit.with_(run_id="a")("x")
        before = dict(model.count)
        await unit.with_(run_id="b")("x")
        with pytest.raises(RunConflict, match="its value was not stored"):
            await unit.with_(run_id="b")("x")
    assert [NOTES[1].replace("llmflow resume --rerun-changed", GIVE_AGAIN)] == [
        note for note in caught.value.__notes__ if note.startswith("To ")
    ]
    assert {(None, None, "hashed")} == set(found)
    assert b'"x"' not in content
    assert {"Ask": 1, "Other": 1, "Last": 1} == before
    async with Runtime(journal=f"sqlite:///{path}", on_change="rerun-changed"):
        assert "5" == await unit.with_(run_id="a")("x")


class Redacting:
    """A plugin that hides fives, and for one step breaks as it is asked."""

    @hookimpl
    def llmflow_redactors(self, name):
        return [lambda text: text.replace("5", "*")] if name in ("ask", "work") else None


async def test_redacted(path, model):
    """What is on disk is redacted, and a run is not finished with what it never gave, unless somebody wants that."""
    unit = program(model)
    await begin(path, unit, plugins=[Redacting()])
    model.breaks = False
    async with Runtime(journal=f"sqlite:///{path}", plugins=[Redacting()]):
        with pytest.raises(RunConflict, match=r"what step 'ask' \(work/ask\) gave was redacted") as caught:
            await unit.with_(run_id="a")("x")
    found = dict(rows(path, "SELECT key, output FROM nodes WHERE status = 'ok'"))
    before = dict(model.count)
    async with Runtime(journal=f"sqlite:///{path}", plugins=[Redacting()], on_change="use-recorded"):
        value = await unit.with_(run_id="a")("x")
    async with Runtime(journal=f"sqlite:///{path}", plugins=[Redacting()]):
        with pytest.raises(RunConflict, match="what flow 'work' gave was redacted before it was stored") as ended:
            await unit.with_(run_id="a")("x")
    async with Runtime(journal=f"sqlite:///{path}", on_change="use-recorded"):
        again = await unit.with_(run_id="a")("x")

    assert {"work/ask": '"*"', "work/other": '"5"', "work/show": '"5"'} == found
    assert NOTES == [note for note in caught.value.__notes__ if note.startswith("To ")]
    assert NOTES[:1] == ended.value.__notes__  # asking again is no way out of a run that has ended
    assert ("5", "*", {**before, "Last": 2}) == (value, again, model.count)


async def test_redacted_and_asked_again(path, model):
    """The other way out."""
    unit = program(model)
    await begin(path, unit, plugins=[Redacting()])
    model.breaks = False
    async with Runtime(journal=f"sqlite:///{path}", on_change="rerun-changed"):
        assert "5" == await unit.with_(run_id="a")("x")

    assert {"Ask": 2, "Other": 1, "Last": 2} == model.count


def broken(text):
    raise RuntimeError(text)


class Breaking:
    """A redactor that breaks."""

    @hookimpl
    def llmflow_redactors(self, name):
        return [broken]


async def test_a_redactor_that_breaks(path, model, caplog):
    """Nothing is stored that it should have seen, and the run is unharmed."""
    model.breaks = False
    async with Runtime(journal=f"sqlite:///{path}", plugins=[Breaking()]):
        assert "5" == await program(model).with_(run_id="a")("x")
        with pytest.raises(RunConflict, match="redacted"):
            await program(model).with_(run_id="a")("x")

    assert {(None, None)} == set(rows(path, "SELECT inputs, output FROM nodes"))
    assert 1 == sum("a redactor failed, content is not stored" in one.getMessage() for one in caplog.records)


# -- what an input is --------------------------------------------------------------------------------------------------


class Client:
    """Has no text that is the same in every process."""


async def test_what_is_beside_a_client_tells_inputs_apart(path, model):
    """A client counts by its type, and what is with it in a tuple or a dict counts as it is."""
    seen = []

    @task
    async def use(things: object) -> str:
        seen.append(things)
        return "fine"

    unit = use.with_(run_id="a")
    async with Runtime(journal=f"sqlite:///{path}"):
        await unit((Client(), "a", {"k": [1]}))
        await unit((Client(), "a", {"k": [1]}))
        for other in [
            (Client(), "b", {"k": [1]}),
            (Client(), "a", {"k": [2]}),
            (Model("a/b"), "a", {"k": [1]}),
            Client(),
        ]:
            with pytest.raises(RunConflict, match="with other inputs"):
                await unit(other)
        loop: list[object] = []
        loop.append(loop)
        assert "fine" == await use.with_(run_id="b")(loop)

    assert 2 == len(seen)
    assert {"things": [{"?": "Client"}, "a", {"k": [1]}]} == json.loads(rows(path, "SELECT inputs FROM nodes")[0][0])
