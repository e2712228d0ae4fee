"""`llmflow prompts` and `llmflow check`: what is locked, what changed, and what that buys anew."""

from __future__ import annotations

import json
import linecache
import sys
import tomllib

import pytest

PROGRAM = """
import sys
from typing import Literal
from pydantic import BaseModel, Field
from llmflow import Cache, Model, flow, prompt, step
from texts import INTRO, tone

class Ticket(BaseModel):
    category: Literal["billing", "bug"]
    urgent: bool = Field(default=False, description="Answer today?")

async def answer(request):
    return '{"category": "bug", "urgent": true}'

def short(value, inputs):
    if len(value.category) > 9:
        raise ValueError("too long")

@step(Model("fake/one", handler=answer), Cache("1h"), system="Be kind.", params={"temperature": 0},
      checks=[short], examples=[("hello", {"category": "bug"})])
def triage(message: str) -> Ticket:
    '''Classify: {{ message }}'''

@step(Model("fake/one", handler=answer))
def draft(message: str) -> str:
    return prompt(f"{INTRO} {tone(message)}")

@flow
async def support(message: str) -> str:
    await triage(message)
    return await draft(message)
"""
TEXTS = """
INTRO = 'You are "kind".'

def tone(text):
    '''Say it.'''
    return text.lower()
"""


@pytest.fixture(autouse=True)
def program(home):
    (home / "app.py").write_text(PROGRAM, encoding="utf-8")
    (home / "texts.py").write_text(TEXTS, encoding="utf-8")


def edit(home, *changes: tuple[str, str], name: str = "app.py") -> None:
    """Replace texts in a file of the program."""
    path = home / name
    text = path.read_text(encoding="utf-8")
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def anew(llmflow, monkeypatch):
    """Run a command in this process, the program imported as it is now."""

    def run(*arguments):
        for name in ("app", "texts", "other", "wrong"):
            sys.modules.pop(name, None)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        linecache.clearcache()
        return llmflow(*arguments)

    return run


# -- lock --------------------------------------------------------------------------------------------------------------


def test_the_lock_is_text_that_says_what_the_prompts_are(anew, home):
    """Wordings as they are, a line for each field of the answer, hashes of code with its source."""
    ran = anew("prompts", "lock", "app.py")
    text = (home / "llmflow.lock").read_text(encoding="utf-8")
    said = tomllib.loads(text)
    triage, draft = said["prompts"]["triage"], said["prompts"]["draft"]

    assert (0, "") == (ran.code, ran.out)
    assert "new: triage" in ran.err
    assert "llmflow.lock written: 2 prompts of app.py" in ran.err
    assert (1, ["app.py"]) == (said["format"], said["from"])
    assert ("Classify: {{ message }}", "Be kind.", {"temperature": 0}) == (
        triage["template"],
        triage["system"],
        triage["params"],
    )
    assert triage["output"].split("\n") == [
        "Ticket",
        'category: "billing" | "bug"',
        "urgent?: boolean = false  # Answer today?",
    ]
    assert [{"input": '{"message":"hello"}', "output": '{"category":"bug","urgent":false}'}] == triage["examples"]
    assert ["app.short"] == list(triage["checks"])
    assert ["texts.INTRO", "texts.tone"] == list(draft["uses"])
    assert "def tone(text):\n    return text.lower()" == said["sources"]["texts.tone"]
    assert """'INTRO = 'You""" not in text


def test_locking_again_changes_nothing(anew, home):
    """Not even the file, also when code was written differently."""
    anew("prompts", "lock", "app.py")
    before = (home / "llmflow.lock").read_bytes(), (home / "llmflow.lock").stat().st_mtime_ns
    edit(home, ("return text.lower()", "return text.lower()  # why"), name="texts.py")
    ran = anew("prompts", "lock")

    assert "llmflow.lock is as it was: 2 prompts of app.py" in ran.err
    assert before == ((home / "llmflow.lock").read_bytes(), (home / "llmflow.lock").stat().st_mtime_ns)


def test_locking_says_what_changed(anew, home):
    """Changed, new and gone, with both versions."""
    anew("prompts", "lock", "app.py")
    edit(home, ("Classify:", "Sort:"), ("def draft", "def reply"), ("await draft", "await reply"))
    ran = anew("prompts", "lock")

    assert "changed: triage" in ran.err
    assert " -> " in ran.err
    assert "new: reply" in ran.err
    assert "gone: draft" in ran.err


