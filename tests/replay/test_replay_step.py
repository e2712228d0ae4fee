"""Recorded answers of a step played again: which stand, which are asked, and what is said of them."""

from __future__ import annotations

import enum
import sqlite3
from decimal import Decimal
from types import SimpleNamespace

import pytest
from pydantic import BaseModel

from llmflow import (
    Budget,
    Cache,
    DefinitionError,
    Fallback,
    Model,
    Repair,
    Retry,
    Runtime,
    Wording,
    flow,
    hookimpl,
    prompt,
    step,
)
from llmflow.context import runtimes
from llmflow.replay import play, prepare, reading_of, replay_step, replaying, verdict
from llmflow.stores._journal_past import past_answers

from .conftest import Asked, Ticket

pytestmark = pytest.mark.anyio

MESSAGES = ("it crashes!", "charged twice", "a crash")
OTHER = Wording("Sort this! {{ message }}", origin="other.md")


@pytest.fixture
def triage(asked):
    """The step of these tests."""

    @step(asked.model, Repair(0), Retry.off)
    def triage(message: str) -> Ticket:
        """Classify: {{ message }}"""
        return prompt()

    return triage


@pytest.fixture
async def recorded(triage, asked, runtime):
    """Three recorded answers, and nothing counted of what they took."""
    for message in MESSAGES:
        await triage(message)
    await runtime.journal.settled()
    asked.texts.clear()


def rows(runtime, statement: str) -> list[tuple]:
    """Read the file of the journal."""
    with sqlite3.connect(runtime.journal.path) as connection:
        return connection.execute(statement).fetchall()


async def test_nothing_changed_sends_nothing(recorded, triage, asked):
    """With the same prompt and model every recorded answer stands: 0 requests."""
    report = await replay_step(triage)

    assert (3, 3, 0, []) == (len(report.pairs), report.equal, report.requests, asked.texts)
    assert "3 answers stand as recorded: same prompt, same model, 0 requests" == verdict(report)


async def test_another_prompt_is_asked_of_all(recorded, triage, asked):
    """Recorded inputs go through the other wording; answers are compared field by field."""
    report = await replay_step(triage, prompt=OTHER)
    fields = {path: (one.equal, one.different) for path, one in report.fields.items()}

    assert sorted(f"Sort this! {one}" for one in MESSAGES) == sorted(asked.texts)
    assert {"category": (3, 0), "urgent": (1, 2)} == fields
    assert 1 == report.equal
    assert verdict(report).startswith("1 of 3 answers agrees; 2 differ in urgent; costs as much; p95 ")


async def test_another_model_is_asked(recorded, triage, asked):
    """A model that did not give the recorded answers is asked, without fallbacks."""
    other = Asked("acme/two")
    report = await replay_step(triage, model=other.model)

    assert ([], 3, 3) == (asked.texts, len(other.texts), report.equal)
    assert {("acme/one", "acme/two")} == {(one.recorded_model, one.model) for one in report.pairs}


async def test_a_fallback_that_answered_is_no_change(asked, runtime):
    """An answer of a fallback stands while the step may still ask that model."""

    async def down(_):
        raise DefinitionError("never asked again") if down.asked else OSError("down")

    down.asked = False

    @step(Model("acme/down", handler=down), Fallback(asked.model, on=(OSError,)), Retry.off)
    def triage(message: str) -> Ticket:
        return prompt(message)

    await triage("a crash")
    down.asked = True
    report = await replay_step(triage)

    assert (1, 0, "acme/one") == (report.equal, report.requests, report.pairs[0].model)


async def test_only_what_changed_is_asked(triage, asked, runtime):
    """Among answers of several prompts only those of other ones are asked."""
    await triage("one")
    await triage.with_(params={"temperature": 0.5})("two")
    asked.texts.clear()
    report = await replay_step(triage)

    assert (["Classify: two"], 2, 1) == (asked.texts, len(report.pairs), len(report.asked))


