"""`llmflow replay`."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys

import pytest

from llmflow.context import runtimes

PROGRAM = '''
from pydantic import BaseModel

from llmflow import Budget, Fallback, Model, Price, Repair, Reply, Retry, Usage, flow, prompt, step, task


class Ticket(BaseModel):
    category: str
    urgent: bool = False


async def answer(request):
    text = request.messages[-1].content
    if "prose" in text:
        return Reply(text="I cannot say.", usage=Usage(input_tokens=100, output_tokens=5))
    if request.output.is_text:
        return Reply(text=f"Dear {text}", usage=Usage(input_tokens=100, output_tokens=5))
    said = Ticket(category="bug" if "crash" in text else "billing", urgent="Sort" in text)
    return Reply(text=said.model_dump_json(), usage=Usage(input_tokens=100, output_tokens=10))


ONE = Model("fake/one", handler=answer, price=Price(input=1, output=2))


@step(ONE, Repair(0), Retry.off)
def triage(message: str) -> Ticket:
    """Classify: {{ message }}"""
    return prompt()


@step(ONE)
def draft(message: str, ticket: Ticket) -> str:
    return prompt(f"{ticket.category} {ticket.urgent}: {message}")


@task
def shout(text: str) -> str:
    print("the program's own output")
    return text.upper()


@flow(Budget(usd="0.50"))
async def support(message: str) -> str:
    ticket = await triage(message)
    return await shout(await draft(message, ticket))


@flow(eager=True)
async def eagerly(message: str) -> Ticket:
    return await triage(message)


@task
async def helped(message: str) -> Ticket:
    return await triage(message)


def lenient(inputs, recorded, new):
    print("judging", inputs)
    return recorded.category == new.category


def broken(inputs, recorded, new):
    raise KeyError("nothing")


def wrong(recorded, new):
    return True


@step(ONE)
def wrong_step(recorded: str) -> str:
    return prompt(recorded)
'''


@pytest.fixture(autouse=True)
def _program(home):
    (home / "desk.py").write_text(PROGRAM)
    (home / "other.md").write_text("Sort: {{ message }}")


@pytest.fixture
def recorded(llmflow):
    """Two answers of a step, one of them in a flow."""
    assert 0 == llmflow("run", "desk.py:triage", "-i", "a crash", "-q").code
    assert 0 == llmflow("run", "desk.py:support", "-i", "charged", "-q").code


def lines(ran) -> list[dict]:
    """Return the pairs that were written."""
    return [json.loads(line) for line in ran.out.splitlines()]


def rows(home, statement: str) -> list[tuple]:
    """Read the journal."""
    with sqlite3.connect(home / ".llmflow" / "llmflow.db") as file:
        return file.execute(statement).fetchall()


def test_nothing_changed(llmflow, recorded, home):
    """Every answer stands: a line for each on stdout, one sentence on stderr, and no request."""
    ran = llmflow("replay", "--step", "triage")

    assert (0, [True, True], [0, 0]) == (
        ran.code,
        [one["equal"] for one in lines(ran)],
        [one["requests"] for one in lines(ran)],
    )
    assert "2 answers stand as recorded: same prompt, same model, 0 requests\n" == ran.err
    assert [(3,)] == rows(home, "SELECT count(*) FROM attempts")


def test_another_prompt(llmflow, recorded, home):
    """A file is the prompt; the table says what agrees, with counts, then and now."""
    ran = llmflow("replay", "--step", "triage", "--prompt", "other.md")
    pair = next(one for one in lines(ran) if one["inputs"] == {"message": "a crash"})

    assert (0, False, {"category": "equal", "urgent": "different"}) == (ran.code, pair["equal"], pair["fields"])
    assert ({"category": "bug", "urgent": False}, {"category": "bug", "urgent": True}) == (
        pair["recorded"],
        pair["new"],
    )
    assert ("0.00012", "0.00012", 1) == (pair["cost_usd"], pair["recorded_cost_usd"], pair["requests"])
    assert all(
        said in ran.err
        for said in (
            "100.0 % (2 of 2)",
            "0.0 % (0 of 2)",
            "$0.00012 (2 known)",
            "0 of 2 answers agree; 2 differ in urgent",
        )
    )


def test_an_edited_prompt(llmflow, shell, recorded, home):
    """In another process, after an edit: only the step that changed is asked."""
    (home / "desk.py").write_text(PROGRAM.replace("Classify:", "Sort:"))
    ran = shell("replay", "--step", "triage", "--quiet")
    drafted = shell("replay", "--step", "draft", "--json")

    assert ([False, False], "") == ([one["equal"] for one in lines(ran)], ran.err)
    assert 0 == json.loads(drafted.out)["requests"]


def test_a_run_of_a_flow(llmflow, shell, recorded, home):
    """A whole run: as it was nothing is asked; after an edit what follows is asked too, and tasks take what they gave."""
    same = llmflow("replay", "last")
    (home / "desk.py").write_text(PROGRAM.replace("Classify:", "Sort:"))
    changed = shell("replay", "last")

    assert (0, "") == (same.code, same.out)
    assert "3 nodes as recorded, 0 divergences, 0 requests, the value is equal" in same.err
    assert ["support/triage", "support/draft"] == [one["key"] for one in lines(changed)]
    assert "3 divergences, 2 requests, cost $0.00023, the value is another one" in changed.err
    assert "support/shout   task  was given other inputs" in changed.err


def test_one_document(llmflow, recorded):
    """--json writes one document, with the pairs and the verdict."""
    step = json.loads(llmflow("replay", "--step", "triage", "--json").out)
    run = json.loads(llmflow("replay", "last", "--json").out)

    assert (2, 2, 1.0, 2) == (step["answers"], step["equal"], step["agreement"], len(step["pairs"]))
    assert (True, 0, [], []) == (run["equal"], run["requests"], run["divergences"], run["pairs"])
    assert step["verdict"].startswith("2 answers stand as recorded")


def test_lines_in_a_file(llmflow, recorded, home):
    """--out takes the lines, and a file that holds something is not overwritten without being told."""
    first = llmflow("replay", "--step", "triage", "--out", "pairs.jsonl")
    again = llmflow("replay", "--step", "triage", "--out", "pairs.jsonl")
    told = llmflow("replay", "--step", "triage", "--out", "pairs.jsonl", "--overwrite")

    assert (0, "", 2, 0) == (first.code, first.out, again.code, told.code)
    assert 2 == len((home / "pairs.jsonl").read_text().splitlines())


def test_a_file_that_cannot_be_written(llmflow, recorded):
    """It is told before anything is asked."""
    assert 2 == llmflow("replay", "--step", "triage", "--out", "no/such/folder.jsonl").code


def test_a_gate(llmflow, recorded):
    """Below --min-agreement the exit code is 3; what a judge finds as good counts as agreeing."""
    changed = ("replay", "--step", "triage", "--prompt", "other.md", "--quiet")

    assert 3 == llmflow(*changed, "--min-agreement", "0.5").code
    assert 0 == llmflow(*changed, "--min-agreement", "0").code
    assert 0 == llmflow(*changed, "--min-agreement", "1", "--judge", "desk.py:lenient").code


def test_a_judge(llmflow, recorded):
    """The judge's words are in the lines and in the table; what it prints is no data."""
    ran = llmflow("replay", "--step", "triage", "--prompt", "other.md", "--judge", "desk.py:lenient")
    broken = llmflow("replay", "--step", "triage", "--prompt", "other.md", "--judge", "desk.py:broken")

    assert ["same", "same"] == [one["judged"] for one in lines(ran)]
    assert all(said in ran.err for said in ("judging", "100.0 % (2 of 2)", "of 2 that were judged 0 better, 2 same"))
    assert (0, "KeyError: 'nothing'") == (broken.code, lines(broken)[0]["judge_error"])
    assert "the judge gave no verdict on 2: KeyError: 'nothing'" in broken.err