def test_the_lock_lies_beside_the_project(anew, home, monkeypatch):
    """Beside the nearest pyproject.toml, from any folder below."""
    (home / "pyproject.toml").write_text("", encoding="utf-8")
    (home / "below").mkdir()
    monkeypatch.chdir(home / "below")
    ran = anew("prompts", "lock", "../app.py")

    assert 0 == ran.code
    assert (home / "llmflow.lock").exists()


def test_a_flow_leads_to_its_steps(anew, home):
    """`module:name` locks what is reachable."""
    anew("prompts", "lock", "app.py:support")

    assert {"draft", "triage"} == set(tomllib.loads((home / "llmflow.lock").read_text())["prompts"])


def test_an_eager_flow_and_a_task_lead_to_what_they_name(anew, home):
    """Methods of classes are steps too."""
    (home / "other.py").write_text(
        "import app\nfrom llmflow import flow, prompt, step, task\nfrom app import draft\n"
        "@task\ndef work(x: str) -> str:\n    return draft.sync(x)\n"
        "@flow(eager=True)\nasync def go(x: str) -> str:\n    await app.triage(x)\n    return await work(x)\n"
        "class Desk:\n    @step('fake/x')\n    def ask(self, x: str) -> str:\n        return prompt(x)\n",
        encoding="utf-8",
    )
    ran = anew("prompts", "list", "other.py:go", "other", "--json")

    assert ["ask", "draft", "triage"] == [one["name"] for one in json.loads(ran.out)["prompts"]]


def test_copies_with_another_prompt_go_by_their_variable(anew, home):
    """Copies with the same one are one."""
    with (home / "app.py").open("a", encoding="utf-8") as file:
        file.write("\nsame = triage.with_(Cache.off)\nwarm = triage.with_(params={'temperature': 1})\n")
    ran = anew("prompts", "list", "app.py", "--json")

    assert ["draft", "triage", "triage#warm"] == [one["name"] for one in json.loads(ran.out)["prompts"]]


def test_two_steps_of_one_name_are_refused(anew, home):
    """Both are named."""
    with (home / "app.py").open("a", encoding="utf-8") as file:
        file.write("\n@step('fake/x', name='triage')\ndef again(x: str) -> str:\n    return prompt(x)\n")
    ran = anew("prompts", "lock", "app.py")

    assert 2 == ran.code
    assert "two steps are called 'triage'" in ran.err


def test_a_lock_that_cannot_be_written(anew, home):
    """Exit code 2, with the reason."""
    (home / "llmflow.lock").mkdir()
    ran = anew("prompts", "lock", "app.py")

    assert 2 == ran.code
    assert "llmflow.lock" in ran.err


# -- list and show -----------------------------------------------------------------------------------------------------


def test_list_says_what_is_locked(anew, home):
    """A line for each prompt."""
    before = anew("prompts", "list", "app.py")
    anew("prompts", "lock", "app.py")
    edit(home, ("Classify:", "Sort:"))
    after = anew("prompts", "list")

    assert "not locked" in before.out
    assert "write it: llmflow prompts lock app.py" in before.err
    lines = {line.split()[0]: line for line in after.out.splitlines()}
    assert " changed " in lines["triage"]
    assert " locked " in lines["draft"]
    assert "template, system, 1 parameter, 1 example, 1 check" in lines["triage"]
    assert "app.py:" in lines["triage"]


def test_list_shows_what_is_gone(anew, home):
    """By the version it had; only when all of the lock is looked at."""
    anew("prompts", "lock", "app.py")
    edit(home, ("def draft", "def reply"), ("await draft", "await reply"))
    whole = json.loads(anew("prompts", "list", "--json").out)["prompts"]
    part = json.loads(anew("prompts", "list", "app.py:triage", "--json").out)["prompts"]

    assert [("draft", "gone"), ("reply", "new"), ("triage", "locked")] == [(one["name"], one["state"]) for one in whole]
    assert ["triage"] == [one["name"] for one in part]


def test_show_has_every_part(anew):
    """By name with a lock, by target without one."""
    without = anew("prompts", "show", "app.py:triage")
    anew("prompts", "lock", "app.py")
    by_name = anew("prompts", "show", "triage")
    coded = anew("prompts", "show", "draft")

    assert "not locked" in without.out
    for part in (
        "template",
        "Classify:",
        "system",
        "output",
        "params",
        "temperature = 0",
        "examples",
        "checks",
        "app.short",
    ):
        assert part in by_name.out
    assert "def draft(message: str) -> str:" in coded.out
    assert "texts.INTRO  constant" in coded.out


