"""Whole runs of flows played again: what is as it was is neither asked nor run."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from llmflow import (
    Deadline,
    DefinitionError,
    Repair,
    Retry,
    Runtime,
    StepError,
    Wording,
    build,
    flow,
    gather,
    hookimpl,
    or_else,
    prompt,
    step,
    switch,
    task,
    when,
)
from llmflow.replay import replay_run

from .conftest import Asked, Ticket

pytestmark = pytest.mark.anyio

OTHER = Wording("Sort this! {{ message }}", origin="other.md")
MODEL = Asked()
RAN: list[str] = []


@pytest.fixture(autouse=True)
def _fresh(runtime):
    """Nothing was asked or run yet."""
    MODEL.texts.clear()
    MODEL.broken = None
    RAN.clear()


@step(MODEL.model, Repair(0), Retry.off)
def triage(message: str) -> Ticket:
    """Classify: {{ message }}"""
    return prompt()


@step(MODEL.model)
def draft(message: str, ticket: Ticket) -> str:
    """Answer this {{ ticket.category }}{% if ticket.urgent %} at once{% endif %}: {{ message }}"""
    return prompt()


@task
def fetch(number: int) -> list[str]:
    RAN.append("fetch")
    return ["a crash", "charged", f"message {number}"]


@task
def count(tickets: list[Ticket]) -> int:
    RAN.append("count")
    return len(tickets)


@task(journal=False)
def tell(text: str) -> str:
    RAN.append("tell")
    return text.upper()


@flow
async def chain(message: str) -> str:
    ticket = await triage(message)
    return await draft(message, ticket)


@flow
async def mapped(number: int) -> int:
    messages = await fetch(number)
    tickets = await triage.map(messages)
    return await count(tickets)


@flow
async def branched(message: str) -> str:
    ticket = await triage(message)
    return await when(ticket.urgent, draft("now", ticket), draft("later", ticket))


@flow
async def switched(message: str) -> str:
    ticket = await triage(message)
    return await switch(ticket.category, {"bug": draft("bug", ticket), "billing": draft("bill", ticket)})


@flow
async def gathered(message: str) -> tuple[Ticket, Ticket]:
    return await gather(triage(message), triage("another"))


@flow
async def saved(message: str) -> Ticket:
    return await or_else(triage(message), triage("instead"))


@flow
async def built(message: str) -> Ticket:
    ticket = await triage(message)
    return await build(Ticket, category=ticket.category, urgent=True)


@flow(eager=True)
async def eager(number: int) -> str:
    parts = []
    for message in await fetch(number):
        ticket = await triage(message)
        parts.append(await draft(message, ticket))
    return "; ".join(parts)


@flow(Deadline(60))
async def inner(message: str) -> str:
    return await draft(message, await triage(message))


@flow
async def outer(message: str) -> str:
    first = await inner(message)
    return await tell(first)


@flow
async def around_eager(number: int) -> str:
    return await tell(await eager(number))


@flow
async def partial(message: str) -> str:
    return await draft.partial(message="fixed")(ticket=await triage(message))


@task
async def helper(message: str) -> Ticket:
    RAN.append("helper")
    return await triage(message)


@flow
async def helped(message: str) -> Ticket:
    return await helper(message)


FLOWS = [
    (chain, "a crash"),
    (mapped, 3),
    (branched, "a crash"),
    (branched, "soon!"),
    (switched, "a crash"),
    (gathered, "a crash"),
    (saved, "a crash"),
    (saved, "broken"),
    (built, "x"),
    (eager, 3),
    (outer, "a crash"),
    (around_eager, 2),
    (partial, "a crash"),
    (helped, "a crash"),
]


async def record(runtime: Runtime, unit, value):
    """Run a flow and return its record, with nothing counted of what it took."""
    MODEL.broken = "broken"
    await unit(value)
    await runtime.journal.settled()
    MODEL.texts.clear()
    RAN.clear()
    return the_run(runtime)


def the_run(runtime: Runtime):
    """Return the only recorded run."""
    (run,) = runtime.journal.runs("last")
    return run


@pytest.mark.parametrize(("unit", "value"), FLOWS, ids=lambda one: getattr(one, "name", str(one)))
async def test_nothing_changed_sends_nothing(runtime, unit, value):
    """With nothing changed a recorded run replays with 0 requests, runs no task whose value is kept, and is equal."""
    run = await record(runtime, unit, value)
    played = await replay_run(unit, run)

    assert (True, 0, [], ()) == (played.equal, played.requests, MODEL.texts, played.divergences)
    assert set() == {*RAN} - {"tell"}
    assert (None, played.recorded) == (played.error, played.new)


async def test_a_changed_prompt_asks_its_step_and_what_follows(runtime):
    """The step with another prompt is asked; what was given other inputs by that is asked too, all else is recorded."""
    run = await record(runtime, chain, "a crash")
    played = await replay_run(chain, run, step="triage", prompt=OTHER)

    assert ["Sort this! a crash", "Answer this bug at once: a crash"] == MODEL.texts
    assert ["chain/triage", "chain/draft"] == [one.key for one in played.divergences]
    assert "was given other inputs" == played.divergences[1].what
    assert (False, 2, 0) == (played.equal, played.requests, played.nodes)
    assert [None, True] == [one.new_inputs and one.new_inputs["ticket"]["urgent"] for one in played.report.pairs]
    assert {"triage: urgent", "triage: category", "draft: (answer)"} == {*played.report.fields}


async def test_a_changed_prompt_with_an_equal_answer_changes_nothing_else(runtime):
    """When the new answer is the recorded one, what follows is as it was."""
    run = await record(runtime, chain, "a crash")
    same = Wording("Once more: {{ message }}", origin="same.md")
    played = await replay_run(chain, run, step="triage", prompt=same)

    assert (True, 1, 1) == (played.equal, played.requests, played.nodes)
    assert [True] == [one.equal for one in played.report.pairs]


async def test_another_model_is_asked_in_every_step(runtime):
    """With a model for all, every step is asked of it."""
    other = Asked("acme/two", urgent="never")
    run = await record(runtime, mapped, 3)
    played = await replay_run(mapped, run, model=other.model)

    assert (3, [], True, []) == (len(other.texts), MODEL.texts, played.equal, RAN)
    assert {"was answered by acme/one, and would be asked of acme/two"} == {one.what for one in played.divergences}


async def test_the_recorded_run_is_left_alone(runtime):
    """A replay is a run of its own; nothing of the recorded one changes, and `last` is still that one."""

    def rows(run_id: str) -> list[tuple]:
        with sqlite3.connect(runtime.journal.path) as file:
            return [*file.execute("SELECT * FROM nodes WHERE run_id = ?", (run_id,))] + [
                *file.execute("SELECT * FROM runs WHERE run_id = ?", (run_id,))
            ]

    run = await record(runtime, chain, "a crash")
    before = rows(run.run_id)
    played = await replay_run(chain, run, step="triage", prompt=OTHER)
    await runtime.journal.settled()

    assert before == rows(run.run_id)
    assert run == the_run(runtime)
    assert (played.new_run_id, 3) == (played.new_run_id, len(rows(played.new_run_id or "")))


async def test_a_run_id_is_left_behind(runtime):
    """A flow with a run id is replayed as another run."""
    named = chain.with_(run_id="one")
    run = await record(runtime, named, "a crash")
    played = await replay_run(named, run, step="triage", prompt=OTHER)

    assert ("one", 2, True) == (run.run_id, played.requests, played.new_run_id not in ("one", None))


@pytest.mark.parametrize("status", ["running", "interrupted", "cancelled"])
async def test_a_run_that_has_not_ended_is_refused(runtime, status):
    """What was not reached would be asked for the first time: that is what resuming is for."""
    run = replace(await record(runtime, chain, "a crash"), status=status)
    with pytest.raises(DefinitionError, match=f"is {status}; a run is replayed once it has ended"):
        await replay_run(chain, run)


async def test_a_changed_graph_is_reported(runtime):
    """Nodes that are new are run, and those that are gone are named."""

    @flow(eager=True)
    async def changing(message: str) -> str:
        return await draft(message, await triage(message))

    async def replacement(message: str) -> str:
        return (await triage("something else")).category

    run = await record(runtime, changing, "a crash")
    changed = flow(eager=True, name="changing")(replacement)
    played = await replay_run(changed, run)
    said = {(one.name, one.what) for one in played.divergences}

    assert {("triage", "was given other inputs"), ("draft", "is gone")} == said
    assert (False, 1) == (played.equal, played.requests)


async def test_new_and_gone_nodes_of_a_graph(runtime):
    """In a traced flow it is the same."""

    async def first(message: str) -> Ticket:
        return await triage(message)

    async def second(message: str) -> str:
        return await draft(message, await build(Ticket, category="bug"))

    run = await record(runtime, flow(name="two")(first), "a crash")
    played = await replay_run(flow(name="two")(second), run)

    assert [("two/draft", "is new"), ("two/triage", "is gone")] == [(one.key, one.what) for one in played.divergences]


async def test_tasks_run_when_they_are_to(runtime):
    """With `run_tasks` tasks run, and what they return goes on."""
    run = await record(runtime, mapped, 3)
    played = await replay_run(mapped, run, run_tasks=True)

    assert (["fetch", "count"], True, 0) == (RAN, played.equal, played.requests)


async def test_a_task_that_gave_its_value_hides_what_it_asked(runtime):
    """A step inside of a task is not looked at while the task's recorded value is taken; with `run_tasks` it is."""
    run = await record(runtime, helped, "a crash")
    hidden = await replay_run(helped, run, step="triage", prompt=OTHER)
    shown = await replay_run(helped, run, step="triage", prompt=OTHER, run_tasks=True)

    assert (0, True, ()) == (hidden.requests, hidden.equal, hidden.divergences)
    assert (1, False, 1) == (shown.requests, shown.equal, len(shown.divergences))


