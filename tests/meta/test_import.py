"""What `import llmflow` does to a program: next to nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import llmflow

ROOT = Path(llmflow.__file__).parent.parent

HEAVY = (
    "aiohttp",
    "anthropic",
    "genai_prices",
    "google",
    "httpx",
    "httpx2",
    "instructor",
    "jinja2",
    "openai",
    "rich",
    "structlog",
    "trio",
    "typer",
    "xllamacpp",
)

# Runs in an interpreter of its own. The modules that llmflow needs are loaded by a first import; the second one then
# runs llmflow's own code alone, with clocks that refuse and an audit hook that listens.
WATCHED = """
import json, sys, threading, time

import llmflow

loaded = sorted(sys.modules)
threads = [one.name for one in threading.enumerate()]

for name in [one for one in sys.modules if one.partition(".")[0] == "llmflow"]:
    del sys.modules[name]

measured, opened = [], []

def refuse(name):
    def clock(*args):
        measured.append(name)
        return 0.0
    return clock

def listen(event, args):
    if event == "open" and not str(args[0]).endswith((".py", ".pyc", ".so", ".pyd")):
        opened.append(f"open {args[0]}")
    elif event.partition(".")[0] in ("socket", "subprocess", "sqlite3", "urllib"):
        opened.append(event)

for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"):
    setattr(time, name, refuse(name))
sys.addaudithook(listen)

import llmflow

print(json.dumps({"loaded": loaded, "threads": threads, "measured": measured, "opened": opened}))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Import llmflow in an interpreter of its own and return what was seen."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        (sys.executable, "-c", WATCHED),
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stderr == ""
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


@pytest.mark.parametrize("library", HEAVY)
def test_import_loads_no_library_that_is_not_used(imported: dict[str, Any], library: str) -> None:
    """A program of plain steps does not pay for SDKs, templates, terminals and the other event loop."""
    assert [] == [name for name in imported["loaded"] if name == library or name.startswith(f"{library}.")]


def test_import_starts_no_thread(imported: dict[str, Any]) -> None:
    """After the import there is the main thread and no other."""
    assert ["MainThread"] == imported["threads"]


def test_import_opens_nothing(imported: dict[str, Any]) -> None:
    """The import opens no file but the modules themselves, and no socket, process or database."""
    assert [] == imported["opened"]


def test_import_measures_nothing(imported: dict[str, Any]) -> None:
    """No module looks at a clock while it is imported."""
    assert [] == imported["measured"]