def test_show_as_json(anew):
    """With the whole schema and the source of what it uses."""
    said = json.loads(anew("prompts", "show", "app.py:support", "--json").out)["prompts"]

    assert ["draft", "triage"] == sorted(one["name"] for one in said)
    draft = next(one for one in said if one["name"] == "draft")
    assert "function" == draft["uses"]["texts.tone"]["kind"]


def test_show_and_diff_know_the_names(anew):
    """A wrong one is answered with the right ones."""
    anew("prompts", "lock", "app.py")

    for command in (("show", "trage"), ("diff", "--step", "trage")):
        ran = anew("prompts", *command)
        assert 2 == ran.code
        assert "There are: draft, triage" in ran.err.replace("triage, draft", "draft, triage")


def test_what_is_not_covered_is_shown(anew, home):
    """With the reason, in the list, in the parts and in the lock."""
    edit(home, ("return text.lower()", "return getattr(text, 'lower')()"), name="texts.py")
    anew("prompts", "lock", "app.py")
    shown = anew("prompts", "show", "draft").out
    listed = anew("prompts", "list").out

    assert "getattr: a name that is known only while it runs" in shown
    assert "1 not covered" in listed


def test_a_declared_version_is_shown_with_the_computed_one(anew, home):
    """Both are in the lock."""
    edit(home, ('"fake/one", handler=answer))\ndef draft', '"fake/one", handler=answer), version="v7")\ndef draft'))
    anew("prompts", "lock", "app.py")
    locked = tomllib.loads((home / "llmflow.lock").read_text())["prompts"]["draft"]

    assert ("v7", 12) == (locked["version"], len(locked["computed"]))
    assert locked["computed"] in anew("prompts", "show", "draft").out


# -- diff --------------------------------------------------------------------------------------------------------------


def test_diff_shows_each_part_that_changed(anew, home):
    """Line by line: template, system, fields, parameters, examples, checks, helpers and constants."""
    anew("prompts", "lock", "app.py")
    edit(
        home,
        ("Classify:", "Sort:"), ("Be kind.", "Be short."), ('"billing", "bug"', '"billing", "bug", "other"'),
        ('"temperature": 0', '"temperature": 1, "seed": 3'), ('("hello"', '("goodbye"'), ("> 9", "> 8"),
    )  # fmt: skip
    edit(home, ("lower()", "upper()"), ("kind", "nice"), name="texts.py")
    lines = [line.strip() for line in anew("prompts", "diff").out.splitlines()]

    for line in (
        "- Classify: {{ message }}", "+ Sort: {{ message }}", "- Be kind.", "+ Be short.",
        '- category: "billing" | "bug"', '+ category: "billing" | "bug" | "other"', "- temperature = 0", "+ seed = 3",
        "+ temperature = 1", "check app.short", "-     if len(value.category) > 9:", "uses texts.tone",
        "-     return text.lower()", "+     return text.upper()", "uses texts.INTRO", """+ INTRO = 'You are "nice".'""",
    ):  # fmt: skip
        assert line in lines


def test_diff_of_one_step(anew, home):
    """Others are left out; as JSON both sides are told."""
    anew("prompts", "lock", "app.py")
    edit(home, ("Classify:", "Sort:"))
    edit(home, ("lower()", "upper()"), name="texts.py")
    said = json.loads(anew("prompts", "diff", "--step", "triage", "--json").out)["prompts"]

    assert ["triage"] == list(said)
    assert {"template": {"locked": "Classify: {{ message }}", "now": "Sort: {{ message }}"}} == said["triage"][
        "changes"
    ]


def test_diff_of_nothing(anew):
    """A line on stderr."""
    anew("prompts", "lock", "app.py")
    ran = anew("prompts", "diff")

    assert (0, "", "2 prompts as locked\n") == (ran.code, ran.out, ran.err)


def test_a_value_that_is_computed_differs_by_its_hash(anew, home):
    """Its line is the same."""
    edit(
        home,
        ("""INTRO = 'You are "kind".'""", "import pathlib\nINTRO = pathlib.Path('intro.txt').read_text()"),
        name="texts.py",
    )
    (home / "intro.txt").write_text("a", encoding="utf-8")
    anew("prompts", "lock", "app.py")
    (home / "intro.txt").write_text("b", encoding="utf-8")
    out = anew("prompts", "diff").out

    assert 2 == out.count("INTRO = pathlib.Path('intro.txt').read_text()  # ")