async def test_last_takes_the_latest(recorded, triage):
    """`last` counts from the newest."""
    report = await replay_step(triage, last=2)

    assert ["a crash", "charged twice"] == [one.inputs["message"] for one in report.pairs]


async def test_one_run_and_since(recorded, triage, runtime):
    """Answers can be chosen by run and by time."""
    ((run, started), *_) = rows(runtime, "SELECT run_id, started FROM runs ORDER BY started DESC")

    assert ["a crash"] == [one.inputs["message"] for one in (await replay_step(triage, run_id=run)).pairs]
    assert 1 == len((await replay_step(triage, since=started)).pairs)


async def test_a_replay_is_no_record_of_what_was(recorded, triage, runtime):
    """What a replay asks is in the journal with its cost, but is not replayed itself."""
    await replay_step(triage, prompt=OTHER)
    await runtime.journal.settled()
    again = await replay_step(triage, prompt=OTHER)
    await runtime.journal.settled()

    assert 3 == len(again.pairs)
    assert [(6,)] == rows(runtime, "SELECT count(*) FROM runs WHERE command LIKE '{\"replay\"%'")
    assert [(9,)] == rows(runtime, "SELECT count(*) FROM attempts WHERE cost_nano = 120000")


async def test_the_recorded_answers_are_left_alone(recorded, triage, runtime):
    """A replay changes nothing of what it replays."""
    statement = "SELECT * FROM nodes ORDER BY run_id"
    before = rows(runtime, statement)
    await replay_step(triage, prompt=OTHER)
    await runtime.journal.settled()

    assert before == [one for one in rows(runtime, statement) if one in before]
    assert 3 == len(before)


async def test_new_answers_that_fail_are_counted(recorded, triage, asked):
    """A new answer that is not valid has no fields, and the kind of its failure is counted; it costs all the same."""
    asked.broken = "twice"
    report = await replay_step(triage, prompt=OTHER)
    (failed,) = [one for one in report.pairs if one.error is not None]

    assert ({"InvalidOutput": 1}, 2, False, {}) == (report.failed, report.valid, failed.equal, failed.fields)
    assert (1, Decimal("0.00011")) == (failed.requests, failed.cost_usd)
    assert "1 failed (InvalidOutput 1)" in verdict(report)


async def test_a_run_id_is_left_behind(triage, asked, runtime):
    """A step with a run id has its answer replayed as another run, not given again as that one."""
    named = triage.with_(run_id="one")
    await named("a crash")
    report = await replay_step(named, prompt=OTHER)

    assert (1, True) == (report.requests, report.pairs[0].new_run_id not in ("one", None))


async def test_the_budget_of_a_step_holds(recorded, triage):
    """Policies of the step act on a replay; what a budget refuses has failed, and sent nothing."""
    tight = triage.with_(Budget(calls=2, per="total", name="replay"))
    report = await replay_step(tight, prompt=OTHER, concurrency=1)

    assert ({"BudgetExceeded": 1}, 2) == (report.failed, report.requests)


async def test_a_budget_per_run_is_one_for_each_answer(recorded, triage):
    """Each answer is a run of its own, as it was, so a budget per run does not add them up."""
    report = await replay_step(triage.with_(Budget(calls=1)), prompt=OTHER)

    assert ({}, 3) == (report.failed, report.requests)


async def test_answers_do_not_come_from_the_cache(asked, runtime):
    """New answers are asked for, unless the cache is wanted; one that was recorded from it says nothing of cost."""

    @step(asked.model, Cache("1h"))
    def triage(message: str) -> Ticket:
        """Classify: {{ message }}"""
        return prompt()

    await triage("a crash")
    await triage("a crash")
    asked.texts.clear()
    fresh = await replay_step(triage, prompt=OTHER)
    await replay_step(triage, prompt=OTHER, cache=True)
    cached = await replay_step(triage, prompt=OTHER, cache=True)

    assert [False, True] == sorted(one.recorded_cached for one in fresh.pairs)
    assert (2, 0) == (fresh.requests, cached.requests)
    assert (1, 2) == (fresh.then.priced, fresh.now.priced)


