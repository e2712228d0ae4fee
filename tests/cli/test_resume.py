"""`llmflow resume`: a run goes on as it began."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys

import pytest

from llmflow.context import runtimes

PROGRAM = """
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
"""


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


# -- how a run goes on -------------------------------------------------------------------------------------------------

GO_ON = "To go on with what it has done: llmflow resume keep"


def test_a_failed_run_with_an_id_tells_how_it_goes_on(failed, llmflow, home):
    """In a line with the error, as other hints; so does one that fails again."""
    down(home, is_down=True)
    again = llmflow("resume", "keep")
    as_json = json.loads(llmflow("resume", "keep", "--json").out)

    assert (1, True) == (failed.code, f"hint: {GO_ON}\n" in failed.err)
    assert (1, True) == (again.code, f"hint: {GO_ON}\n" in again.err)
    assert GO_ON in as_json["error"]["hints"]


def test_a_run_whose_inputs_are_not_stored_tells_how_it_goes_on(llmflow, home):
    """Somebody has to give them again."""
    (home / "desk.py").write_text(PROGRAM.replace("Runtime(", "Runtime(store_content=False, "))
    down(home, is_down=True)
    ran = llmflow("run", "desk.py:support", "--input", "hello", "--model", "local/x", "--run-id", "my run")

    assert (
        "hint: Give it the same input again: llmflow run desk.py:support --input ... --run-id 'my run' --model local/x\n"
    ) in ran.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--input", "hello"), "the provider is down"),
        (("--run-id", "keep"), "needs message"),
        (("--input", "other", "--run-id", "begun"), "was begun with other inputs"),
    ],
)
def test_nothing_to_take_up_is_not_spoken_of(llmflow, home, options, said):
    """A run without an id, one that never began, and one that is another."""
    llmflow("run", "desk.py:support", "--input", "hello", "--run-id", "begun")
    down(home, is_down=True)
    ran = llmflow("run", "desk.py:support", *options)

    assert (True, False) == (said in ran.err, "llmflow resume" in ran.err)


@pytest.mark.parametrize("journal", ["memory://", "sqlite:///none/of.db"])
def test_a_journal_that_cannot_be_read_is_no_reason_for_another_error(journal, llmflow, home):
    """The hint is left out."""
    (home / "none").write_text("a file, and no folder")
    (home / "desk.py").write_text(PROGRAM.replace("sqlite:///.llmflow/llmflow.db", journal))
    down(home, is_down=True)
    ran = llmflow("run", "desk.py:support", "--input", "hello", "--run-id", "keep")

    assert (1, False) == (ran.code, "llmflow resume" in ran.err)


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(
    ("options", "err"),
    [
        (("--run-id", "keep"), f"interrupted; {GO_ON}\n"),
        (("--run-id", "keep", "--quiet"), ""),
        ((), ""),
    ],
)
def test_ctrl_c_tells_how_a_run_goes_on(home, options, err):
    """One line, unless nothing but data and errors is wanted."""
    (home / "waits.py").write_text(
        "import asyncio\nfrom llmflow import task\n@task\nasync def waiting(x: str) -> str:\n"
        "    print('started', flush=True)\n    await asyncio.sleep(60)\n    return x\n"
    )
    command = [sys.executable, "-m", "llmflow", "run", "waits.py:waiting", "-i", "x", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "started\n" == process.stderr.readline()
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1]

    assert (130, err) == (process.returncode, said)
