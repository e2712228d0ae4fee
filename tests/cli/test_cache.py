"""`llmflow cache`, and where commands keep answers."""

from __future__ import annotations

import json

import pytest

PROGRAM = """
import sys
from llmflow import Cache, Model, prompt, step


async def answer(request):
    print("asked", file=sys.stderr)
    return "a secret answer"


@step(Model("fake/one", handler=answer), Cache("1h"))
def reply(message: str) -> str:
    return prompt(message)


@step(Model("fake/one", handler=answer))
def uncached(message: str) -> str:
    return prompt(message)
"""


@pytest.fixture(autouse=True)
def program(home):
    (home / "cached.py").write_text(PROGRAM, encoding="utf-8")


def test_a_command_keeps_answers_for_the_next(shell, home):
    """The second run of the same question asks nobody."""
    first = shell("run", "cached.py:reply", "--input", "x", "--quiet")
    second = shell("run", "cached.py:reply", "--input", "x", "--quiet")

    assert ('"a secret answer"\n', "asked\n") == (first.out, first.err)
    assert ('"a secret answer"\n', "") == (second.out, second.err)
    assert (home / ".llmflow" / "llmflow.db").exists()


def test_a_command_that_runs_nothing_leaves_no_file(shell, home):
    """The file is made when something is kept or recorded; a step without a cache keeps no answer in it."""
    shell("plan", "cached.py:reply")
    made_by_plan = (home / ".llmflow").exists()
    shell("run", "cached.py:uncached", "--input", "x")

    assert (False, True) == (made_by_plan, (home / ".llmflow" / "llmflow.db").exists())
    assert [] == json.loads(shell("cache", "ls", "--json").out)["entries"]


def test_another_place_may_be_named(shell, home):
    """By a variable, or in pyproject.toml; `store` counts where `cache` says nothing."""
    (home / "pyproject.toml").write_text('[tool.llmflow]\nstore = "sqlite:///from_file.db"\n', encoding="utf-8")
    shell("run", "cached.py:reply", "--input", "x")
    shell("run", "cached.py:reply", "--input", "x", LLMFLOW_CACHE="sqlite:///from_variable.db")

    assert [True, True, False] == [
        (home / name).exists() for name in ("from_file.db", "from_variable.db", ".llmflow/llmflow.db")
    ]


def test_entries_are_listed_and_dropped(shell):
    """With what they are about, never with what was answered."""
    for word in ("x", "y"):
        shell("run", "cached.py:reply", "--input", word)
    listed = shell("cache", "ls")
    as_json = json.loads(shell("cache", "ls", "--json").out)
    none = shell("cache", "clear", "--step", "other")
    dropped = shell("cache", "clear", "--step", "reply")

    assert ["step", "reply", "reply"] == [line.split()[0] for line in listed.out.splitlines()]
    assert "2 answers in sqlite:///" in listed.err
    assert ["reply", "reply"] == [one["step"] for one in as_json["entries"]]
    assert "secret" not in listed.out + json.dumps(as_json)
    assert none.err.startswith("0 answers of step 'other' dropped")
    assert dropped.err.startswith("2 answers of step 'reply' dropped")
    assert shell("cache", "ls").err.startswith("nothing is kept in sqlite:///")


def test_a_cache_in_memory_cannot_be_listed(shell):
    """It belongs to another process, if to any."""
    ran = shell("cache", "ls", LLMFLOW_CACHE="memory://")

    assert (2, "") == (ran.code, ran.out)
    assert ran.err.startswith("error: the cache is in memory")


def test_a_file_that_cannot_be_read_is_said(shell, home):
    """Where a call would go on without it, a person wants to know."""
    (home / "cache.db").write_bytes(b"no database" * 100)
    ran = shell("cache", "ls", LLMFLOW_CACHE="sqlite:///cache.db")

    assert 2 == ran.code
    assert "cannot be used: file is not a database" in ran.err


def test_a_cache_that_cannot_be_written_is_told_of_in_a_line(shell, home):
    """K7: the call goes on, and the person in front of it hears why the next one will be paid for again."""
    (home / "taken").write_text("a file where a folder is needed", encoding="utf-8")
    cache = f"sqlite:///{home / 'taken' / 'answers.db'}"
    told, quiet = (
        shell("run", "cached.py:reply", "--input", "x", *options, LLMFLOW_CACHE=cache) for options in ((), ("--quiet",))
    )

    assert (0, 0) == (told.code, quiet.code)
    assert "warning: the cache " in told.err
    assert "calls go on without it\n" in told.err
    assert "asked\n" == quiet.err


def test_a_warning_of_llmflow_is_a_line_without_its_source(shell, home):
    """Where in llmflow it was raised helps nobody; what another library warns of is left as it is."""
    poor = PROGRAM.replace("prompt, step", "prompt, step, Budget, Price").replace(
        'handler=answer), Cache("1h")', 'handler=answer, price=Price(input=1, output=1)), Budget("0.000001")'
    )
    (home / "poor.py").write_text(poor + "\nimport warnings\nwarnings.warn('of another', stacklevel=1)\n", "utf-8")
    told = shell("plan", "poor.py:reply").err

    assert "\nwarning: step 'reply': budget 'step:reply' (per run) of $0.000001 cannot pay" in told
    assert "_fold.py" not in told
    assert "poor.py:" in told
    assert "UserWarning: of another" in told
