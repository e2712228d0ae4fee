"""`llmflow resume`: a run goes on as it began."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import llmflow as package
from llmflow.cli._taking_up import telling_how
from llmflow.context import runtimes
from llmflow.errors import JournalUnavailable

PYTHONPATH = str(Path(package.__file__).parents[1])

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
        "hint: Give it the same input again: llmflow run desk.py:support --input ... --run-id 'my run' --model local/x"
        " --rerun-changed\n"
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


class Broken:
    """A journal that cannot be read."""

    def runs(self, name):
        raise JournalUnavailable(name)


@pytest.mark.parametrize("journal", [Broken(), object()])
def test_a_journal_that_cannot_be_asked_leaves_the_error_as_it_is(journal):
    """What went wrong is told, not what went wrong with telling it."""
    with pytest.raises(ValueError, match="as it is") as caught:
        with telling_how(SimpleNamespace(journal=journal), "keep", "a.py:b", quiet=False):
            raise ValueError("as it is")

    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("quiet", [False, True])
def test_ctrl_c_in_this_process(llmflow, home, quiet):
    """As in a process of its own."""
    (home / "stop.py").write_text(
        "from llmflow import task\n@task\nasync def stop(x: str) -> str:\n    raise KeyboardInterrupt\n"
    )
    ran = llmflow("run", "stop.py:stop", "-i", "x", "--run-id", "keep", *(["-q"] if quiet else []))

    assert (130, "" if quiet else f"interrupted; {GO_ON}\n") == (ran.code, ran.err)


def test_a_map_that_a_program_began_is_taken_up_there(llmflow, home):
    """Only the program has its items; what a command told another run is nothing about them."""
    (home / "many.py").write_text(
        "import asyncio, desk\nasync def main():\n    await desk.reply.with_(run_id='m').map(['a'])\nasyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "many.py"], check=True, timeout=60, env={**os.environ, "PYTHONPATH": PYTHONPATH})
    ran = llmflow("resume", "m", "--target", "desk.py:reply")

    assert (2, True) == (ran.code, "is a map whose items came from a program" in ran.err)


def test_a_map_of_what_came_in_by_a_pipe_needs_it_again(llmflow, shell, home):
    """The command is named."""
    shell("run", "desk.py:reply", "--map", "-", "--run-id", "m", stdin='"a"\n')
    ran = llmflow("resume", "m")

    assert (2, True) == (ran.code, "llmflow run desk.py:reply --map - --run-id m" in ran.err)


# -- content that is not stored ----------------------------------------------------------------------------------------

HASHED = PROGRAM.replace("Runtime(", "Runtime(store_content=False, ")
CHAIN = """

@step("own/paid", Retry.off)
def last(reply: str) -> str:
    return prompt(f"last {reply}")


@flow
async def chain(message: str) -> str:
    return await last(await reply(message))
"""
REDACTING = PROGRAM.replace(
    "Runtime(",
    """
class Hiding:
    @hookimpl
    def llmflow_redactors(self, name):
        return [lambda text: text.replace("hello", "***")]


