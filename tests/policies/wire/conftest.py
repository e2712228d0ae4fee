"""Policies over real connections: the OpenAI provider against a server on loopback, on real time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from llmflow import Model, Price, Runtime, Step, prompt, step
from llmflow.testing._loopback import LoopbackServer
from llmflow.testing._time import SkippingClock

KEY = "sk-test-0123456789abcdefghij"


class Ticket(BaseModel):
    """What most of the steps here return."""

    category: Literal["billing", "bug"]
    score: float


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Both backends, on real time."""
    return request.param


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    """A provider that does as it is told."""
    with LoopbackServer() as running:
        yield running


@pytest.fixture
def clock() -> SkippingClock:
    """Sleeps of policies take no time; everything else does."""
    return SkippingClock()


@pytest.fixture
def runtime(clock: SkippingClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """A runtime on the skipping clock, in an environment that says nothing about providers."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with Runtime(seed=1, clock=clock) as made:
        yield made


@pytest.fixture
def key() -> str:
    """The API key that must be seen by nobody but the provider."""
    return KEY


@pytest.fixture
def model(server: LoopbackServer) -> Model:
    """A model at the server."""
    return Model("openai/gpt-x", base_url=server.base_url, api_key=KEY, price=Price(input=1, output=2))


@pytest.fixture
def asking(runtime: Runtime) -> Callable[..., Step[..., Any]]:
    """Make a step of one parameter that asks this model under these policies."""

    def make(model: Any, *policies: Any, returns: Any = Ticket, **options: Any) -> Step[..., Any]:
        def triage(message):
            return prompt(f"Classify: {message}")

        triage.__annotations__ = {"message": str, "return": returns}
        return step(model, *policies, **options)(triage)

    return make


@pytest.fixture
async def closing(runtime: Runtime) -> Any:
    """Close the runtime's connections on the loop that opened them."""
    yield
    await runtime.aclose()