async def test_items_that_failed_fail_again(runtime):
    """Failures that a map collected are recorded ones too: nothing is asked, and they fail as they did."""

    @flow
    async def collecting(messages: list[str]) -> int:
        return await failures(await triage.map(messages, on_error="collect"))

    @task(journal=False)
    def failures(outcomes: list) -> int:
        return sum(isinstance(one.error, StepError) for one in outcomes)

    run = await record(runtime, collecting, ["fine", "broken", "broken too"])
    played = await replay_run(collecting, run)

    assert (2, True, 0) == (played.new, played.equal, played.requests)


async def test_a_failure_is_asked_again_with_another_prompt_or_model(runtime):
    """What failed is asked again once its prompt or model is another, and no fallback is taken for granted."""
    run = await record(runtime, saved, "broken")
    MODEL.broken = None
    prompted = await replay_run(saved, run, step="triage", prompt=OTHER)
    modelled = await replay_run(saved, run, model=Asked("acme/two").model)

    assert ["Sort this! broken"] == MODEL.texts
    assert "was asked with prompt" in prompted.divergences[0].what
    assert "failed with acme/one, and would be asked of acme/two" == modelled.divergences[0].what


async def test_a_run_that_failed_fails_as_it_did(runtime):
    """A failed run replays with 0 requests too, to the same failure."""
    MODEL.broken = "broken"
    with pytest.raises(StepError) as failed:
        await chain("broken")
    MODEL.texts.clear()
    played = await replay_run(chain, the_run(runtime))

    assert (0, True, None, []) == (played.requests, played.failed_before, played.equal, MODEL.texts)
    assert (type(failed.value), str(failed.value)) == (type(played.error), str(played.error))