async def test_costs_that_are_unknown_are_said_to_be(asked, runtime):
    """Where no price is known, whether it costs more is not either."""
    bare = Model("acme/bare", handler=asked.model.handler)

    @step(bare)
    def triage(message: str) -> Ticket:
        """Classify: {{ message }}"""
        return prompt()

    await triage("a crash")
    report = await replay_step(triage, prompt=OTHER)

    assert (1, 0, None) == (report.then.unpriced, report.then.priced, report.then.cost_each_usd)
    assert "whether it costs more is unknown" in verdict(report)


# -- inputs ------------------------------------------------------------------------------------------------------------


class Mail(BaseModel):
    """An input that is a model."""

    subject: str
    body: bytes = b""


def sorter(asked, of: type, name: str = "sorter", **more):
    """A step over one model, as its type is now."""

    def ask(mail: of, lang: str = "en") -> Ticket:  # type: ignore[valid-type]
        return prompt(f"{lang} {mail!r}", **more)

    return step(asked.model, name=name)(ask)


async def test_inputs_come_back_as_their_types(asked, runtime):
    """Models, bytes and fixed arguments are what they were: the prompt is the same text."""
    sort = sorter(asked, Mail)
    await sort.partial(lang="de")(Mail(subject="x", body=b"ab"))
    report = await replay_step(sort, model=Asked("acme/two").model)
    first = asked.texts[0]

    assert (True, None) == (report.pairs[0].is_exact, report.pairs[0].error)
    assert "de Mail(subject='x', body=b'ab')" == first


async def test_inputs_that_no_longer_fit_are_counted(asked, runtime):
    """What the parameters would not take is left out, and said by parameter and field, without the value."""
    await sorter(asked, Mail)(Mail(subject="secret"))

    class Mail2(BaseModel):
        subject: int

    asked.texts.clear()
    report = await replay_step(sorter(asked, Mail2), model=Asked("acme/two").model)
    ((why, number),) = report.skipped.items()

    assert (1, [], ()) == (number, asked.texts, tuple(report.pairs))
    assert why.startswith("their inputs do not fit step 'sorter': argument 'mail' does not fit any more: subject: ")
    assert "secret" not in why


async def test_inputs_that_have_changed_are_said_to_have(asked, runtime):
    """A type that got a field still takes the recorded inputs; that they are not what they were is marked."""
    await sorter(asked, Mail)(Mail(subject="x"))

    class Mail2(Mail):
        priority: int = 3

    report = await replay_step(sorter(asked, Mail2), model=Asked("acme/two").model)

    assert [False] == [one.is_exact for one in report.pairs]


async def test_arguments_that_could_not_be_stored_are_counted(asked, runtime):
    """A client among the arguments is only known by its type."""

    @step(asked.model)
    def triage(message: str, client: SimpleNamespace) -> Ticket:
        return prompt(message)

    await triage("x", SimpleNamespace())
    report = await replay_step(triage, model=Asked("acme/two").model)

    assert [
        "their inputs do not fit step 'triage': argument 'client' could not be stored, it is a SimpleNamespace"
    ] == [*report.skipped]


async def test_gone_and_new_parameters_are_counted(recorded, asked):
    """A parameter that is gone, or a new one without default, cannot be filled."""

    @step(asked.model, name="triage")
    def renamed(text: str) -> Ticket:
        """{{ text }}"""
        return prompt()

    @step(asked.model, name="triage")
    def more(message: str, lang: str) -> Ticket:
        """{{ message }} {{ lang }}"""
        return prompt()

    assert {"their inputs do not fit step 'triage': there is no parameter 'message' any more": 3} == (
        await replay_step(renamed)
    ).skipped
    assert {"their inputs do not fit step 'triage': parameter 'lang' was not given then": 3} == (
        await replay_step(more)
    ).skipped


