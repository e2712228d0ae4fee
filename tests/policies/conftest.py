"""Policies are tested on virtual time: an hour of backoff takes no time, and every wait can be measured exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llmflow import Runtime, Step, prompt, step
from llmflow.backend import monotonic
from llmflow.testing._time import virtual_backend


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Both backends, on virtual time."""
    return virtual_backend(request.param)


@pytest.fixture(autouse=True)
def _runtime(runtime: Runtime) -> None:
    """Every test of a policy has a runtime of its own."""


@pytest.fixture
def now() -> Callable[[], float]:
    """Seconds on the virtual clock."""
    return monotonic


@pytest.fixture
def asking() -> Callable[..., Step[..., Any]]:
    """Make a step of one parameter that asks this model under these policies."""

    def make(model: Any, *policies: Any, returns: Any = str, **options: Any) -> Step[..., Any]:
        def question(word):
            return prompt(f"About {word}?")

        question.__annotations__ = {"word": str, "return": returns}
        return step(model, *policies, **options)(question)

    return make
