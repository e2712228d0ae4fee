"""What goes over the wire is what the prompt file says (promise S1), label by label."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmflow import Model, Runtime, prompt, step
from llmflow.testing import LoopbackServer, answer
from llmflow.testing._time import SkippingClock

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("closing")]

FILE = """+++
description = "Nobody but people reads this."
system = "You sort messages."

[params]
temperature = 0.25
max_tokens = 77
+++

Sort this message: {{ message }}
"""


@pytest.fixture
def runtime(clock: SkippingClock, tmp_path: Path) -> Iterator[Runtime]:
    """A runtime with two prompt files, which share out the runs."""
    (tmp_path / "triage.md").write_text(FILE)
    (tmp_path / "triage@canary.md").write_text("Please sort {{ message }}")
    with Runtime(clock=clock, prompts=tmp_path, variants={"triage": {"production": 1, "canary": 1}}) as made:
        yield made


async def test_the_wording_on_the_wire_is_the_file_s(server: LoopbackServer, model: Model) -> None:
    """System text, template and parameters; data stays data, and the description at home."""
    server.enqueue(*[answer("billing")] * 8)

    @step(model, system="Of the code.", params={"temperature": 1.0})
    def triage(message: str) -> str:
        """Of the code: {{ message }}"""
        return prompt()

    results = [await triage.with_(run_id=f"run-{number}").run("{{ 7 * 7 }}") for number in range(8)]
    bodies = [request.json for request in server.requests]
    turns = {
        result.prompt_label: [(turn["role"], turn["content"]) for turn in body["messages"]]
        for result, body in zip(results, bodies, strict=True)
    }
    carried = {
        result.prompt_label: (body["temperature"], body.get("max_completion_tokens", body.get("max_tokens")))
        for result, body in zip(results, bodies, strict=True)
    }

    assert {
        "production": [("system", "You sort messages."), ("user", "Sort this message: {{ 7 * 7 }}")],
        "canary": [("system", "Of the code."), ("user", "Please sort {{ 7 * 7 }}")],
    } == turns
    assert {"production": (0.25, 77), "canary": (1.0, 4096)} == carried
    assert not any(b"Nobody" in request.body for request in server.requests)
