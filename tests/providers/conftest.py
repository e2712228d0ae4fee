"""A provider on loopback, and the smallest output format a provider can be given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import anyio
import pytest
from pydantic import BaseModel

from llmflow.messages import CallScope, Message, Request
from llmflow.models import Model
from llmflow.testing._loopback import LoopbackServer

KEY = "sk-test-0123456789abcdef"


class Ticket(BaseModel):
    category: Literal["billing", "bug"]
    urgent: bool


@dataclass(frozen=True)
class Format:
    """What the schema layer gives a provider."""

    model: type[BaseModel] = Ticket
    is_text: bool = False

    @property
    def name(self) -> str:
        return self.model.__name__

    @property
    def json_schema(self) -> dict[str, Any]:
        return self.model.model_json_schema()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    with LoopbackServer() as running:
        yield running


@pytest.fixture
def closed_by_client() -> Callable[..., Any]:
    """Wait until the server has seen the client close the connection of a request.

    A second is enough, counted in naps of 10 ms: one in which the machine stood still counts as any other.
    """

    async def wait(request: Any) -> None:
        naps = 0
        while request.closed_by_client_at is None and naps < 100:
            await anyio.sleep(0.01)
            naps += 1
        assert request.closed_by_client_at is not None

    return wait


@pytest.fixture
def output() -> Format:
    return Format()


@pytest.fixture
def text_output() -> Format:
    return Format(is_text=True)


@pytest.fixture
def model(server: LoopbackServer) -> Model:
    return Model("openai/gpt-x", base_url=server.base_url, api_key=KEY)


@pytest.fixture
def make_request() -> Callable[..., Request]:
    """Build a request as the core does."""

    def make(model: Model, output: Any, *messages: Message, **changes: Any) -> Request:
        fields: dict[str, Any] = {
            "messages": messages or (Message("user", "My bill is wrong"),),
            "model": model,
            "output": output,
            "params": {"max_tokens": 100},
            "deadline": float("inf"),
            "call": CallScope(step="triage", run_id="run", call_id="call"),
        }
        return Request(**fields | changes)

    return make
