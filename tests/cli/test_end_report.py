"""What stands at the end of a run: only what there is something to say about."""

import io
import json
from decimal import Decimal

import pytest
from rich.console import Console

from llmflow.cli._end_report import end_report, state_line
from llmflow.cli._report import dollars
from llmflow.observers import ModelStats, Stats, StepStats, TenantStats
from llmflow.policy import State

PRESSED = """
from llmflow import Budget, Cache, CircuitBreaker, Model, Price, ProviderUnavailable, RateLimit, Reply, Retry, Usage
from llmflow import context, flow, prompt, step, task


async def answer(request):
    if "down" in request.messages[-1].content:
        raise ProviderUnavailable("503", status=503)
    return Reply(text="fine", usage=Usage(input_tokens=1000, output_tokens=1000))


MODEL = Model("fake/one", handler=answer, price=Price(input=1, output=2))
OTHER = Model("fake/two", handler=answer, price=Price(input=1, output=2))


@step(MODEL, Cache("1h"), Budget(usd="1", per="total"), RateLimit(100))
def reply(message: str) -> str:
    return prompt("the same for all")


@step(OTHER, Retry.off, CircuitBreaker(min_calls=1))
def shaky(message: str) -> str:
    return prompt(message)


@flow
async def both(message: str) -> str:
    await shaky(message)
    return await reply(message)


@task
async def tenant(message: str) -> str:
    with context(tenant="acme"):
        return await reply(message)
"""


def shown(stats, width=80):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    for part in end_report(stats, width=width):
        console.print(part)
    return console.file.getvalue()


@pytest.fixture(autouse=True)
def _pressed(home):
    (home / "pressed.py").write_text(PRESSED, encoding="utf-8")


def test_a_map_tells_hits_and_what_they_saved(llmflow, home):
    """Three lines that ask the same are one request."""
    (home / "in.jsonl").write_text('"a"\n"b"\n"c"\n', encoding="utf-8")
    ran = llmflow("run", "pressed.py:reply", "--map", "in.jsonl", "-c", "1")

    assert 0 == ran.code
    assert "2 cache hits that saved $0.0060" in ran.err
    assert "budget step:reply: $0.0030 of $1.00 spent in total" in ran.err
    assert "rate limit fake/one: 1 of 100 requests in 1 min 0 s, 0 waiting" in ran.err


def test_a_map_tells_breakers_and_models(llmflow, home):
    """An open breaker explains why most lines failed."""
    (home / "in.jsonl").write_text('"up"\n"down"\n"down"\n', encoding="utf-8")
    ran = llmflow("run", "pressed.py:both", "--map", "in.jsonl", "-c", "1")

    assert 1 == ran.code
    assert "breaker fake/two: open" in ran.err
    assert "model" in ran.err
    assert "fake/two" in ran.err


def test_a_map_tells_tenants(llmflow, home):
    """Who the calls were made for."""
    (home / "in.jsonl").write_text('"a"\n', encoding="utf-8")

    assert "acme" in llmflow("run", "pressed.py:tenant", "--map", "in.jsonl").err


def test_a_single_run_tells_that_it_was_cached(llmflow):
    """The second one costs nothing, and the first one's price is what it saved."""
    llmflow("run", "pressed.py:reply", "--input", "a")
    ran = llmflow("run", "pressed.py:reply", "--input", "a", "--json")

    assert "cached, saved $0.0030" in ran.err
    assert "0.003" == json.loads(ran.out)["saved_usd"]


def test_the_loser_of_a_hedge_has_not_failed():
    """It was cancelled because the other one answered; what the provider did wrong is told apart from that."""
    ask = ModelStats(attempts=9, errors={"cancelled": 3, "ProviderUnavailable": 1})
    said = shown(Stats(steps={}, models={"a/b": ask, "c/d": ModelStats(attempts=2)}))

    assert ["9", "1"] == next(line for line in said.splitlines() if line.startswith("a/b")).split()[1:3]


