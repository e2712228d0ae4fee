"""`llmflow resume`: a run goes on as it began."""

from __future__ import annotations

import json
import sqlite3

import pytest

from llmflow.context import runtimes

PROGRAM = '''
from pathlib import Path

from llmflow import Model, ProviderUnavailable, Retry, Runtime, flow, prompt, step


async def answer(request):
    with Path("asked").open("a") as asked:
        asked.write(request.model.name + "\\n")
    if Path("down").exists():
        raise ProviderUnavailable("the provider is down", status=503)
    return "from " + request.model.name


Runtime(
    models={name: Model(name, handler=answer) for name in ("own/paid", "local/x", "swap/in")},
    store="sqlite:///.llmflow/llmflow.db",
).install()


@step("own/paid", Retry.off)
def reply(message: str) -> str:
    return prompt(message)


@flow
async def support(message: str) -> str:
    return await reply(message)
'''


@pytest.fixture(autouse=True)
def _desk(home):
    (home / "desk.py").write_text(PROGRAM)
    yield
    runtimes.current().close()


def down(home, *, is_down: bool) -> None:
    """Let the provider answer, or not."""
    if is_down:
        (home / "down").touch()
    else:
        (home / "down").unlink()
    (home / "asked").unlink(missing_ok=True)


def asked(home) -> list[str]:
    """Return which models were asked."""
    return (home / "asked").read_text().split() if (home / "asked").exists() else []


@pytest.fixture
def failed(llmflow, home):
    """A run that failed, for a model that its step does not name."""
    down(home, is_down=True)
    ran = llmflow("run", "desk.py:support", "--input", "hello", "--model", "local/x", "--run-id", "keep")
    down(home, is_down=False)
    return ran


def rows(home, statement: str) -> list[tuple]:
    """Read the journal."""
    connection = sqlite3.connect(home / ".llmflow" / "llmflow.db")
    found = connection.execute(statement).fetchall()
    connection.close()
    return found


# -- the model it was told ---------------------------------------------------------------------------------------------


def test_what_a_run_was_told_is_recorded(failed, home):
    """The model takes the place of those in the code, so the journal keeps it."""
    ((command,),) = rows(home, "SELECT command FROM runs")

    assert (1, {"model": "local/x"}) == (failed.code, json.loads(command))


def test_a_run_goes_on_with_the_model_it_was_told(failed, llmflow, home):
    """It says so, and does not ask the model of the step."""
    ran = llmflow("resume", "keep")

    assert (0, '"from local/x"\n', ["local/x"]) == (ran.code, ran.out, asked(home))
    assert "run keep was told --model local/x, so that is asked" in ran.err


def test_nothing_is_said_of_a_model_that_is_not_asked(failed, llmflow, home):
    """A run that has its value gives it; and --quiet says nothing."""
    quiet = llmflow("resume", "keep", "--quiet")
    again = llmflow("resume", "keep")

    assert ("", ["local/x"]) == (quiet.err, asked(home))
    assert (0, False) == (again.code, "was told" in again.err)


def test_a_run_that_was_told_nothing_asks_what_its_steps_name(llmflow, home):
    """As it did when it began."""
    down(home, is_down=True)
    llmflow("run", "desk.py:reply", "--input", "hello", "--run-id", "plain")
    down(home, is_down=False)
    ran = llmflow("resume", "plain")

    assert ('"from own/paid"\n', False) == (ran.out, "was told" in ran.err)


def test_a_map_says_the_model_too(llmflow, home):
    """It went on with it before."""
    (home / "in.jsonl").write_text('"a"\n')
    llmflow("run", "desk.py:reply", "--map", "in.jsonl", "--run-id", "m", "--model", "local/x")
    ran = llmflow("resume", "m")

    assert (0, True) == (ran.code, "run m was told --model local/x" in ran.err)


@pytest.mark.parametrize("target", ["reply", "support"])
def test_a_replay_holds_to_the_model_too(llmflow, home, target):
    """With nothing changed nothing is asked; another model can be named."""
    llmflow("run", f"desk.py:{target}", "--input", "hello", "--model", "local/x", "--run-id", "keep")
    (home / "asked").unlink()
    same, other = llmflow("replay", "keep"), llmflow("replay", "keep", "--model", "swap/in")

    assert (0, 0, ["swap/in"]) == (same.code, other.code, asked(home))
    assert "run keep was told --model local/x" in same.err
    assert "was told" not in other.err


# -- the name of a run -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [("--input", "hello"), ("--map", "in.jsonl")])
def test_no_run_is_called_last(llmflow, home, options):
    """It would hide the word; exit code 2, and nothing is sent."""
    (home / "in.jsonl").write_text('"a"\n')
    ran = llmflow("run", "desk.py:reply", *options, "--run-id", "last")

    assert (2, []) == (ran.code, asked(home))
    assert "run_id is 'last', which names the run that began last" in ran.err