class Odd(Exception):
    """A failure that nobody else can raise."""


@task
def odd(number: int) -> int:
    RAN.append("odd")
    raise Odd(number)


@task
def usual(number: int) -> int:
    RAN.append("usual")
    raise ZeroDivisionError(number)


@task
def undecodable(number: int) -> int:
    RAN.append("undecodable")
    b"\xff".decode()
    return number


@pytest.mark.parametrize(("unit", "name"), [(undecodable, "UnicodeDecodeError"), (odd, "Odd")])
async def test_a_failure_that_cannot_be_made_again_is_told_in_words(runtime, unit, name):
    """It becomes a StepError that names it; the task is not run for that."""

    @flow(name="broken_text")
    async def broken_text(number: int) -> int:
        return await unit(number)

    with pytest.raises((UnicodeDecodeError, Odd)):
        await broken_text(1)
    await runtime.journal.settled()
    RAN.clear()
    played = await replay_run(broken_text, the_run(runtime))

    assert (StepError, []) == (type(played.error), RAN)
    assert f"{name}: " in str(played.error)


@pytest.mark.parametrize(("unit", "error"), [(odd, Odd), (usual, ZeroDivisionError), (undecodable, UnicodeDecodeError)])
async def test_failures_of_tasks_are_recorded_too(runtime, unit, error):
    """A task that failed is not run again, whether its failure can be raised again or its fallback is taken at once."""

    @flow(name="odd_flow")
    async def odd_flow(number: int) -> int:
        return await or_else(unit(number), 7, on=(error,))

    run = await record(runtime, odd_flow, 1)
    played = await replay_run(odd_flow, run)

    assert (7, True, []) == (played.new, played.equal, RAN)