@pytest.mark.parametrize("of", [("--step", "triage", "--prompt", "other.md"), ("last", "--model", "local/x")])
@pytest.mark.parametrize("judge", ["wrong", "wrong_step"])
def test_a_judge_that_cannot_be_asked_is_wrong_use(llmflow, recorded, home, judge, of):
    """Before anything is sent, and before the file is begun anew."""
    (home / "pairs.jsonl").write_text("precious\n")
    ran = llmflow("replay", *of, "--judge", f"desk.py:{judge}", "--out", "pairs.jsonl", "--overwrite")

    assert (2, [(3,)]) == (ran.code, rows(home, "SELECT count(*) FROM attempts"))
    assert f"error: judge {judge}(recorded" in ran.err
    assert f"hint: Write it as: def {judge}(inputs, recorded, new): ..." in ran.err
    assert "precious\n" == (home / "pairs.jsonl").read_text()


def test_answers_that_fail(llmflow, recorded, home):
    """An answer that was valid and is not any more makes the exit code 1."""
    (home / "worse.md").write_text("In prose: {{ message }}")
    ran = llmflow("replay", "--step", "triage", "--prompt", "worse.md")

    assert (1, ["InvalidOutput"] * 2) == (ran.code, [one["error"]["type"] for one in lines(ran)])
    assert "0.0 % (0 of 2)" in ran.err


