"""What the version of a prompt costs at the first call, beside its floor: hashing the source text."""

from __future__ import annotations

import hashlib
import inspect
from typing import TYPE_CHECKING, Literal

import pytest
from pydantic import BaseModel

from llmflow import prompt, step
from llmflow.versions import PromptParts

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

pytest.importorskip("pytest_benchmark")

INTRO = "You read support messages."


class Ticket(BaseModel):
    """Two fields."""

    category: Literal["billing", "bug", "other"]
    urgent: bool


def opening(message: str) -> str:
    """Return how the prompt begins."""
    return f"{INTRO}\n{message}"


@step("acme/one", system="Be kind.", params={"temperature": 0})
def triage(message: str) -> Ticket:
    """Ask with a helper and a constant."""
    return prompt(opening(message))


@pytest.mark.benchmark(group="version of a prompt")
def test_floor(benchmark: BenchmarkFixture) -> None:
    """The text of the function alone."""
    benchmark(lambda: hashlib.sha256(inspect.getsource(triage.function).encode()).hexdigest())


@pytest.mark.benchmark(group="version of a prompt")
def test_version(benchmark: BenchmarkFixture) -> None:
    """Everything that the prompt depends on; the module was parsed before."""

    def parts() -> PromptParts:
        return triage.with_(params={"temperature": 0}).prompt_parts

    assert benchmark(parts).version == triage.prompt_version
