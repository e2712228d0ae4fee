"""What the tests share: a request without the rest of llmflow, and real programs that end in various ways."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from llmflow_local._cache import cache_folder
from llmflow_local._packaged import PackagedWeights
from llmflow_local._provider import LocalProvider

from llmflow.messages import CallScope, Message, Request
from llmflow.models import Model, Params

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from llmflow.messages import Reply


class FakeOutput:
    """As much of an output format as a provider reads."""

    name = "Answer"
    model = dict

    def __init__(self, schema: Mapping[str, Any] | None = None) -> None:
        self.is_text = schema is None
        self.json_schema = schema or {}


class Asker:
    """A model that is bound to one output, and asked."""

    def __init__(self, schema: Mapping[str, Any] | None, name: str, **options: Any) -> None:
        self.model = Model(name, **options)
        self.output = FakeOutput(schema)
        self.send = LocalProvider().connect(self.model, self.output)

    async def __call__(
        self, *turns: tuple[str, str] | Message, sink: Any = None, reask: Any = (), **params: Any
    ) -> Reply:
        messages = tuple(turn if isinstance(turn, Message) else Message(*turn) for turn in turns)  # type: ignore[arg-type]
        return await self.send(
            Request(
                messages=messages,
                model=self.model,
                output=self.output,
                params=Params(**{"max_tokens": 60, **params}),  # type: ignore[typeddict-item]  # the tests know them
                deadline=float("inf"),
                call=CallScope(step="test", run_id="run", call_id="call"),
                turns=tuple(reask),
                attempt=3,
                sink=sink,
            )
        )


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run every async test on both backends."""
    return str(request.param)


@pytest.fixture(scope="session")
def weights() -> Path:
    """The real weights, from the user's own cache, fetched if they are not there."""
    return PackagedWeights(folder=cache_folder(os.environ)).locate(lambda: False)


@pytest.fixture
def asker(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asker]:
    """Make something to ask: `asker(schema, name, **options)`."""
    monkeypatch.delenv("LLMFLOW_LOCAL_MODEL", raising=False)

    def make(schema: Mapping[str, Any] | None = None, name: str = "local/smollm2", **options: object) -> Asker:
        return Asker(schema, name, **options)

    return make


@pytest.fixture
def run_program(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program to its end; `ask(*turns, schema=, **params)` is there, and is awaited for a reply.

    It has so many seconds from when its imports are done, which take a busy machine as long as the rest.
    """

    def run(body: str, *, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        program = tmp_path / "program.py"
        program.write_text(_PRELUDE + body, encoding="utf-8")
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        environ.pop("LLMFLOW_LOCAL_MODEL", None)
        done = subprocess.run(
            [sys.executable, program], capture_output=True, text=True, timeout=300, env=environ, check=False
        )
        assert time.monotonic() - float((tmp_path / "began").read_text(encoding="utf-8")) < seconds
        return done

    return run


_PRELUDE = """
import asyncio, os, signal, sys, threading, time
from pathlib import Path
from llmflow.messages import CallScope, Message, Request
from llmflow.models import Model, Params
from llmflow_local import llmflow_provider

class Output:
    name, model = "Answer", dict
    def __init__(self, schema):
        self.is_text, self.json_schema = schema is None, schema or {}

def ask(text, schema=None, **params):
    model, output = Model("local/smollm2"), Output(schema)
    return llmflow_provider("local").connect(model, output)(Request(
        messages=(Message("user", text),), model=model, output=output, params={"max_tokens": 8, **params},
        deadline=float("inf"), call=CallScope(step="s", run_id="r", call_id="c")))

def ask_for_long():
    return ask("Write a long story about a dog that travels around the world.", max_tokens=3000)

Path(__file__).with_name("began").write_text(str(time.monotonic()), encoding="utf-8")
"""