async def test_a_method_is_asked_of_its_object(asked, runtime):
    """The object of a step that is a method is not recorded; it is the one that the step is taken from."""

    class Desk:
        def __init__(self, word: str) -> None:
            self.word = word

        @step(asked.model)
        def triage(self, message: str) -> Ticket:
            return prompt(f"{self.word} {message}")

    await Desk("first").triage("a crash")
    asked.texts.clear()
    await replay_step(Desk("second").triage.with_(params={"seed": 1}))

    assert ["second a crash"] == asked.texts


async def test_only_hashes_cannot_be_replayed(asked, tmp_path):
    """With store_content=False there is nothing to replay; the answers are counted."""
    with Runtime(journal=f"sqlite:///{tmp_path / 'hashes.db'}", store_content=False) as runtime, runtime.override():

        @step(asked.model)
        def triage(message: str) -> Ticket:
            return prompt(message)

        await triage("x")
        report = await replay_step(triage, runtime=runtime)

    assert ((), {"only their hashes are stored": 1}) == (tuple(report.pairs), report.skipped)
    assert "there was nothing to replay; 1 answer could not be replayed" == verdict(report)


class Blacken:
    """A plugin that redacts."""

    @hookimpl
    def llmflow_redactors(self, name):
        """Take a word out."""
        return [lambda text: text.replace("secret", "***")]


async def test_redacted_answers_are_counted(asked, tmp_path):
    """What was redacted before it was stored is not what was asked, so it is left out."""
    path = tmp_path / "redacted.db"
    with Runtime(journal=f"sqlite:///{path}", plugins=[Blacken()]) as runtime, runtime.override():

        @step(asked.model)
        def triage(message: str) -> Ticket:
            return prompt(message)

        await triage("secret")
        await triage("open")
        report = await replay_step(triage, runtime=runtime)

    assert (["open"], {"their inputs were redacted before they were stored": 1}) == (
        [one.inputs["message"] for one in report.pairs],
        report.skipped,
    )


async def test_a_schema_that_changed_is_compared_with_what_was(recorded, asked):
    """An answer of another shape shows which fields are gone and new."""

    class Ticket2(BaseModel):
        category: str
        score: int = 1

    @step(asked.model, name="triage")
    def triage(message: str) -> Ticket2:
        """Classify: {{ message }}"""
        return prompt()

    report = await replay_step(triage)
    fields = {path: (one.missing, one.added) for path, one in report.fields.items()}

    assert {"category": (0, 0), "urgent": (3, 0), "score": (0, 3)} == fields


async def test_a_fixed_version_does_not_hide_another_type(asked, runtime):
    """With `version=` the same, an answer that no longer fits the type is asked anew."""

    def one(returns: type):
        def triage(message: str):
            return prompt(message)

        triage.__annotations__["return"] = returns
        return step(asked.model, version="v1")(triage)

    class Stricter(Ticket):
        score: int = 1
        model_config = {"extra": "forbid"}

    class Narrow(BaseModel):
        urgent: bool
        model_config = {"extra": "ignore"}
        colour: str = "red"

    await one(Ticket)("a crash")
    asked.texts.clear()
    assert 0 == (await replay_step(one(Stricter))).requests

    class Needs(BaseModel):
        colour: str

    report = await replay_step(one(Needs).with_(Repair(0), Retry.off))
    assert ("its answer no longer fits the type", "InvalidOutput") == (report.pairs[0].why, report.pairs[0].error)


async def test_labels_name_a_prompt(asked, tmp_path):
    """A label asks with the wording the runtime has under it, also where the step's calls are shared out."""
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "triage.md").write_text("File: {{ message }}")
    (folder / "triage@canary.md").write_text("Canary: {{ message }}")
    with Runtime(journal=f"sqlite:///{tmp_path / 'labels.db'}", prompts=folder) as runtime, runtime.override():

        @step(asked.model)
        def triage(message: str) -> Ticket:
            """Code: {{ message }}"""
            return prompt()

        await triage("x")
        await replay_step(triage, prompt="canary")
        await replay_step(triage, prompt=OTHER)
        with pytest.raises(DefinitionError, match="no prompt with the label 'gone'"):
            await replay_step(triage, prompt="gone")

    assert ["File: x", "Canary: x", "Sort this! x"] == asked.texts


