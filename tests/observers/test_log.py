"""The log: who hears it, what a line says, and that nobody pays for lines that nobody hears."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from llmflow import Model, ProviderUnavailable, Retry, Runtime, prompt, step
from llmflow.observers import configure_logging

pytestmark = pytest.mark.anyio


async def down(request):
    raise ProviderUnavailable("no route\nto host", status=503)


@step(Model("fake/one", handler=down), Retry.off)
def ask(word: str) -> str:
    return prompt(word)


SILENT = """
import asyncio, sys
from llmflow import Model, ProviderUnavailable, Retry, Runtime, prompt, step

async def down(request):
    raise ProviderUnavailable("no", status=503)

@step(Model("fake/one", handler=down), Retry.off)
def ask(word: str) -> str:
    return prompt(word)

async def main():
    async with Runtime():
        try:
            await ask("x")
        except ProviderUnavailable:
            print("structlog" in sys.modules)

asyncio.run(main())
"""


@pytest.fixture
def logger():
    """The logger `llmflow` as it was before."""
    found = logging.getLogger("llmflow")
    before = (list(found.handlers), found.level, found.propagate)
    yield found
    found.handlers[:], found.propagate = before[0], before[2]
    found.setLevel(before[1])


def test_a_line_that_nobody_hears_costs_nothing():
    """The first failure must not hold the event loop up with importing what writes lines."""
    done = subprocess.run([sys.executable, "-c", SILENT], capture_output=True, text=True, check=True)

    assert ("False\n", "") == (done.stdout, done.stderr)


async def test_a_failed_call_is_a_warning(caplog):
    """With its step and its error; a line break in a text forges no line."""
    async with Runtime():
        with pytest.raises(ProviderUnavailable):
            await ask("x")

    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert record.getMessage().startswith("call failed step=ask run_id=")
    assert ("ask", "ProviderUnavailable", 1) == (
        *(record.llmflow["step"], record.llmflow["error"], record.llmflow["attempts"]),
    )


async def test_a_logger_that_does_not_propagate_is_not_heard(caplog, logger):
    """Its author switched it off."""
    logger.propagate = False
    async with Runtime():
        with pytest.raises(ProviderUnavailable):
            await ask("x")

    assert [] == [one for one in caplog.records if one.name == "llmflow"]


@pytest.mark.parametrize("as_json", [False, True])
async def test_an_application_says_where_lines_go(capsys, logger, as_json):
    """To stderr, as text or as JSON; the second call replaces the first."""
    configure_logging(level="INFO")
    configure_logging(level="WARNING", json=as_json)
    async with Runtime():
        with pytest.raises(ProviderUnavailable):
            await ask("x")

    (line,) = capsys.readouterr().err.splitlines()
    if as_json:
        said = json.loads(line)
        assert ("call failed", "warning", "ask") == (said["message"].split(" step=")[0], said["level"], said["step"])
    else:
        assert "WARNING call failed step=ask" in line