async def test_a_new_failure_is_shown(runtime):
    """A run that went well and fails now says with what; its pair has the failure."""
    run = await record(runtime, chain, "a crash")
    MODEL.broken = "Sort"
    played = await replay_run(chain, run, step="triage", prompt=OTHER)

    assert ("InvalidOutput", None, False) == (type(played.error).__name__, played.new, played.equal)
    assert ["InvalidOutput"] == [one.error for one in played.report.pairs]
    assert 1 == played.requests


async def test_a_judge_is_asked_about_answers_that_differ(runtime):
    """The judge sees what the step was given and both values."""
    run = await record(runtime, chain, "a crash")
    seen = []

    def judge(inputs, recorded, new):
        seen.append((inputs, recorded, new))
        return True

    played = await replay_run(chain, run, step="triage", prompt=OTHER, judge=judge)

    assert ({"message": "a crash"}, Ticket(category="bug"), Ticket(category="bug", urgent=True)) == seen[0]
    assert {"same": 2} == played.report.judged


async def test_a_judge_that_cannot_be_asked_is_refused(runtime):
    """Before anything of the run is played."""
    run = await record(runtime, chain, "a crash")
    with pytest.raises(DefinitionError, match=r"judge <lambda>\(\) cannot be asked"):
        await replay_run(chain, run, step="triage", prompt=OTHER, judge=lambda: True)


async def test_a_judge_that_is_a_step_is_a_run_of_its_own(runtime):
    """What a judging step asks is no part of the replayed run."""
    run = await record(runtime, chain, "a crash")
    judging = Asked("acme/judge")

    @step(judging.model)
    def verdict(inputs: dict, recorded: object, new: object) -> str:
        return prompt("better?")

    played = await replay_run(chain, run, step="triage", prompt=OTHER, judge=verdict)

    assert (2, 2) == (len(judging.texts), played.requests)


async def test_hashes_cannot_be_replayed(tmp_path):
    """Without its inputs a run cannot be replayed, and says so."""
    with Runtime(journal=f"sqlite:///{tmp_path / 'h.db'}", store_content=False) as runtime, runtime.override():
        await chain("a crash")
        await runtime.journal.settled()
        with pytest.raises(DefinitionError, match="not stored, only their hash"):
            await replay_run(chain, the_run(runtime), runtime=runtime)


