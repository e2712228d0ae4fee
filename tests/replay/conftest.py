"""A journal in a file, and steps that count what they are asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel

from llmflow import Model, Price, Reply, Runtime, Usage

PRICE = Price(input=1.0, output=2.0)


class Ticket(BaseModel):
    """What `triage` answers."""

    category: Literal["billing", "bug"]
    urgent: bool = False


class Asked:
    """A model in the process that classifies by a word, and counts its requests.

    Args:
        name: Of the model.
        urgent: What it says is urgent.
    """

    def __init__(self, name: str = "acme/one", urgent: str = "!") -> None:
        self.texts: list[str] = []
        self.broken: str | None = None
        self._urgent = urgent
        self.model = Model(name, handler=self._answer, price=PRICE)

    async def _answer(self, request) -> Reply:
        text = request.messages[-1].content
        self.texts.append(text)
        if self.broken is not None and self.broken in text:
            return Reply(text="I cannot say.", usage=Usage(input_tokens=100, output_tokens=5))
        said = f"Dear customer, about: {text}"
        if not request.output.is_text:
            category = "bug" if "crash" in text else "billing"
            said = Ticket(category=category, urgent=self._urgent in text).model_dump_json()
        return Reply(text=said, usage=Usage(input_tokens=100, output_tokens=10))


@pytest.fixture
def asked() -> Asked:
    """The model of the steps."""
    return Asked()


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    """A runtime whose journal is a file."""
    with Runtime(journal=f"sqlite:///{tmp_path / 'runs.db'}", seed=1) as made:
        yield made


@pytest.fixture(autouse=True)
def _current(runtime: Runtime) -> None:
    """It is current in every test."""
