"""What validation costs, beside its floor: pydantic's own `model_validate_json` of the same answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pytest
from pydantic import BaseModel

from llmflow.prompts import Template, prompt, render
from llmflow.schema import OutputSchema

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture

pytest.importorskip("pytest_benchmark")


class Ticket(BaseModel):
    """Three fields, as in the README."""

    category: Literal["billing", "bug", "other"]
    urgent: bool
    score: float


ANSWER = '{"category": "billing", "urgent": true, "score": 0.5}'
OUTPUT = OutputSchema.of(Ticket, step="triage")
TEMPLATE = Template("Classify this support message: {{ message }}", step="triage")
INPUTS = {"message": "I was charged twice."}


@pytest.mark.benchmark(group="parse a 3-field model")
@pytest.mark.parametrize(
    "parse",
    [Ticket.model_validate_json, OUTPUT.parse, OUTPUT.parse_or_repair],
    ids=["floor: model_validate_json", "parse", "parse_or_repair"],
)
def test_parse(benchmark: BenchmarkFixture, parse: Callable[[str], Any]) -> None:
    """Validation without non-finite numbers costs what validation costs."""
    benchmark(parse, ANSWER)


@pytest.mark.benchmark(group="repair a fenced answer")
def test_repair(benchmark: BenchmarkFixture) -> None:
    """A fence costs less than a hundredth of a request."""
    benchmark(OUTPUT.parse_or_repair, f"Sure:\n```json\n{ANSWER}\n```")


@pytest.mark.benchmark(group="build messages")
def test_render_text(benchmark: BenchmarkFixture) -> None:
    """An f-string prompt."""
    benchmark(lambda: render(prompt(f"Classify: {INPUTS['message']}"), step="triage", inputs=INPUTS))


@pytest.mark.benchmark(group="build messages")
def test_render_template(benchmark: BenchmarkFixture) -> None:
    """A docstring prompt."""
    benchmark(lambda: render(prompt(), step="triage", inputs=INPUTS, template=TEMPLATE))
