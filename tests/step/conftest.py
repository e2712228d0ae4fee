"""A step that answers in the process, and a runtime of the test's own."""

from __future__ import annotations

import pytest

from llmflow import Runtime, prompt, step
from llmflow.testing._scripted import scripted


@pytest.fixture(autouse=True)
def _runtime(runtime: Runtime) -> None:
    """Every test has a runtime of its own."""


@pytest.fixture
def echo():
    """A step that answers with the last word of its prompt, doubled."""
    model = scripted(default=lambda request: request.messages[-1].content.split()[-1] * 2)

    @step(model)
    def double(word: str) -> str:
        return prompt(f"Double {word}")

    double.asked = model
    return double


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    """Where runs are recorded."""
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/journal.db"


@pytest.fixture
def file(tmp_path):
    """A journal in a file, for what must outlive a runtime."""
    return tmp_path / "journal.db"