async def test_variants_stand_whichever_was_drawn(asked, tmp_path):
    """An answer of any variant that a step still has stands."""
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "triage@a.md").write_text("A: {{ message }}")
    (folder / "triage@b.md").write_text("B: {{ message }}")
    variants = {"triage": {"a": 1, "b": 1}}
    path = f"sqlite:///{tmp_path / 'variants.db'}"
    with Runtime(journal=path, prompts=folder, variants=variants) as runtime, runtime.override():

        @step(asked.model)
        def triage(message: str) -> Ticket:
            return prompt()

        for number in range(12):
            await triage(f"{number}")
        report = await replay_step(triage)
        await replay_step(triage, prompt="a")

    drawn = {one.recorded_prompt_version for one in report.pairs}
    assert (2, 0) == (len(drawn), report.requests)
    assert 12 == sum(one.startswith("A:") for one in asked.texts)


# -- the judge ---------------------------------------------------------------------------------------------------------


class Word(enum.Enum):
    """A verdict that is an enum."""

    BETTER = "better"


@pytest.mark.parametrize(
    ("said", "verdict", "score"),
    [
        (True, "same", None),
        (False, "worse", None),
        (0.5, "same", 0.5),
        (1, "better", 1.0),
        (0, "worse", 0.0),
        ("better", "better", None),
        (" Worse\n", "worse", None),
        (Word.BETTER, "better", None),
    ],
)
async def test_what_a_judge_may_say(recorded, triage, said, verdict, score):
    """A bool, a number from 0 to 1 or a word; only answers that differ are judged."""
    report = await replay_step(triage, prompt=OTHER, judge=lambda inputs, recorded, new: said)

    assert ({verdict: 2}, score) == (report.judged, report.judge_score)


@pytest.mark.parametrize("said", [None, 2, -0.1, float("nan"), "good", [True]])
async def test_a_judge_that_says_something_else_gives_no_verdict(recorded, triage, said):
    """What is none of these is said, and counts for nothing."""
    report = await replay_step(triage, prompt=OTHER, judge=lambda *_: said)
    ((error, number),) = report.unjudged.items()

    assert (2, {}, 1) == (number, report.judged, report.acceptable)
    assert error.startswith(f"it said {said!r}, expected True or False")


@pytest.mark.parametrize("wrong", [lambda: True, lambda recorded, new: True, lambda *, inputs, recorded, new: True])
async def test_a_judge_that_cannot_be_asked_is_refused(recorded, triage, asked, wrong):
    """Before anything is asked that it would judge."""
    with pytest.raises(
        DefinitionError, match="cannot be asked: .*; it is given the inputs by name, the recorded answer"
    ):
        await replay_step(triage, prompt=OTHER, judge=wrong)

    assert [] == asked.texts


async def test_a_judge_that_says_nothing_about_itself_is_taken(recorded, triage):
    """What is built in may have no signature; it is asked, and what it does is seen."""
    report = await replay_step(triage, prompt=OTHER, judge=min)

    assert 2 == sum(report.unjudged.values())


async def test_a_broken_judge_does_not_end_the_replay(recorded, triage):
    """A judge that raises gives no verdict; why is counted."""

    def judge(inputs, recorded, new):
        raise KeyError(inputs["message"])

    report = await replay_step(triage, prompt=OTHER, judge=judge)

    assert (3, {"KeyError: 'a crash'", "KeyError: 'charged twice'"}) == (len(report.pairs), {*report.unjudged})
    assert "the judge gave no verdict on 2" in verdict(report)


async def test_a_judge_sees_values(recorded, triage):
    """It is given the arguments by name and both answers as the author's own class; it may be async."""
    seen = []

    async def judge(inputs, recorded, new):
        seen.append((inputs["message"], recorded, new))
        return new.urgent

    report = await replay_step(triage, prompt=OTHER, judge=judge, concurrency=1)

    assert ("a crash", Ticket(category="bug"), Ticket(category="bug", urgent=True)) == seen[0]
    assert (3, 1, 1.0) == (report.acceptable, report.equal, report.agreement)


