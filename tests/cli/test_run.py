"""`llmflow run` of one call: inputs, outputs, exit codes."""

import io
import json
import sys

import pytest

TICKET = {"category": "billing", "urgent": True}


def test_value_on_stdout_and_record_on_stderr(llmflow):
    """The value is the only thing on stdout, as JSON; what it took is one line on stderr."""
    ran = llmflow("run", "program.py:triage", "--input", "charged twice")

    assert (0, TICKET) == (ran.code, json.loads(ran.out))
    assert 1 == len(ran.err.splitlines())
    assert all(said in ran.err for said in ("fake/one", "120 tokens in, 14 out", "1 attempt", "cost unknown"))


def test_quiet_leaves_the_value_alone(llmflow):
    """--quiet writes nothing to stderr."""
    ran = llmflow("run", "program:triage", "-i", "x", "--quiet")

    assert (TICKET, "") == (json.loads(ran.out), ran.err)


def test_json_gives_the_record(llmflow):
    """--json wraps the value in the record of the run."""
    said = json.loads(llmflow("run", "program.py:support", "-i", "x", "--json", "-q").out)

    assert (TICKET, 120, ["triage"]) == (said["value"], said["input_tokens"], [one["step"] for one in said["calls"]])


@pytest.mark.parametrize("given", ['{"message": "hi"}', '"hi"', "hi", "42", "  hi  ", "null"])
def test_one_text_parameter_takes_json_or_plain_text(llmflow, given):
    """Named, bare or plain: a target of one text takes all of them."""
    assert 0 == llmflow("run", "program.py:triage", "-i", given).code


def test_input_from_a_file(llmflow, home):
    """@file is read as UTF-8, with or without a byte order mark."""
    (home / "in.json").write_text('{"message": "hi", "urgency": 3}', encoding="utf-8-sig")

    assert 0 == llmflow("run", "program.py:careful", "-i", "@in.json").code


def test_input_from_stdin(llmflow, monkeypatch):
    """- is stdin."""
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"message": "hi", "urgency": 3}'))

    assert 0 == llmflow("run", "program.py:careful", "-i", "-").code


def test_a_model_is_made_from_a_bare_object(llmflow):
    """An object that names no parameter is the argument of a target that takes a model."""
    assert '"bug"' == llmflow("run", "program.py:when_is", "-i", '{"category": "bug", "urgent": false}').out.strip()


def test_what_the_program_prints_is_no_data(llmflow, home):
    """print() in the user's code goes to stderr."""
    (home / "chatty.py").write_text(
        "from llmflow import task\nprint('loading')\n@task\ndef one() -> int:\n    print('at work')\n    return 1\n"
    )
    ran = llmflow("run", "chatty.py:one")

    assert "1\n" == ran.out
    assert "loading" in ran.err
    assert "at work" in ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("program.py:careful", "-i", '{"message": "x", "urgency": "high"}'),
            "urgency: Input should be a valid integer",
        ),
        (("program.py:careful", "-i", '{"message": "x"}'), "urgency is missing"),
        (("program.py:careful", "-i", '{"message": "x", "urgency": 1, "mood": 2}'), "has no parameter 'mood'"),
        (
            ("program.py:careful", "-i", '{"message": "x", "urgency": 1, "ticket": {"category": "bug"}}'),
            "ticket.urgent: Field required",
        ),
        (("program.py:careful", "-i", "[1]"), "the input is a list"),
        (("program.py:careful", "-i", "hello"), "the input is not JSON: Expecting value at line 1, column 1"),
        (("program.py:careful",), "needs message: str, urgency: int"),
        (("program.py:triage", "-i", '{"message": '), "the input is not JSON"),
        (("program.py:triage", "-i", '{"massage": "x"}'), "has no parameter 'massage'"),
        (("program.py:triage", "-i", "NaN and more"), None),
        (("program.py:triage", "-i", "@missing.json"), "--input @missing.json: cannot read the file"),
        (("program.py:triage", "-i", "x", "--model", "gpt-5"), "--model 'gpt-5' does not name its provider"),
        (("program.py:triage", "-i", "x", "--model", "nowhere/gpt-5"), "no provider is called 'nowhere'"),
        (("program.py:unknown", "-i", "x"), "no provider is called 'nowhere'"),
        (("program.py:modelless", "-i", "x"), "has no model and the runtime has no default"),
        (("program.py:triage", "-i", "x", "--out", "f"), "--out belongs to --map"),
        (("program.py:triage", "-i", "x", "--map", "f"), "--input and --map exclude each other"),
    ],
)
def test_wrong_use_is_said_without_a_traceback(llmflow, arguments, said):
    """Exit code 2, nothing on stdout, one clear sentence."""
    ran = llmflow("run", *arguments)
    if said is None:
        assert 0 == ran.code
        return

    assert (2, "") == (ran.code, ran.out)
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_a_validator_is_quoted_in_its_own_words(llmflow, home):
    """What pydantic puts before them is nobody's business."""
    (home / "own.py").write_text(
        "from typing import Annotated\nfrom pydantic import AfterValidator\nfrom llmflow import task\n"
        "def even(number: int) -> int:\n    if number % 2:\n        raise ValueError('is odd')\n    return number\n"
        "@task\ndef half(number: Annotated[int, AfterValidator(even)]) -> int:\n    return number // 2\n"
    )
    ran = llmflow("run", "own.py:half", "-i", "3")

    assert 2 == ran.code
    assert "number: is odd\n" in ran.err