def test_a_dry_run_sends_nothing(llmflow, recorded, home):
    """--dry-run says how many answers would be asked and what that takes at worst."""
    same = llmflow("replay", "--step", "triage", "--dry-run")
    ran = llmflow("replay", "--step", "triage", "--prompt", "other.md", "--dry-run")
    said = json.loads(llmflow("replay", "--step", "triage", "--prompt", "other.md", "--dry-run", "--json").out)

    assert "0 of 2 answers would be asked anew: at worst 0 requests, $0.00\n" == same.out
    assert ran.out.startswith("2 of 2 answers would be asked anew: at worst 2 requests, $0.01")
    assert (2, 2, 2) == (said["answers"], said["asked"], said["requests"])
    assert [(3,)] == rows(home, "SELECT count(*) FROM attempts")


def test_a_dry_run_of_a_whole_run(llmflow, shell, recorded, home):
    """With nothing changed it takes nothing; else at most all that was asked then."""
    same = llmflow("replay", "last", "--dry-run")
    (home / "desk.py").write_text(PROGRAM.replace("Classify:", "Sort:"))
    changed = shell("replay", "last", "--dry-run")

    assert same.out.startswith("0 of 2 answers would be asked anew: at worst 0 requests")
    assert changed.out.startswith("1 of 2 answers would be asked anew, and those that follow from them: at worst 10 re")


def test_policies_of_the_flow_count(llmflow, home):
    """A step of a flow has the flow's policies when it is replayed: a fallback there is a model that may answer."""
    program = PROGRAM.replace('@flow(Budget(usd="0.50"))', '@flow(Fallback(Model("fake/two", handler=answer)))')
    down = program.replace(
        "async def answer(request):", "async def down(request):\n    raise OSError\n\n\nasync def answer(request):"
    )
    down = down.replace('ONE = Model("fake/one", handler=answer', 'ONE = Model("fake/one", handler=down')
    down = down.replace(
        'Fallback(Model("fake/two", handler=answer))', 'Fallback(Model("fake/two", handler=answer), on=(OSError,))'
    )
    (home / "second.py").write_text(down)
    assert 0 == llmflow("run", "second.py:support", "-i", "a crash", "-q").code
    ran = llmflow("replay", "last", "--step", "triage")

    assert (0, "fake/two", 0) == (ran.code, lines(ran)[0]["recorded_model"], lines(ran)[0]["requests"])