class Blacken:
    """A plugin that redacts."""

    @hookimpl
    def llmflow_redactors(self, name):
        """Take a word out."""
        return [lambda text: text.replace("secret", "***")]


@pytest.mark.parametrize(("message", "error"), [("a secret", "were redacted"), ("open", None)])
async def test_redacted_inputs_cannot_be_replayed(tmp_path, message, error):
    """A run whose inputs were redacted is refused; one with nothing to redact is not."""
    path = f"sqlite:///{tmp_path / 'r.db'}"
    with Runtime(journal=path, plugins=[Blacken()]) as runtime, runtime.override():
        await chain(message)
        await runtime.journal.settled()
        if error is None:
            assert 0 == (await replay_run(chain, the_run(runtime), runtime=runtime)).requests
        else:
            with pytest.raises(DefinitionError, match=error):
                await replay_run(chain, the_run(runtime), runtime=runtime)


async def test_inputs_that_no_longer_fit_are_refused(runtime):
    """A flow that takes something else cannot be given what was recorded."""

    @flow(name="chain")
    async def other(message: int) -> int:
        return message

    run = await record(runtime, chain, "a crash")
    with pytest.raises(DefinitionError, match="do not fit flow 'chain': argument 'message' does not fit any more"):
        await replay_run(other, run)


async def test_a_named_run_in_memory_can_be_replayed():
    """A run with an id is recorded in memory too."""
    with Runtime() as runtime, runtime.override():
        await chain.with_(run_id="order-1")("a crash")
        MODEL.texts.clear()
        with runtime.journal.reading() as tables:
            assert [(1,)] == tables.execute("SELECT count(*) FROM runs").fetchall()
        run = _in_memory(runtime)
        played = await replay_run(chain, run, runtime=runtime)

    assert (True, 0, []) == (played.equal, played.requests, MODEL.texts)


def _in_memory(runtime):
    from llmflow.stores._claims import runs_named

    with runtime.journal.reading() as tables:
        return runs_named(tables, "order-1")[0]


async def test_other_steps_keep_their_files(tmp_path):
    """A prompt for one step leaves the prompt files of the others as they are."""
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "draft.md").write_text("File: {{ message }} {{ ticket.category }}")
    path = f"sqlite:///{tmp_path / 'files.db'}"
    with Runtime(journal=path, prompts=tmp_path / "prompts") as runtime, runtime.override():
        run = await record(runtime, chain, "a crash")
        same = Wording("Once more: {{ message }}", origin="same.md")
        played = await replay_run(chain, run, step="triage", prompt=same, runtime=runtime)

    assert (["Once more: a crash"], True, 1) == (MODEL.texts, played.equal, played.nodes)


async def test_an_answer_that_no_longer_fits_is_asked_again(runtime):
    """A version given by hand may hide another type; what was recorded is then of no use."""

    def made(returns: type):
        async def only(message: str):
            return await ask(message)

        def asking(message: str):
            return prompt(message)

        asking.__annotations__["return"] = returns
        only.__annotations__["return"] = object
        ask = step(MODEL.model, Repair(0), name="asking", version="v1")(asking)
        return flow(eager=True, name="only")(only)

    run = await record(runtime, made(Ticket), "a crash")
    played = await replay_run(made(str), run)

    assert ["gave what no longer fits its type"] == [one.what for one in played.divergences]
    assert (1, ["a crash"]) == (played.requests, MODEL.texts)


async def test_a_node_that_had_not_ended_is_asked(runtime):
    """In a failed run, what was cancelled by the failure has no answer yet."""
    run = await record(runtime, chain, "a crash")
    with sqlite3.connect(runtime.journal.path) as file:
        file.execute("UPDATE nodes SET status = 'cancelled', output = NULL WHERE name = 'draft'")
    played = await replay_run(chain, run)

    assert [("draft", "had not ended")] == [(one.name, one.what) for one in played.divergences]
    assert (1, ()) == (played.requests, tuple(played.report.pairs))