def test_a_declared_version_that_changed(anew, home):
    """Is a change by itself."""
    edit(home, ('"fake/one", handler=answer))\ndef draft', '"fake/one", handler=answer), version="v7")\ndef draft'))
    anew("prompts", "lock", "app.py")
    edit(home, ("v7", "v8"))
    said = json.loads(anew("prompts", "diff", "--json").out)["prompts"]

    assert {"version": {"locked": "v7", "now": "v8"}} == said["draft"]["changes"]


@pytest.mark.parametrize("command", [("list",), ("lock",), ("diff",), ("show", "triage"), ("diff", "app.py")])
def test_without_a_lock_the_modules_have_to_be_named(anew, command):
    """The message says how."""
    ran = anew("prompts", *command)

    assert 2 == ran.code
    assert "llmflow prompts lock app.py" in ran.err


def test_prompts_of_broken_code(anew, home):
    """The first error ends the command, with its place."""
    edit(home, ("{{ message }}", "{{ massage }}"))
    ran = anew("prompts", "list", "app.py")

    assert 2 == ran.code
    assert "massage" in ran.err


# -- a lock that is none -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("format = ", "is no TOML: Invalid value (at end of document)"),
        ("format = 1\nfrom = [\n1]\n", "line 2: the file does not say what it was made `from`"),
        ("", "line 1: the file does not say `format = 1`"),
        ("format = 2", "line 1: the file was written by a newer llmflow"),
        ("format = 1\nfrom = []\nprompts = 1", "has no table prompts"),
        ("format = 1\nfrom = []\n[prompts.a]\nbody = 'x'", "line 3: the file has no version in [prompts.a]"),
        ("format = 1\nfrom = []\n[prompts.a]\nversion = 'x'\nbody = 1", "line 3: the file has no text as body"),
        ("format = 1\nfrom = []\n\n[prompts.a]\nversion = 'x'\nmodel = 1", "line 4: the file has an unknown key 'model'"),
        ("format = 1\nfrom = []\n[prompts.a]\nversion = 'x'\nuses = 1", "line 3: the file has no table prompts.a.uses"),
        ("format = 1\nfrom = []\n[prompts.a]\nversion = 'x'\nexamples = 1", "line 3: the file has no list of examples"),
        ("format = 1\nfrom = []\n[prompts.a]\nversion = 'x'\nexamples = [{input = 'a'}]", "line 3: the file has an example without"),
    ],
)  # fmt: skip
def test_a_lock_that_is_none_is_told_with_its_line(anew, home, text, said):
    """And what to do about it."""
    (home / "llmflow.lock").write_text(text, encoding="utf-8")
    ran = anew("prompts", "list")

    assert 2 == ran.code
    assert said in ran.err
    assert "Take it back from version control" in ran.err


def test_a_lock_that_is_no_text(anew, home):
    """It cannot be read."""
    (home / "llmflow.lock").write_bytes(b"\xff")

    assert "llmflow.lock cannot be read" in anew("prompts", "list").err


# -- check -------------------------------------------------------------------------------------------------------------


def test_check_passes_when_nothing_changed(anew, home):
    """Nor does a comment."""
    anew("prompts", "lock", "app.py")
    edit(home, ("return text.lower()", "return text.lower()  # why"), name="texts.py")
    ran = anew("check")

    assert (0, "", "3 definitions in order, 2 prompts as locked\n") == (ran.code, ran.out, ran.err)


def test_check_refuses_a_change(anew, home):
    """With the difference, and a hint."""
    anew("prompts", "lock", "app.py")
    edit(home, ("Classify:", "Sort:"))
    ran = anew("check")

    assert 3 == ran.code
    assert "+ Sort: {{ message }}" in ran.out
    assert "re-buys nothing: the cache holds no answer of the locked version" in ran.out
    assert "refused: 1 prompt differs from llmflow.lock" in ran.err
    assert "llmflow prompts lock" in ran.err


