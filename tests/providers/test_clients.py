"""Clients that the user already has are used as they are, but for their retries."""

from __future__ import annotations

import anthropic
import instructor
import openai
import pytest
from instructor import Mode
from instructor.v2 import Provider, patch_v2

from llmflow import errors
from llmflow.models import Model
from llmflow.providers._anthropic import AnthropicProvider
from llmflow.providers._clients import ClientProvider
from llmflow.providers._openai import OpenAIProvider
from llmflow.providers._plugin import llmflow_provider
from llmflow.testing._http_responses import answer, status

TICKET = '{"category":"bug","urgent":true}'
KEY = "sk-client-0123456789"


def openai_clients(url):
    """Every form in which a client of OpenAI comes."""
    return {
        "async": openai.AsyncOpenAI(api_key=KEY, base_url=url),
        "sync": openai.OpenAI(api_key=KEY, base_url=url),
        "instructor async": instructor.from_openai(openai.AsyncOpenAI(api_key=KEY, base_url=url)),
        "instructor sync": instructor.from_openai(openai.OpenAI(api_key=KEY, base_url=url)),
        "instructor json": instructor.from_openai(openai.AsyncOpenAI(api_key=KEY, base_url=url), mode=Mode.JSON),
    }


def anthropic_clients(url):
    """Every form in which a client of Anthropic comes."""
    url = url.removesuffix("/v1")
    return {
        "async": anthropic.AsyncAnthropic(api_key=KEY, base_url=url),
        "sync": anthropic.Anthropic(api_key=KEY, base_url=url),
        "instructor async": instructor.from_anthropic(anthropic.AsyncAnthropic(api_key=KEY, base_url=url)),
        "instructor sync": instructor.from_anthropic(anthropic.Anthropic(api_key=KEY, base_url=url)),
    }


CASES = [("openai", form) for form in openai_clients("http://127.0.0.1:1/v1")]
CASES += [("anthropic", form) for form in anthropic_clients("http://127.0.0.1:1/v1")]


@pytest.fixture(params=CASES, ids=lambda case: " ".join(case))
async def send_and_model(request, server, output, anyio_backend):
    """The way to send through one form of client."""
    provider, form = request.param
    clients = openai_clients if provider == "openai" else anthropic_clients
    client = clients(server.base_url)[form]
    model = Model(f"{provider}/some-model", client=client)
    connect = (OpenAIProvider() if provider == "openai" else AnthropicProvider()).connect
    yield connect(model, output), model
    sdk_client = getattr(client, "client", client)
    closing = sdk_client.close()
    if closing is not None:
        await closing


@pytest.mark.anyio
async def test_clients_answer(send_and_model, server, output, make_request):
    """The client's address, key and mode are used; the answer is the text."""
    send, model = send_and_model
    server.enqueue(answer(TICKET, usage=(12, 7)))

    reply = await send(make_request(model, output))

    (request,) = server.requests
    assert TICKET == reply.text
    assert (12, 7) == (reply.usage.input_tokens, reply.usage.output_tokens)
    assert KEY in str(request.headers)
    assert ("some-model", 100) == (request.json["model"], request.json["max_tokens"])


@pytest.mark.anyio
async def test_clients_do_not_retry(send_and_model, server, output, make_request):
    """One request is one request: retrying is llmflow's."""
    send, model = send_and_model
    server.default = status(500, message=f"broken {KEY}")

    with pytest.raises(errors.ProviderUnavailable) as caught:
        await send(make_request(model, output))

    assert 1 == len(server.requests)
    assert KEY not in str(caught.value) + str(caught.value.__cause__)


@pytest.mark.anyio
async def test_clients_reask(send_and_model, server, output, make_request):
    """The turns of a repeated ask are those of the client's provider and mode."""
    send, model = send_and_model
    reply = await send(make_request(model, output))

    await send(make_request(model, output, turns=tuple(reply.reask("urgent: field required"))))

    assert "urgent: field required" in str(server.requests[1].json["messages"][-1])