def test_json_tells_of_each_step_of_a_flow_what_it_cost_and_saved(llmflow):
    """What stands in the text for a person is there for a program too."""
    llmflow("run", "pressed.py:both", "--input", "a")
    calls = json.loads(llmflow("run", "pressed.py:both", "--input", "b", "--json").out)["calls"]

    # Neither waits for the other, so which is told first is open.
    assert {("shaky", False, "0.003", None), ("reply", True, "0", "0.003")} == {
        (one["step"], one["cached"], one["cost_usd"], one["saved_usd"]) for one in calls
    }


def test_one_step_of_one_model_needs_no_report():
    """The line before it has said all there is."""
    stats = Stats(steps={"triage": StepStats(calls=1)}, models={"a/b": ModelStats(attempts=1)})

    assert "" == shown(stats)


def test_what_policies_did_is_told_where_they_did_something():
    """Hits, savings, waits and throttled retries: columns of zeros are left out, and so is the whole."""
    nothing = shown(Stats(steps={"one": StepStats(calls=1), "two": StepStats(calls=1)}, models={}))
    busy = StepStats(calls=1, hits=1, saved_usd=Decimal("0.5"), throttled=2)
    said = shown(Stats(steps={"one": busy, "two": StepStats(calls=1)}, models={}))

    assert "cache hits" not in nothing
    assert ["step", "cache", "hits", "saved", "not", "retried"] == said.splitlines()[-3].split()
    assert ["two", "-", "-", "-"] == said.splitlines()[-1].split()


def test_a_full_report_fits_80_columns():
    """Nothing is broken over lines on a narrow terminal."""
    step = StepStats(
        calls=1200, errors={"x": 3}, attempts=2300, reasks=12, repaired=13, retries=77, fallbacks=4, hits=900,
        throttled=2, waited_s=75.0, input_tokens=1_234_567, output_tokens=345_678, cost_usd=Decimal("12.34"),
        saved_usd=Decimal("3.21"),
    )  # fmt: skip
    stats = Stats(
        steps={"draft": step, "triage": step},
        models={"openai/gpt-5-mini": ModelStats(attempts=3), "anthropic/claude-haiku-4-5": ModelStats(attempts=3)},
        tenants={"acme": TenantStats(calls=3, hits=1, cost_usd=Decimal(1), saved_usd=Decimal(2))},
    )
    report = shown(stats, width=80)

    assert 80 >= max(map(len, report.splitlines()))
    assert (2 + 2) + (1 + 2) + (1 + 2) + (1 + 1) == len(report.splitlines())


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (State(kind="breaker", name="a/b", values={"state": "closed", "calls": 3, "failures": 1}), None),
        (
            State(kind="breaker", name="a/b", values={"state": "half_open", "calls": 3, "failures": 2}),
            "breaker a/b: half_open, 2 of 3 requests failed",
        ),
        (
            State(
                kind="budget",
                name="day",
                values={
                    "per": "day",
                    "usd": Decimal(5),
                    "usd_settled": Decimal("1.5"),
                    "calls": 1000,
                    "calls_settled": 10,
                },
            ),
            "budget day: $1.50 of $5.00, 10 of 1,000 calls spent this day, by this process",
        ),
        (State(kind="retries", name="a/b", values={"left": 40.0}), None),
    ],
)
def test_a_state_in_one_line(state, line):
    """What is as it should be says nothing."""
    assert line == state_line(state)


@pytest.mark.parametrize(
    ("cost", "unpriced", "said"),
    [
        (Decimal("0.000011"), 0, "$0.000011"),
        (Decimal("0.000011"), 2, "> $0.000011"),
        (Decimal("0.0024"), 0, "$0.0024"),
        (Decimal(1234), 0, "$1,234.00"),
        (Decimal(0), 0, "$0.00"),
        (Decimal(0), 1, "unknown"),
        (None, 0, "unknown"),
    ],
)
def test_little_money_is_shown_as_the_reports_show_it(cost, unpriced, said):
    """Two digits of what is very little: a cost is never shown as nothing."""
    assert said == dollars(cost, unpriced)
