"""Clients of the user's own, from the decorator to the typed value."""

from __future__ import annotations

from typing import Literal

import anthropic
import instructor
import openai
import pytest
from instructor import Mode
from instructor.v2 import Provider, patch_v2
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from llmflow import BadRequest, Model, Repair, Retry, prompt, step
from llmflow.testing._http_responses import answer, status

pytestmark = pytest.mark.anyio

TICKET = '{"category":"bug","urgent":true}'
KEY = "sk-client-0123456789"


class Ticket(BaseModel):
    category: Literal["billing", "bug"]
    urgent: bool


EXPECTED = Ticket(category="bug", urgent=True)

CLIENTS = {
    "openai async": ("openai", lambda url: openai.AsyncOpenAI(api_key=KEY, base_url=url)),
    "openai sync": ("openai", lambda url: openai.OpenAI(api_key=KEY, base_url=url)),
    "anthropic async": ("anthropic", lambda url: anthropic.AsyncAnthropic(api_key=KEY, base_url=url[:-3])),
    "anthropic sync": ("anthropic", lambda url: anthropic.Anthropic(api_key=KEY, base_url=url[:-3])),
}
WRAP = {"openai": instructor.from_openai, "anthropic": instructor.from_anthropic}


def classifying(model, *policies):
    @step(model, *policies)
    def classify(message: str) -> Ticket:
        return prompt(f"Classify {message}")

    return classify


@pytest.fixture(params=[(form, wrapped) for form in CLIENTS for wrapped in (False, True)], ids=str)
async def model(request, server, anyio_backend):
    """One kind of client in a model, whose name is not always the client's own provider."""
    form, wrapped = request.param
    provider, make = CLIENTS[form]
    sdk_client = make(server.base_url)
    client = WRAP[provider](sdk_client) if wrapped else sdk_client
    yield Model("acme/some-model" if wrapped else f"{provider}/some-model", client=client)
    closing = sdk_client.close()
    if closing is not None:
        await closing


async def test_typed_value(model, server, runtime):
    """The decorator, the runtime's search for a provider, the wire, the schema."""
    server.default = answer(TICKET)

    assert EXPECTED == await classifying(model)("it crashes")
    assert KEY in str(server.requests[0].headers)


async def test_retry_and_repair_are_llmflows(model, server, runtime):
    """One failure of the wire and one of the schema make three requests, whatever the client would do itself."""
    server.enqueue(status(503, headers={"retry-after": "0"}), answer('{"category":"spam"}'), answer(TICKET))

    result = await classifying(model, Retry(2, wait_initial=0), Repair(1)).run("it crashes")

    assert (EXPECTED, 3) == (result.value, len(server.requests))


async def test_failures_are_typed_and_keep_the_key_to_themselves(model, server, runtime):
    """A client is no way around translation and scrubbing."""
    server.default = status(400, message=f"no {KEY}", error_code=KEY)

    with pytest.raises(BadRequest) as caught:
        await classifying(model)("it crashes")

    shown = repr(caught.value) + repr(caught.value.__cause__) + repr(vars(caught.value.__cause__))
    assert KEY not in shown


def test_sync_call_without_a_loop(model_of_sync, server, runtime):
    """A blocking client behind `.sync()`, as in a script."""
    server.default = answer(TICKET)

    assert EXPECTED == classifying(model_of_sync).sync("it crashes")


@pytest.fixture(params=["openai sync", "anthropic sync"])
def model_of_sync(request, server):
    """A blocking client, as it is."""
    provider, make = CLIENTS[request.param]
    client = make(server.base_url)
    yield Model(f"{provider}/some-model", client=client)
    client.close()


def completion(**kwargs):
    """What the SDK of another service answers."""
    function = {"name": kwargs["tools"][0]["function"]["name"], "arguments": TICKET}
    message = {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": function}]}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return ChatCompletion.construct(id="1", model=kwargs["model"], choices=[choice])


async def completion_async(**kwargs):
    return completion(**kwargs)


@pytest.mark.parametrize("name", ["mistral/mistral-large", "unheard-of/model"])
@pytest.mark.parametrize(
    ("kind", "call"), [(instructor.AsyncInstructor, completion_async), (instructor.Instructor, completion)]
)
async def test_instructor_client_of_another_provider(name, kind, call, runtime):
    """A service that only instructor knows, whether its name is listed anywhere or not."""
    create = patch_v2(call, provider=Provider.MISTRAL, mode=Mode.TOOLS)
    client = kind(client=None, create=create, mode=Mode.TOOLS, provider=Provider.MISTRAL)

    assert EXPECTED == await classifying(Model(name, client=client))("it crashes")
