"""Reports in words, steps found in flows, and inputs made again."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Annotated, Any

import pytest

from llmflow import Deadline, DefinitionError, Fallback, RateLimit, Retry, flow, prompt, step, task
from llmflow.journal import RecordedAnswer
from llmflow.replay import Divergence, Judgement, Pair, Report, RunReplay, share, step_in, verdict
from llmflow.replay._inputs import Misfit, restore
from llmflow.replay._recorded import Script

from .conftest import Asked, Ticket

MODEL = Asked().model


def pair(**given: Any) -> Pair:
    """Return a pair that was asked anew, with what is given."""
    known: dict[str, Any] = {
        "run_id": "r",
        "key": "k",
        "step": "s",
        "inputs": {},
        "recorded": 1,
        "new": 1,
        "asked": True,
        "fields": {"a": "equal"},
        "cost_usd": Decimal(1),
        "recorded_cost_usd": Decimal(1),
        "latency_s": 1.0,
        "recorded_latency_s": 1.0,
    }
    return Pair(**known | given)


def said(*pairs: Pair, **more: Any) -> str:
    """Return the verdict of some pairs."""
    return verdict(Report(pairs=pairs, **more))


def test_a_verdict_of_nothing():
    """Nothing to replay is said, and how much was left out."""
    assert "there was nothing to replay" == said()
    assert said(skipped={"gone": 2, "hashed": 1}).endswith("; 3 answers could not be replayed")


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        ("1", "0.6", "costs 40 % less"),
        ("1", "1.5", "costs 50 % more"),
        ("3", "3.05", "costs 1.7 % more"),
        ("1", "1", "costs as much"),
        ("0", "0", "costs nothing, as before"),
        ("0", "1", "costs something, and cost nothing before"),
        (None, "1", "whether it costs more is unknown"),
        ("1", None, "whether it costs more is unknown"),
    ],
)
def test_what_it_costs(then, now, expected):
    """Cost is compared per call; what is unknown is not guessed."""
    one = pair(cost_usd=now and Decimal(now), recorded_cost_usd=then and Decimal(then))

    assert f"1 of 1 answers agrees; {expected}; p95 1.0 s instead of 1.0 s" == said(one)


def test_what_differs():
    """The fields that differ most are named, the others counted."""
    states = {"a": "different", "b": "missing", "c": "added", "d": "different", "e": "equal"}

    assert "; 1 differs in a, 1 in b, 1 in c and in 1 more fields; " in said(pair(fields=states))
    assert "; 2 differ in a, 1 in b; " in said(
        pair(fields={"a": "different"}), pair(fields={"a": "added", "b": "added"})
    )


def test_what_stands_beside_what_was_asked():
    """Answers that stand are counted apart."""
    assert said(pair(), pair(asked=False)).startswith("2 of 2 answers agree; 1 stands as recorded; ")


def test_what_was_judged():
    """Words of the judge are counted, and its failures."""
    words = [pair(fields={"a": "different"}, judgement=Judgement(verdict=one)) for one in ("better", "worse", "worse")]
    failed = pair(fields={"a": "different"}, judgement=Judgement(error="no"))

    assert "of 3 that were judged 1 better, 0 same, 2 worse; the judge gave no verdict on 1" in said(*words, failed)


def test_percentiles_are_of_the_nearest_rank():
    """As all reports have them; answers that failed or came from a cache are not among them."""
    pairs = [pair(latency_s=float(one), recorded_latency_s=float(one)) for one in range(1, 21)]
    odd = [pair(error="InvalidOutput", latency_s=99.0, recorded_cached=True)]
    report = Report(pairs=[*pairs, *odd])

    assert (10.0, 19.0, 20) == (report.now.p50_s, report.now.p95_s, report.now.answers)
    assert (10.0, 19.0, 20, 20) == (report.then.p50_s, report.then.p95_s, report.then.answers, report.then.priced)


def test_a_share_has_its_count():
    """A percentage never stands alone."""
    assert ("66.7 % (2 of 3)", "-") == (share(2, 3), share(0, 0))


def played(**given: Any) -> RunReplay:
    """Return a run that was played again."""
    known: dict[str, Any] = {
        "run_id": "r",
        "new_run_id": "n",
        "recorded": 1,
        "new": 1,
        "equal": True,
        "error": None,
        "failed_before": False,
        "nodes": 2,
        "divergences": (),
        "report": Report(),
        "requests": 0,
        "cost_usd": Decimal(0),
    }
    return RunReplay(**known | given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "0 requests, the value is equal"),
        ({"equal": False, "requests": 1, "cost_usd": None}, "1 request, cost unknown, the value is another one"),
        ({"equal": None}, "0 requests, its value then was not stored, so it cannot be compared"),
        ({"error": ValueError("x")}, "0 requests, fails with ValueError: x"),
        ({"error": ValueError("x"), "failed_before": True}, "0 requests, fails with ValueError: x, as it did"),
    ],
)
def test_a_run_in_one_sentence(given, expected):
    """What became of a run that was played again."""
    from llmflow.cli._replay_words import run_sentence

    assert f"run r: 2 nodes as recorded, 0 divergences, {expected}" == run_sentence(played(**given))


# -- steps -------------------------------------------------------------------------------------------------------------


@step(MODEL)
def triage(message: str, lang: str = "en") -> Ticket:
    """{{ lang }} {{ message }}"""
    return prompt()


def past(key: str, name: str = "triage") -> RecordedAnswer:
    """Return a recorded answer at a place."""
    return RecordedAnswer(run_id="r", key=key, name=name, kind="step", status="ok")


def test_a_step_is_found_at_its_place():
    """Of two uses of a step in a flow the one whose place it is, with its options and all its arguments."""

    @flow
    async def two(message: str) -> tuple[Ticket, Ticket]:
        return (await triage.partial(lang="de")(message), await triage.with_(params={"seed": 7})(message))

    first, second = step_in(two, past("two/triage")), step_in(two, past("two/triage#2"))

    assert (("message", "lang"), {}) == (first.signature.names, first.params)
    assert {"seed": 7} == second.params


def test_policies_around_a_step_come_with_it():
    """Those of all flows around, the nearest first, where the step has none of the kind."""

    @flow(Deadline(30), Retry(5))
    async def inner(message: str) -> Ticket:
        return await triage.with_(Retry(2))(message)

    @flow(Fallback(Asked("acme/two").model), Deadline(90), RateLimit(requests=5))
    async def outer(message: str) -> Ticket:
        return await inner(message)

    found = step_in(outer, past("outer/inner/triage"))
    kinds = {type(one).__name__: one for one in found.policies}

    assert {"Retry", "Deadline", "Fallback", "RateLimit"} == set(kinds)
    assert (2, 30) == (kinds["Retry"].attempts, kinds["Deadline"].seconds)


def test_a_step_that_is_not_there():
    """Another step, a flow without it, an eager flow and a task have none to show."""

    @flow
    async def other(message: str) -> Ticket:
        return await triage(message)

    @flow(eager=True)
    async def eager(message: str) -> Ticket:
        return await triage(message)

    @task
    def work(message: str) -> str:
        return message

    assert [None] * 4 == [
        step_in(triage, past("x", "other")),
        step_in(other, past("x", "other")),
        step_in(eager, past("eager/triage")),
        step_in(work, past("work/triage")),
    ]


# -- inputs ------------------------------------------------------------------------------------------------------------


class Opaque:
    """A class that pydantic knows nothing of."""


@step(MODEL)
def odd(values: Annotated[list[int], {"not": "hashable"}], thing: Opaque | None = None) -> str:
    return prompt(f"{values} {thing}")


def test_annotations_that_cannot_be_hashed():
    """They are read all the same."""
    assert {"values": [1, 2]} == dict(restore(odd, b'{"values":[1,2]}', None))


def test_types_that_cannot_come_from_json():
    """An argument of a class that JSON cannot make is named."""
    with pytest.raises(Misfit, match="argument 'thing': .*Opaque.* cannot be made from JSON"):
        restore(odd, b'{"values":[],"thing":{}}', None)


@pytest.mark.parametrize("key", ["f/t@12ab", "f/t@12ab?", "f/t@12ab?#2", "f/t[12ab]@34cd#3"])
@pytest.mark.parametrize("was", ["f/t@56ef", "f/t@56ef?", "f/t[?]", "f/t[56ef]?#4"])
def test_a_node_is_found_under_a_key_that_says_its_inputs_differently(key, was):
    """Whatever stands for the inputs, the mark of what has no text included; but nowhere else."""

    @task
    def t() -> None: ...

    class Past:
        def find(self, key):
            return SimpleNamespace(key=was) if key == was else None

        def with_inputs(self, *_):
            return ["f/other", "f/t/t", was]

    assert was == Script(Past(), run_tasks=False).find(key, t, b"{}").key
    assert Script(Past(), run_tasks=False).find(f"g/{key}", t, b"{}") is None


def test_inputs_that_are_no_object():
    """What somebody wrote into the file by hand is refused."""
    with pytest.raises(Misfit, match="they are no object"):
        restore(odd, b"[1]", None)


@pytest.mark.anyio
async def test_a_judge_with_a_definition_error_ends_the_replay():
    """A judge that is wrong in itself is told at once."""
    from llmflow.replay._judge import judge

    @step("nowhere/model")
    def who(inputs: dict, recorded: object, new: object) -> bool:
        return prompt("?")

    with pytest.raises(DefinitionError, match="nowhere"):
        await judge(who, {}, 1, 2)


# -- tables ------------------------------------------------------------------------------------------------------------


def test_long_tables_are_cut(capsys):
    """At most twenty fields and divergences are shown, and the number of the others."""
    from llmflow.cli._replay_words import show_run_replay

    pairs = [
        pair(
            fields={f"f{one:02}": "different" for one in range(23)},
            is_exact=False,
            model=f"m/{one}",
            cost_usd=None,
            judgement=Judgement(verdict="better", score=0.75),
        )
        for one in range(4)
    ]
    gone = [Divergence(key=f"k\x1b{one}", name="s", kind="step", what="is gone") for one in range(22)]
    show_run_replay(played(report=Report(pairs=pairs), divergences=gone))
    shown = capsys.readouterr().err

    assert all(said in shown for said in ("and 3 more", "and 2 more", "m/0, m/1 and 2 more", "0.75", "unknown"))
    assert "4 answers asked with inputs that are not what they were: their types have changed" in shown
    assert "f20" not in shown
    assert "\x1b" not in shown


def test_nothing_to_ask_shows_no_table(capsys):
    """One sentence is enough."""
    from llmflow.cli._replay_words import show_report

    show_report(Report(pairs=[pair(asked=False)], skipped={"gone": 1}))

    assert [
        "1 answer left out: gone",
        "1 answer stands as recorded: same prompt, same model, 0 requests; 1 answer could not be replayed",
    ] == capsys.readouterr().err.splitlines()
