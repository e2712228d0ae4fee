"""Whatever a provider sends, a reply or one of llmflow's errors comes out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmflow.errors import LLMFlowError
from llmflow.messages import Reply
from llmflow.models import Model
from llmflow.providers import _anthropic, _openai
from llmflow.providers._loops import PerLoop
from llmflow.providers._route import Route

NAMES = (
    "choices message content tool_calls function arguments name refusal finish_reason usage prompt_tokens code error "
    "completion_tokens prompt_tokens_details cached_tokens model type input text stop_reason input_tokens"
).split()
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["tool_use", "text"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=12,
)
BODIES = st.binary(max_size=80) | st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6).map(
    lambda value: json.dumps(value).encode("utf-8", "surrogatepass")
)


class Wire:
    """Answers every request with one body."""

    content = b""

    async def post(self, body: dict[str, Any], /):
        return self.content, {"content-type": "application/json"}

    async def aclose(self) -> None:
        pass


def route_over(wire: Wire, provider: str, output: Any) -> Route:
    """Return a provider's route over one wire."""
    pool = PerLoop(lambda: wire, lambda closing: closing.aclose())
    model = Model(f"{provider}/x")
    if provider == "openai":
        return _openai.openai_route(model, output, "http://x", lambda: (pool, "k"), lambda: 0.0)
    return _anthropic.anthropic_route(model, output, lambda: (pool, "k"), lambda: 0.0)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_any_body_is_a_reply_or_a_typed_error(provider, output, make_request):
    """No AttributeError, IndexError, TypeError or decoding error escapes, and no text that cannot be encoded."""
    wire = Wire()
    route = route_over(wire, provider, output)
    request = make_request(Model(f"{provider}/x"), output)

    @settings(max_examples=300, deadline=None)
    @given(BODIES)
    def check(body: bytes) -> None:
        wire.content = body
        try:
            route.send(request).send(None)
        except StopIteration as stop:
            reply = stop.value
            assert isinstance(reply, Reply)
            assert reply.text is None or reply.text.encode() is not None
            assert reply.usage is None or (reply.usage.input_tokens or 0) >= 0
            assert reply.reask is not None
        except LLMFlowError:
            pass

    check()


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_reask_of_an_odd_reply_is_a_turn_or_nothing(provider, output, make_request):
    """Where instructor's handler cannot use a reply, plain messages say the same."""
    wire = Wire()
    wire.content = b'{"choices": [], "content": null}'
    route = route_over(wire, provider, output)
    try:
        route.send(make_request(Model(f"{provider}/x"), output)).send(None)
    except StopIteration as stop:
        turns = stop.value.reask("urgent: field required")

    assert "urgent: field required" in str(turns[-1])