@pytest.mark.parametrize("target", ["eagerly", "helped"])
def test_steps_that_no_graph_shows_are_found(llmflow, target):
    """A step that an eager flow or a task asks is found by its name in the body."""
    assert 0 == llmflow("run", f"desk.py:{target}", "-i", "a crash", "-q").code
    ran = llmflow("replay", "--step", "triage")

    assert (0, [True]) == (ran.code, [one["equal"] for one in lines(ran)])


def test_a_map_is_replayed_answer_by_answer(llmflow, home):
    """The answers of a map over a file are found in its run, whatever the step is called."""
    (home / "in.jsonl").write_text('"a crash"\n"charged"\n')
    assert 0 == llmflow("run", "desk.py:support", "--map", "in.jsonl", "-q").code
    ran = llmflow("replay", "last")

    assert (0, 4, 0) == (ran.code, len(lines(ran)), sum(one["requests"] for one in lines(ran)))


def test_a_program_that_was_started_itself(llmflow, shell, home):
    """Inputs of a run of `python app.py` are the same when the program is imported: 0 requests."""
    more = '\n\nif __name__ == "__main__":\n    import llmflow\n\n    with llmflow.Runtime(journal="sqlite:///.llmflow/llmflow.db"):\n        support.sync("a crash")\n'
    (home / "desk.py").write_text(PROGRAM + more)
    subprocess.run([sys.executable, "desk.py"], check=True, timeout=300, cwd=home, capture_output=True)
    ran = llmflow("replay", "last")

    assert (0, "") == (ran.code, ran.out)
    assert "0 divergences, 0 requests, the value is equal" in ran.err


def test_answers_without_content_are_counted(llmflow, home, monkeypatch):
    """Only hashes: nothing can be replayed, and why is said."""
    (home / "pyproject.toml").write_text(
        '[tool.llmflow]\nstore_content = false\nstore = "sqlite:///.llmflow/llmflow.db"\n'
    )
    assert 0 == llmflow("run", "desk.py:triage", "-i", "a crash", "-q").code
    ran = llmflow("replay", "--step", "triage")

    assert 2 == ran.code
    assert "no recorded answer of step 'triage' can be replayed" in ran.err
    assert "1: only their hashes are stored" in ran.err


def test_a_replay_is_not_taken_up_again(llmflow, recorded, home):
    """`llmflow resume` of a replay says what to do instead."""
    llmflow("replay", "--step", "triage", "--prompt", "other.md", "-q")
    ((run, *_), *_) = rows(home, "SELECT run_id FROM runs WHERE command LIKE '{\"replay\"%'")
    ran = llmflow("resume", run)

    assert (2, True) == (ran.code, "is a replay, which is not taken up again" in ran.err)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say which run, or with --step NAME which step"),
        (("nothing",), "there is no run 'nothing'"),
        (("--step", "nothing"), "there is no recorded answer of step 'nothing'"),
        (("--step", "traige"), "there is no recorded answer of step 'traige'\n  hint: Did you mean triage?\n"),
        (("--last", "3", "--step", "drafft"), "step 'drafft'\n  hint: Did you mean draft?\n  hint: `llmflow runs`"),
        (("last", "--step", "nothing"), "there is no recorded answer of step 'nothing' in run"),
        (("last", "--last", "3"), "--last is for the answers of one step"),
        (("last", "--since", "3d"), "--since is for the answers of one step"),
        (("last", "--prompt", "other.md"), "--prompt is for the answers of one step"),
        (("last", "--target", "desk.py:triage"), "desk.py:triage is a step, but run"),
        (("--step", "triage", "--run-tasks"), "--run-tasks is for a whole run of a flow"),
        (("--step", "triage", "--prompt", "no.md"), "--prompt no.md: cannot read the file"),
        (("--step", "triage", "--prompt", "canary"), "step 'triage' has no prompt with the label 'canary'"),
        (("--step", "triage", "--since", "someday"), "--since 'someday' is no time"),
        (("--step", "triage", "--model", "tiny"), "--model 'tiny' does not name its provider"),
        (("--step", "triage", "--model", "nowhere/one"), "no provider is called 'nowhere'"),
        (("--step", "triage", "--min-agreement", "nan"), "--min-agreement"),
        (("--step", "triage", "--judge", "desk.py"), "--judge 'desk.py' does not say what to take"),
        (("--step", "triage", "--judge", "desk.py:gone"), "desk.py has no function 'gone'"),
        (("--step", "triage", "--target", "gone.py:triage"), "there is no file 'gone.py'"),
        (("--step", "triage", "--target", "desk.py:shout"), "desk.py:shout has no step 'triage'"),
    ],
)
def test_wrong_use(llmflow, recorded, arguments, said):
    """Exit code 2, what is wrong, and nothing is sent."""
    ran = llmflow("replay", *arguments)

    assert (2, "") == (ran.code, ran.out)
    assert said in ran.err