@pytest.mark.anyio
async def test_instructor_client_of_a_local_function(output, make_request):
    """What instructor documents for in-process models works: a patched function that answers a completion."""
    from openai.types.chat import ChatCompletion

    async def fake(**kwargs):
        function = {"name": kwargs["tools"][0]["function"]["name"], "arguments": TICKET}
        message = {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": function}]}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return ChatCompletion.construct(id="1", model="m", choices=[choice])

    client = instructor.AsyncInstructor(
        client=None,
        create=patch_v2(fake, provider=Provider.OPENAI, mode=Mode.TOOLS),
        mode=Mode.TOOLS,
        provider=Provider.OPENAI,
    )
    model = Model("openai/local", client=client)

    reply = await OpenAIProvider().connect(model, output)(make_request(model, output))

    assert TICKET == reply.text


@pytest.mark.anyio
async def test_instructor_client_of_another_provider(output, make_request):
    """A provider that only instructor knows is reached through its handlers."""
    from openai.types.chat import ChatCompletion

    seen = {}

    async def fake(**kwargs):
        seen.update(kwargs)
        function = {"name": "Ticket", "arguments": TICKET}
        message = {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": function}]}
        return ChatCompletion.construct(
            id="1",
            model="m",
            choices=[{"index": 0, "finish_reason": "stop", "message": message}],
            usage={"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
        )

    client = instructor.AsyncInstructor(
        client=None,
        create=patch_v2(fake, provider=Provider.MISTRAL, mode=Mode.TOOLS),
        mode=Mode.TOOLS,
        provider=Provider.MISTRAL,
    )
    model = Model("mistral/mistral-large", client=client)

    reply = await llmflow_provider("mistral").connect(model, output)(make_request(model, output))

    assert TICKET == reply.text
    assert (3, 4) == (reply.usage.input_tokens, reply.usage.output_tokens)
    assert "mistral-large" == seen["model"]
    assert seen["tools"]


@pytest.mark.anyio
async def test_what_a_client_raises_is_llmflows(output, make_request):
    """Even a broken client of the user's own makes a typed error."""

    async def broken(**kwargs):
        raise RuntimeError("no luck")

    client = instructor.AsyncInstructor(
        client=None,
        create=patch_v2(broken, provider=Provider.MISTRAL, mode=Mode.TOOLS),
        mode=Mode.TOOLS,
        provider=Provider.MISTRAL,
    )
    model = Model("mistral/large", client=client)

    with pytest.raises(errors.ProviderError, match="the client failed with RuntimeError: no luck"):
        await ClientProvider().connect(model, output)(make_request(model, output))


def test_client_of_an_unknown_kind_is_refused(output):
    """Something that is no client is named when the step is bound."""
    with pytest.raises(errors.DefinitionError, match="client= is object, expected"):
        OpenAIProvider().connect(Model("openai/x", client=object()), output)


def test_service_without_a_client_says_how_to_give_one(output):
    """A name that only instructor knows needs its client."""
    with pytest.raises(errors.DefinitionError, match="nothing installed reaches 'mistral'"):
        ClientProvider().connect(Model("mistral/large"), output)


@pytest.mark.parametrize("name", ["openai", "anthropic", "google", "mistral"])
def test_hook_llmflow_provider(name):
    """The built-in providers come through the hook, and nothing else does."""
    assert hasattr(llmflow_provider(name), "connect")
    assert llmflow_provider("acme") is None


@pytest.mark.anyio
async def test_lone_surrogate_can_be_sent_back(send_and_model, server, output, make_request):
    """Fault 35: half an emoji in an invalid answer does not stop the re-ask, through any client."""
    send, model = send_and_model
    server.enqueue(answer("I would say \ud83d"))
    reply = await send(make_request(model, output))

    await send(make_request(model, output, turns=tuple(reply.reask("bad \udc00"))))

    assert "I would say \ufffd" == reply.text
    assert b"\\ud" not in server.requests[1].body.lower()
    assert "I would say" in str(server.requests[1].json["messages"])