def test_check_says_what_a_change_buys_anew(shell, home):
    """Kept answers of the version that is locked, whether they are still valid, and what they had cost."""
    edit(home, ('"fake/one", handler=answer), Cache', '"fake/one", handler=answer, price=Price(input=1, output=1)), Cache'),
         ("import Cache, Model", "import Cache, Model, Price, Reply, Usage"),
         ("""    return '{"category": "bug", "urgent": true}'""",
          """    text = '{"category": "bug", "urgent": true}'\n    return Reply(text=text, usage=Usage(input_tokens=500_000, output_tokens=0))"""))  # fmt: skip
    shell("prompts", "lock", "app.py")
    for message in ("a", "b"):
        assert 0 == shell("run", "app.py:triage", "--input", message).code
    edit(home, ("Classify:", "Sort:"))
    ran = shell("check")
    said = json.loads(shell("check", "--json").out)

    assert "re-buys 2 kept answers, 2 of them still valid, which had cost $1.00" in ran.out
    assert {"answers": 2, "valid": 2, "cost_usd": "1.0", "unpriced": 0} == said["prompts"]["triage"]["rebuys"]
    assert (False, "changed") == (said["ok"], said["prompts"]["triage"]["state"])


def test_check_says_that_a_cost_is_unknown(shell, home):
    """It is not called nothing."""
    shell("prompts", "lock", "app.py")
    shell("run", "app.py:triage", "--input", "a")
    edit(home, ("Classify:", "Sort:"))
    ran = shell("check")

    assert "re-buys 1 kept answer, still valid, whose cost is unknown" in ran.out


def test_check_where_the_cache_is_in_memory(shell, home, monkeypatch):
    """Nobody can tell what is in it."""
    shell("prompts", "lock", "app.py")
    edit(home, ("Classify:", "Sort:"))
    monkeypatch.setenv("LLMFLOW_CACHE", "memory://")

    assert "re-buys an unknown number of answers" in shell("check").out


def test_check_where_the_cache_cannot_be_read(anew, home):
    """A warning, and the refusal."""
    anew("prompts", "lock", "app.py")
    edit(home, ("Classify:", "Sort:"))
    (home / ".llmflow").mkdir()
    (home / ".llmflow" / "llmflow.db").write_text("no database, but longer than a header of one is" * 9)
    ran = anew("check")

    assert 3 == ran.code
    assert "warning: the cache cannot be read" in ran.err


def test_check_of_a_declared_version(anew, home):
    """A new wording under the same version is a change that buys nothing anew."""
    edit(home, ('"fake/one", handler=answer))\ndef draft', '"fake/one", handler=answer), version="v7")\ndef draft'))
    anew("prompts", "lock", "app.py")
    edit(home, ("lower()", "upper()"), name="texts.py")
    ran = anew("check")

    assert 3 == ran.code
    assert "re-buys nothing: version= is the same" in ran.out


def test_check_refuses_what_is_new_or_gone(anew, home):
    """Neither buys anything anew."""
    anew("prompts", "lock", "app.py")
    edit(home, ("def draft", "def reply"), ("await draft", "await reply"))
    ran = anew("check")

    assert 3 == ran.code
    assert "gone: draft" in ran.out
    assert "new: reply" in ran.out
    assert "re-buys" not in ran.out
    assert "refused: 2 prompts differ" in ran.err


@pytest.mark.parametrize("targets", [(), ("app.py",)])
def test_check_without_a_lock(anew, targets):
    """Exit code 3, with the command that writes it."""
    ran = anew("check", *targets)
    said = json.loads(anew("check", *targets, "--json").out)

    assert 3 == ran.code
    assert "refused: there is no llmflow.lock" in ran.err
    assert "llmflow prompts lock app.py" in ran.err
    assert not said["ok"]


WRONG = """
from llmflow import flow, prompt, step
@step("fake/x")
def ask(x: str) -> str:
    return prompt(x)
@flow
async def one(x: str) -> str:
    if await ask(x):
        return "a"
    return "b"
@flow
async def two(x: str) -> str:
    return len(await ask(x))
@step("nowhere/model")
def lost(x: str) -> str:
    return prompt(x)
"""


def test_check_tells_of_every_wrong_definition(anew, home):
    """With file and line, exit code 2."""
    (home / "wrong.py").write_text(WRONG, encoding="utf-8")
    ran = anew("check", "wrong.py", "nothing.py", "app.py")
    said = json.loads(anew("check", "wrong.py", "--json").out)

    assert 2 == ran.code
    for place in ("wrong.py:8", "wrong.py:13", "wrong.py:14", "nothing.py"):
        assert place in ran.err
    assert len(said["problems"]) >= 3
    assert "cannot be used" in ran.err


def test_check_of_a_module_that_fails(anew, home):
    """The user's own error is shown with its place."""
    (home / "wrong.py").write_text("x = 1\n1 / 0\n", encoding="utf-8")
    ran = anew("check", "wrong.py")

    assert 2 == ran.code
    assert "ZeroDivisionError" in ran.err
    assert "line 2" in ran.err