def test_missing_key_names_the_variable(llmflow):
    """A model without its key says which variable to set."""
    ran = llmflow("run", "program.py:keyless", "-i", "x")

    assert ran.code in (1, 2)
    assert "OPENAI_API_KEY" in ran.err


def test_a_failed_run_tells_step_and_attempts(llmflow):
    """Exit code 1, the step, and what was tried."""
    ran = llmflow("run", "program.py:triage", "-i", "down")

    assert 1 == ran.code
    assert "error: step 'triage': the provider is down" in ran.err
    assert "fake/one: ProviderUnavailable 503 2 times" in ran.err


def test_every_cause_of_an_exhausted_fallback_is_told(llmflow):
    """The attempts of both models are listed."""
    ran = llmflow("run", "program.py:careful", "-i", '{"message": "down", "urgency": 1}')

    assert 1 == ran.code
    assert "fake/one: ProviderUnavailable" in ran.err
    assert "fake/two: ProviderUnavailable" in ran.err


def test_an_error_as_json(llmflow):
    """--json writes the failure to stdout."""
    ran = llmflow("run", "program.py:triage", "-i", "prose", "--json")
    error = json.loads(ran.out)["error"]

    assert (1, "InvalidOutput", "triage", 3) == (ran.code, error["type"], error["step"], len(error["attempts"]))


def test_wrong_use_as_json(llmflow):
    """--json holds for wrong use too."""
    ran = llmflow("run", "program.py:nothing", "--json")

    assert (2, "UsageError") == (ran.code, json.loads(ran.out)["error"]["type"])


def test_a_refused_budget_is_exit_code_3(llmflow):
    """A budget that refuses is told apart from a run that failed."""
    assert 3 == llmflow("run", "program.py:triage", "-i", "poor").code


def test_the_users_own_exception_shows_the_users_own_frames(llmflow):
    """A task that raises shows its file and line, and nothing of llmflow's inside."""
    ran = llmflow("run", "program.py:broken", "-i", "3")

    assert (1, "") == (ran.code, ran.out)
    assert "ZeroDivisionError: division by zero" in ran.err
    assert "program.py" in ran.err
    assert "raised in task 'broken'" in ran.err
    assert "llmflow/step" not in ran.err


def test_debug_shows_everything(llmflow):
    """--debug adds the whole traceback."""
    assert "Traceback (most recent call last)" in llmflow("run", "program.py:broken", "-i", "3", "--debug").err


def test_model_replaces_every_model(llmflow, home):
    """--model takes the place of the step's model."""
    (home / "other.py").write_text(
        "from llmflow import Model, Runtime, prompt, step\n"
        "async def answer(request):\n    return 'from ' + request.model.name\n"
        "Runtime(models={'swap/in': Model('swap/in', handler=answer)}).install()\n"
        "@step('nowhere/model')\ndef say(text: str) -> str:\n    return prompt(text)\n"
    )
    from llmflow.context import runtimes

    ran = llmflow("run", "other.py:say", "-i", "x", "--model", "swap/in")
    runtimes.current().close()

    assert (0, '"from swap/in"') == (ran.code, ran.out.strip())
