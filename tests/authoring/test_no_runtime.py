"""Calling a step when nobody entered a runtime: one is made, from pyproject.toml and the environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmflow import DefinitionError, Model, Request, plan, prompt, step
from llmflow.context import runtimes

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No pyproject.toml but the test's own, no variables, and no runtime made before or kept afterwards."""
    monkeypatch.chdir(tmp_path)
    for variable in ("LLMFLOW_DEFAULT_MODEL", "LLMFLOW_SEED"):
        monkeypatch.delenv(variable, raising=False)
    runtimes.forget_made()
    yield
    runtimes.forget_made()


async def echo(request: Request) -> str:
    return request.messages[-1].content


@step(Model("fake/echo", handler=echo))
def question(text: str) -> str:
    return prompt(text)


@step
def modelless(text: str) -> str:
    return prompt(text)


async def test_a_step_runs_without_a_runtime() -> None:
    """89: the default runtime is made at the first call, and kept."""
    assert "x" == await question("x")
    assert runtimes.current() is runtimes.current()


def test_sync_runs_without_a_runtime() -> None:
    """89: a script needs none either."""
    assert "x" == question.sync("x")


async def test_the_environment_names_the_default_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """89: `LLMFLOW_DEFAULT_MODEL` is for steps that name none."""
    monkeypatch.setenv("LLMFLOW_DEFAULT_MODEL", "openai/gpt-5-mini")

    assert ("openai/gpt-5-mini",) == plan(modelless).nodes[0].models


async def test_pyproject_names_the_default_model(tmp_path: Path) -> None:
    """89: so does `[tool.llmflow]`."""
    (tmp_path / "pyproject.toml").write_text('[tool.llmflow]\ndefault_model = "openai/gpt-5"\n')

    assert ("openai/gpt-5",) == plan(modelless).nodes[0].models


async def test_without_any_model_the_error_is_a_clear_one() -> None:
    """89: a DefinitionError, before any request, that says where a model can be named."""
    with pytest.raises(DefinitionError, match=r"step 'modelless' has no model.*Runtime\(default_model=\.\.\.\)"):
        await modelless("x")