Runtime(plugins=[Hiding()], """,
    1,
).replace("import Model", "import hookimpl, Model")


def half_done(llmflow, home, program: str) -> None:
    """Leave a run whose first node is done and whose second one failed."""
    text = program.replace('if Path("down").exists():', 'if Path("down").exists() and "last" in str(request.messages):')
    (home / "desk.py").write_text(text + CHAIN)
    down(home, is_down=True)
    assert 1 == llmflow("run", "desk.py:chain", "--input", "hello", "--run-id", "s1").code
    down(home, is_down=False)


def command_in(err: str) -> list[str]:
    """Return the command that a message names, with the input that was given."""
    found = re.search(r"llmflow (run .*? --run-id s1(?: --rerun-changed)?)", err)
    assert found is not None
    return shlex.split(found[1].replace("...", "hello"))


def test_each_message_about_hashes_names_a_way_that_works(llmflow, home):
    """`resume` names the command that gives the inputs again, and so does what that command says without its option."""
    half_done(llmflow, home, HASHED)
    conflict = llmflow("run", "desk.py:chain", "--input", "hello", "--run-id", "s1")
    resumed = llmflow("resume", "s1", "--rerun-changed")
    told = command_in(resumed.err)
    done = llmflow(*told)

    assert (2, ["run", "desk.py:chain", "--input", "hello", "--run-id", "s1", "--rerun-changed"]) == (
        resumed.code,
        told,
    )
    assert (1, True) == (
        conflict.code,
        "llmflow run ... --run-id s1 --rerun-changed with the same input" in conflict.err,
    )
    assert "llmflow resume" not in resumed.err + conflict.err
    assert (0, '"from own/paid"\n', 2) == (done.code, done.out, len(asked(home)))


def test_a_run_with_redacted_inputs_is_taken_up_by_giving_them_again(llmflow, home):
    """What it has done is taken from the record, as its own inputs and answers are whole or not asked about."""
    half_done(llmflow, home, REDACTING)
    resumed = llmflow("resume", "s1")
    done = llmflow(*command_in(resumed.err))

    assert "texts in the inputs of run 's1' were redacted" in resumed.err
    assert "run_id='s1'" in resumed.err
    assert (0, '"from own/paid"\n', 1) == (done.code, done.out, len(asked(home)))


@pytest.mark.parametrize("target", ["reply", "support"])
def test_a_run_that_has_ended_gives_its_value_whatever_became_of_its_inputs(llmflow, home, target):
    """The value is stored whole, so nobody needs the inputs."""
    (home / "desk.py").write_text(REDACTING)
    llmflow("run", f"desk.py:{target}", "--input", "hello", "--run-id", "s1")
    ran, as_json = llmflow("resume", "s1"), llmflow("resume", "s1", "--json")

    assert (0, '"from own/paid"\n', ["own/paid"]) == (ran.code, ran.out, asked(home))
    assert f"{target}: run s1 had ended well" in ran.err
    assert ("from own/paid", "s1") == (json.loads(as_json.out)["value"], json.loads(as_json.out)["run_id"])


@pytest.mark.parametrize(("target", "said"), [("reply", "only hashes are stored"), ("support", "was not stored")])
def test_a_value_that_is_not_stored_is_not_given(llmflow, home, target, said):
    """What can be done is to use another id; asking again under this one is no way out, and is not named."""
    (home / "desk.py").write_text(HASHED)
    llmflow("run", f"desk.py:{target}", "--input", "hello", "--run-id", "s1")
    ran = llmflow("resume", "s1")

    assert (1, True) == (ran.code, said in ran.err)
    assert "use another run id" in ran.err
    assert "--rerun-changed" not in ran.err


def test_the_target_of_a_value_is_the_one_that_gave_it(llmflow, home):
    """--target names where it is now, not something else."""
    (home / "desk.py").write_text(REDACTING)
    llmflow("run", "desk.py:reply", "--input", "hello", "--run-id", "s1")
    ran = llmflow("resume", "s1", "--target", "desk.py:support")

    assert (2, True) == (ran.code, "run 's1' is of step 'reply', not of flow 'support'" in ran.err)


def test_an_argument_that_could_not_be_stored_is_named(llmflow, home):
    """Only the program has it."""
    (home / "thing.py").write_text(
        "from llmflow import Runtime, task\n"
        "runtime = Runtime(store='sqlite:///.llmflow/llmflow.db').install()\n"
        "class Thing: ...\n"
        "@task\ndef use(thing: Thing) -> int:\n    raise ValueError('not now')\n"
    )
    code = "import thing\ntry:\n    thing.use.with_(run_id='s1').sync(thing.Thing())\nexcept ValueError:\n    pass\n"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    ran = llmflow("resume", "s1", "--target", "thing.py:use")

    assert 2 == ran.code
    assert "the argument 'thing' of run 's1' could not be stored" in ran.err
    assert "Call 'use' again in your program" in ran.err


# -- what to do about changes ------------------------------------------------------------------------------------------


def test_run_takes_the_options_of_resume(llmflow, home):
    """A changed prompt is refused, asked again, or what is recorded is used."""
    half_done(llmflow, home, PROGRAM)
    text = (home / "desk.py").read_text()
    (home / "desk.py").write_text(text.replace("return prompt(message)", "return prompt('now ' + message)"))
    sys.modules.pop("desk")
    runtimes.current().close()
    command = ("run", "desk.py:chain", "--input", "hello", "--run-id", "s1")
    refused, used = llmflow(*command), llmflow(*command, "--use-recorded")

    assert (1, 0) == (refused.code, used.code)
    assert "llmflow resume --rerun-changed" in refused.err
    assert 1 == len(asked(home))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--use-recorded",), "--use-recorded belongs to --run-id"),
        (("--rerun-changed",), "--rerun-changed belongs to --run-id"),
        (("--run-id", "a", "--use-recorded", "--rerun-changed"), "--use-recorded and --rerun-changed exclude"),
    ],
)
def test_what_to_do_about_changes_is_said_once_and_of_a_run_with_an_id(llmflow, home, options, said):
    """Exit code 2, and nothing is sent."""
    ran = llmflow("run", "desk.py:reply", "--input", "hello", *options)

    assert (2, True, []) == (ran.code, said in ran.err, asked(home))


def test_a_map_takes_the_options_too(llmflow, home):
    """Its items are nodes as others are: of hashes alone they are asked again."""
    (home / "desk.py").write_text(HASHED)
    (home / "in.jsonl").write_text('"a"\n')
    command = ("run", "desk.py:reply", "--map", "in.jsonl", "--run-id", "m")
    first, refused, again = llmflow(*command), llmflow(*command), llmflow(*command, "--rerun-changed")

    assert (0, 1, 0) == (first.code, refused.code, again.code)
    assert ["own/paid"] * 2 == asked(home)


def test_resume_does_what_the_runtime_says_about_changes(llmflow, home):
    """Unless an option says something else."""
    half_done(llmflow, home, PROGRAM)
    text = (home / "desk.py").read_text().replace("return prompt(message)", "return prompt('now ' + message)")
    (home / "desk.py").write_text(text.replace("Runtime(", "Runtime(on_change='rerun-changed', "))
    sys.modules.pop("desk")
    runtimes.current().close()
    ran = llmflow("resume", "s1")

    assert (0, 2) == (ran.code, len(asked(home)))
