"""`llmflow run --dry-run`: what it would take at worst, and not a single request."""

import json

import pytest

PRICED = """
from llmflow import Budget, Model, Price, Retry, flow, prompt, step


async def answer(request):
    raise SystemExit("a dry run sent something")


MODEL = Model("fake/one", handler=answer, price=Price(input=1, output=2))


@step(MODEL, Retry.off, params={"max_tokens": 100})
def reply(message: str) -> str:
    print("the body runs")
    return prompt(message)


@step(MODEL, Budget(usd="0.000001"), params={"max_tokens": 100})
def poor(message: str) -> str:
    return prompt(message)


@flow
async def both(message: str) -> str:
    return await reply(await reply(message))
"""


@pytest.fixture(autouse=True)
def _priced(home):
    (home / "priced.py").write_text(PRICED, encoding="utf-8")


def test_a_dry_run_prints_the_plan_with_these_inputs(llmflow):
    """The prompt is counted, and what bodies print is no data."""
    ran = llmflow("run", "priced.py:reply", "--dry-run", "--input", "Hello")

    assert 0 == ran.code
    assert "at worst: 3 provider calls, $0.00" in ran.out
    assert "assumes" not in ran.out
    assert "the body runs" not in ran.out


def test_a_dry_run_without_inputs_assumes_long_prompts(llmflow):
    """And says so."""
    ran = llmflow("run", "priced.py:both", "--dry-run")

    assert "at worst: 6 provider calls" in ran.out
    assert "assumes prompts of up to 8,192 tokens" in ran.out


def test_a_dry_run_as_json(llmflow):
    """For a program that decides whether to go on."""
    said = json.loads(llmflow("run", "priced.py:both", "--dry-run", "--input", "Hello", "--json").out)

    assert (6, ["both/reply", "both/reply#2"]) == (said["bounds"]["calls"], [node["key"] for node in said["nodes"]])


def test_a_dry_run_of_a_map_counts_its_lines(llmflow, home):
    """A line that does not fit would fail by itself: it is named and not counted."""
    (home / "in.jsonl").write_text('"a"\n{"nonsense": 1}\n\n"b"\n', encoding="utf-8")
    ran = llmflow("run", "priced.py:reply", "--dry-run", "--map", "in.jsonl")

    assert 0 == ran.code
    assert "for all 2 items" in ran.out
    assert "at worst: 6 provider calls" in ran.out
    assert "line 2: step 'reply' has no parameter 'nonsense'" in ran.err
    assert not (home / ".llmflow" / "llmflow.db").exists()


def test_a_dry_run_of_a_flow_over_a_file(llmflow, home):
    """Its nodes stay, as those of one item."""
    (home / "in.jsonl").write_text('"a"\n"b"\n"c"\n', encoding="utf-8")
    said = json.loads(llmflow("run", "priced.py:both", "--dry-run", "--map", "in.jsonl", "--json").out)

    assert (18, 3, 3) == (said["bounds"]["calls"], said["items"], said["nodes"][0]["bounds"]["calls"])


def test_a_dry_run_of_a_file_that_is_not_there(llmflow):
    """Exit code 2."""
    ran = llmflow("run", "priced.py:reply", "--dry-run", "--map", "nowhere.jsonl")

    assert 2 == ran.code
    assert "nowhere.jsonl: cannot read the file" in ran.err


@pytest.mark.filterwarnings("ignore::llmflow.BudgetTooSmallWarning")
@pytest.mark.parametrize("extra", [(), ("--json",)])
def test_a_budget_that_pays_for_nothing_ends_a_dry_run_with_3(llmflow, extra):
    """So that a deployment can be stopped by it."""
    ran = llmflow("run", "priced.py:poor", "--dry-run", "--input", "Hello", *extra)

    assert 3 == ran.code
    assert "cannot pay for a request to fake/one" in ran.out
