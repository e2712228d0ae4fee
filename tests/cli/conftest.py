"""A program to run commands on, and two ways to run them: in this process, and as a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from llmflow.cli import _terminal, main
from llmflow.context import runtimes

PROGRAM = """
import asyncio
from typing import Literal

from pydantic import BaseModel

from llmflow import BudgetExceeded, Fallback, Model, ProviderUnavailable, Reply, Retry, Usage, flow, prompt, step, task


class Ticket(BaseModel):
    category: Literal["billing", "bug", "other"]
    urgent: bool


async def answer(request):
    text = request.messages[-1].content
    if "down" in text:
        raise ProviderUnavailable("the provider is down", status=503)
    if "poor" in text:
        raise BudgetExceeded("the budget is used up")
    if "slow" in text:
        await asyncio.sleep(60)
    if "prose" in text:
        return Reply(text="I cannot say.", usage=Usage(input_tokens=50, output_tokens=5))
    fence = "Sure!" if "mend" in text else ""
    return Reply(text=fence + '{"category": "billing", "urgent": true}', usage=Usage(input_tokens=120, output_tokens=14))


FAKE = Model("fake/one", handler=answer)


@step(FAKE, Retry(2, wait_initial=0.001))
def triage(message: str) -> Ticket:
    return prompt(message)


@step(FAKE, Retry.off, Fallback(Model("fake/two", handler=answer)))
def careful(message: str, urgency: int, ticket: Ticket | None = None) -> Ticket:
    return prompt(f"{message} {urgency}")


@step("nowhere/model")
def unknown(message: str) -> str:
    return prompt(message)


@step("openai/gpt-5-mini")
def keyless(message: str) -> str:
    return prompt(message)


@step
def modelless(message: str) -> str:
    return prompt(message)


@task
def broken(number: int) -> float:
    print("the program's own output")
    return 1 / (number - number)


@task
def when_is(ticket: Ticket) -> str:
    return ticket.category


@flow
async def support(message: str) -> Ticket:
    return await triage(message)


def helper() -> None: ...
"""


@dataclass
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with the program in it, and an environment that says nothing."""
    for name in [name for name in os.environ if name.startswith("LLMFLOW_") or name.endswith("_API_KEY")]:
        monkeypatch.delenv(name)
    for name in ("NO_COLOR", "FORCE_COLOR", "GITHUB_ACTIONS", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    runtimes.forget_made()
    yield tmp_path
    runtimes.forget_made()
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def llmflow(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run a command in this process."""

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        code = main(list(arguments))
        ran = Ran(code, *capsys.readouterr())
        print(ran)  # what pytest shows of a test that fails
        return ran

    return run


@pytest.fixture
def shell(home: Path) -> Callable[..., Ran]:
    """Run a command as a process of its own, its output in pipes."""

    def run(*arguments: str, stdin: str = "", **environment: str) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "llmflow", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            env={**os.environ, **environment},
            timeout=300,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns."""
    monkeypatch.setattr(
        _terminal,
        "_console",
        lambda stream: Console(
            file=stream, width=80, force_terminal=True, color_system=None, highlight=False, markup=False
        ),
    )