async def test_a_step_may_judge(recorded, triage, runtime):
    """A step as judge is a run like any other, and what it costs is known."""
    judging = Asked("acme/judge")

    @step(judging.model)
    def judge(inputs: dict[str, object], recorded: Ticket, new: Ticket) -> bool:
        return prompt(f"{inputs['message']}: {recorded.urgent} or {new.urgent}?")

    report = await replay_step(triage, prompt=OTHER, judge=judge, concurrency=1)
    judged = [one.judgement for one in report.pairs if one.judgement]

    assert ["a crash: False or True?", "charged twice: False or True?"] == judging.texts[:1] + judging.texts[-1:]
    assert all(one.error is not None and "InvalidOutput" in one.error for one in judged)
    assert all(one.cost_usd for one in judged)


# -- wrong use ---------------------------------------------------------------------------------------------------------


async def test_a_definition_error_ends_the_replay(recorded, triage):
    """What is wrong with the step itself is no failure of an answer."""
    with pytest.raises(DefinitionError):
        await replay_step(triage, model="nowhere/model")


async def test_a_journal_that_is_only_written_is_refused(triage):
    """A journal of a third party that cannot be read back is named."""

    class Deaf:
        async def claim(self, run): ...

        def write(self, note): ...

        async def settled(self): ...

        async def aclose(self): ...

    class Plugin:
        @hookimpl
        def llmflow_store(self, url):
            return Deaf() if url == "deaf://" else None

    with (
        Runtime(journal="deaf://", plugins=[Plugin()]) as runtime,
        pytest.raises(DefinitionError, match="cannot be read back"),
    ):
        await replay_step(triage, runtime=runtime)


async def test_a_journal_in_memory_has_what_was_named(asked):
    """In memory only runs with an id are recorded with their content; those can be replayed."""
    with Runtime() as runtime, runtime.override():

        @step(asked.model)
        def triage(message: str) -> Ticket:
            """Classify: {{ message }}"""
            return prompt()

        await triage.with_(run_id="one")("a crash")
        await triage("unnamed")
        report = await replay_step(triage)

    assert (["a crash"], 0) == ([one.inputs["message"] for one in report.pairs], report.requests)


async def test_answers_inside_a_flow_are_found(asked, runtime):
    """Answers of a step are found wherever it was called: alone, in a flow, in a map."""

    @step(asked.model)
    def triage(message: str) -> Ticket:
        """Classify: {{ message }}"""
        return prompt()

    @flow
    async def all_of(messages: list[str]) -> list[Ticket]:
        return await triage.map(messages)

    await all_of(["a", "b"])
    await triage.map(["c"])
    await triage("d")
    report = await replay_step(triage)

    assert ({"a", "b", "c", "d"}, 0) == ({one.inputs["message"] for one in report.pairs}, report.requests)


async def test_a_judge_sees_json_where_the_type_has_changed(recorded, asked):
    """A recorded answer that no longer fits the type is shown to the judge as JSON has it."""

    class Strict(BaseModel):
        model_config = {"extra": "forbid"}
        category: str

    @step(Model("acme/strict", handler=_bug), name="triage")
    def strict(message: str) -> Strict:
        """Classify: {{ message }}"""
        return prompt()

    seen = []
    await replay_step(strict, judge=lambda inputs, recorded, new: seen.append((recorded, new)) or "worse")

    assert ({"category": "bug", "urgent": False}, Strict(category="bug")) in seen


async def _bug(_) -> str:
    return '{"category": "bug"}'


async def test_what_cannot_be_written_ends_the_replay(recorded, triage):
    """An error of whoever takes the pairs leaves as itself, and not in a group."""
    around = runtimes.current()
    answers = past_answers(reading_of(around), step="triage").answers

    def full(_):
        raise OSError(28, "no space left")

    with replaying(around, of="triage") as inside, pytest.raises(OSError, match="no space left"):
        await play(prepare(answers, lambda _: triage, inside), on_pair=full)