def test_what_a_model_wrote_does_not_reach_the_terminal_as_it_is(llmflow, home):
    """Control characters in an answer, and in the names of its fields, are written as escapes."""
    (home / "rude.py").write_text(
        "from llmflow import Model, prompt, step\n"
        "async def answer(request):\n"
        '    return \'{"a\\\\u009b31m": 1, "b\\\\u001b[2J": %d}\' % len(request.messages[-1].content)\n'
        "@step(Model('fake/rude', handler=answer))\n"
        "def triage(message: str) -> dict[str, int]:\n"
        '    """{{ message }}"""\n'
        "    return prompt()\n"
    )
    assert 0 == llmflow("run", "rude.py:triage", "-i", "x", "-q").code
    ran = llmflow("replay", "--step", "triage", "--prompt", "other.md")

    assert (0, {"equal", "different"}) == (ran.code, {*lines(ran)[0]["fields"].values()})
    assert not {"\x1b", "\x9b"} & {*ran.out, *ran.err}


@pytest.mark.parametrize(
    "what", [("last",), ("last", "--step", "triage"), ("--step", "triage", "--target", "own.py:support")]
)
def test_a_module_that_makes_a_runtime(shell, home, what):
    """The runtime of the program's own module is what is replayed in, and nothing is asked where nothing changed."""
    own = '\nimport llmflow\nllmflow.Runtime(journal="sqlite:///.llmflow/llmflow.db").install()\n'
    (home / "own.py").write_text(PROGRAM + own)
    assert 0 == shell("run", "own.py:support", "-i", "a crash", "-q").code
    ran = shell("replay", *what)
    changed = shell("replay", *what, "--model", "nowhere/one")

    assert (0, [(2,)]) == (ran.code, rows(home, "SELECT count(*) FROM attempts"))
    assert (2, True) == (changed.code, "no provider is called 'nowhere'" in changed.err)


def test_code_that_is_gone_is_counted(llmflow, shell, recorded, home):
    """Answers whose code is not where it was are left out; --target says where it is now."""
    (home / "desk.py").rename(home / "moved.py")
    gone = shell("replay", "--step", "triage")
    found = shell("replay", "--step", "triage", "--target", "moved.py:support")

    assert 2 == gone.code
    assert "there is no file 'desk.py'; name it with --target" in gone.err
    assert (0, 2) == (found.code, len(lines(found)))


def test_without_a_journal(llmflow, home, monkeypatch):
    """No file yet, or none at all: what to do is said."""
    none = llmflow("replay", "--step", "triage")
    monkeypatch.setenv("LLMFLOW_JOURNAL", "memory://")
    runtimes.forget_made()
    memory = llmflow("replay", "--step", "triage")

    assert (2, True) == (none.code, "It is made when something is run" in none.err)
    assert (2, True) == (memory.code, "the journal is in memory" in memory.err)
