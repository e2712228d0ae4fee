"""Policies over real connections: the OpenAI provider against a server on loopback, on real time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import anyio
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


@dataclass
class Counted:
    """How long the event loop ran."""

    seconds: float = 0.0


@pytest.fixture
def naps() -> Callable[[], AbstractAsyncContextManager[Counted]]:
    """Count seconds beside a block in naps of 10 ms: one in which the machine stood still counts as any other.

    For what must not take longer than a limit; that it takes long enough, the real clock says.
    """

    @asynccontextmanager
    async def counting() -> AsyncGenerator[Counted]:
        counted = Counted()

        async def nap() -> None:
            while True:
                await anyio.sleep(0.01)
                counted.seconds += 0.01

        async with anyio.create_task_group() as group:
            group.start_soon(nap)
            yield counted
            group.cancel_scope.cancel()

    return counting


@pytest.fixture
def until(naps: Callable[[], AbstractAsyncContextManager[Counted]]) -> Callable[..., Any]:
    """Wait for a condition, no longer than a second as `naps` counts it."""

    async def wait(condition: Callable[[], object]) -> None:
        async with naps() as counted:
            while not condition() and counted.seconds < 1:
                await anyio.sleep(0.005)
        assert condition()

    return wait


@pytest.fixture
def closed_by_client(until: Callable[..., Any]) -> Callable[..., Any]:
    """Wait until the server has seen the client close the connection of a request."""

    async def wait(request: Any) -> None:
        await until(lambda: request.closed_by_client_at is not None)

    return wait


@pytest.fixture
async def closing(runtime: Runtime) -> Any:
    """Close the runtime's connections on the loop that opened them."""
    yield
    await runtime.aclose()
