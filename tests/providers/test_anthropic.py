"""Anthropic's messages: what is sent, what is read, and what its errors become."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from llmflow import errors
from llmflow.messages import File, Message, Usage
from llmflow.models import Model
from llmflow.providers import ParamDroppedWarning
from llmflow.providers._anthropic import AnthropicProvider
from llmflow.providers._anthropic_errors import TRANSLATORS
from llmflow.providers._openai import OpenAIProvider
from llmflow.testing import _http_faults as faults
from llmflow.testing._http_responses import answer, json_reply, status

TICKET = '{"category":"bug","urgent":true}'


@pytest.fixture
def model(server):
    return Model("anthropic/claude-x", base_url=server.base_url, api_key="sk-ant-0123456789")


@pytest.mark.anyio
async def test_typed_answer_comes_from_the_tool_call(server, model, output, make_request):
    """The schema goes out as a forced tool, and its input comes back as JSON."""
    server.enqueue(answer(TICKET, usage=(12, 7)))
    request = make_request(model, output, Message("system", "Be brief"), Message("user", "hi"))

    reply = await AnthropicProvider().connect(model, output)(request)

    (received,) = server.requests
    body = received.json
    assert TICKET == reply.text
    assert Usage(input_tokens=12, output_tokens=7, cached_tokens=0) == reply.usage
    assert "/v1/messages" == received.path
    assert ("Be brief", 100) == (body["system"], body["max_tokens"])
    assert [{"role": "user", "content": "hi"}] == body["messages"]
    assert "Ticket" == body["tool_choice"]["name"]
    assert "sk-ant-0123456789" in str(received.headers)
    assert "anthropic-version" in received.headers


@pytest.mark.anyio
async def test_text_step(server, model, text_output, make_request):
    """A step that returns str gets the text blocks together."""
    server.enqueue(json_reply({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}))

    reply = await AnthropicProvider().connect(model, text_output)(make_request(model, text_output))

    assert "ab" == reply.text
    assert "tools" not in server.requests[0].json


@pytest.mark.anyio
async def test_cache_tokens_are_part_of_the_input(server, model, output, make_request):
    """llmflow's input includes what was read from the cache; Anthropic's does not."""
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 30,
        "cache_creation_input_tokens": 5,
        "output_tokens": 8,
        "output_tokens_details": {"thinking_tokens": 3},
    }
    server.enqueue(answer(TICKET, usage=usage))

    reply = await AnthropicProvider().connect(model, output)(make_request(model, output))

    assert (
        Usage(input_tokens=45, output_tokens=8, cached_tokens=30, reasoning_tokens=3, cache_write_tokens=5)
        == reply.usage
    )


@pytest.mark.anyio
@pytest.mark.parametrize("sent", ["stop", "length", "refusal"])
async def test_finish_reasons(sent, server, model, text_output, make_request):
    """A cut or declined answer is told from a complete one."""
    server.enqueue(answer("text", finish_reason=sent))

    reply = await AnthropicProvider().connect(model, text_output)(make_request(model, text_output))

    assert ("text", sent) == (reply.text, reply.finish_reason)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "content", [None, [], {}, "x", [None], [{"type": "text"}], [{"type": "thinking", "thinking": "x"}]]
)
async def test_reply_without_an_answer_has_no_text(content, server, model, output, make_request):
    """No answer at all is a reply without text, not a crash."""
    server.enqueue(json_reply({"content": content, "stop_reason": 5, "usage": "junk"}))

    reply = await AnthropicProvider().connect(model, output)(make_request(model, output))

    assert (None, None) == (reply.text, reply.usage)


@pytest.mark.anyio
async def test_reask_answers_the_tool_call(server, model, output, make_request):
    """Every tool call of the invalid answer gets its result, as the API demands."""
    server.enqueue(answer("{}"))
    send = AnthropicProvider().connect(model, output)
    reply = await send(make_request(model, output))

    await send(make_request(model, output, turns=tuple(reply.reask("urgent: field required"))))

    _, call, result = server.requests[1].json["messages"]
    assert ("assistant", "user") == (call["role"], result["role"])
    assert call["content"][0]["id"] == result["content"][0]["tool_use_id"]
    assert "urgent: field required" in str(result)


@pytest.mark.anyio
async def test_params_and_files(server, model, text_output, make_request):
    """Parameters have the API's names, files are blocks before the text, and what is unknown is dropped."""
    files = (File(media_type="image/png", data=b"png"), File(media_type="application/pdf", url="https://e.com/a.pdf"))
    params = {"max_tokens": 9, "stop": "END", "temperature": 0.5, "seed": 1}
    request = make_request(model, text_output, Message("user", "Look", files), params=params)

    with pytest.warns(ParamDroppedWarning, match="'seed'"):
        await AnthropicProvider().connect(model, text_output)(request)

    body = server.requests[0].json
    image, document, text = body["messages"][0]["content"]
    assert (9, ["END"], 0.5) == (body["max_tokens"], body["stop_sequences"], body["temperature"])
    assert {"type": "base64", "media_type": "image/png", "data": "cG5n"} == image["source"]
    assert {"type": "url", "url": "https://e.com/a.pdf"} == document["source"]
    assert {"type": "text", "text": "Look"} == text


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (status(529, error_type="overloaded_error"), errors.ProviderUnavailable),
        (status(500), errors.ProviderUnavailable),
        (status(429, error_type="rate_limit_error"), errors.RateLimited),
        (status(401, error_type="authentication_error"), errors.AuthenticationFailed),
        (status(402, error_type="billing_error"), errors.QuotaExceeded),
        (
            json_reply({"error": {"details": {"error_code": "enforced_spend_limit_reached"}}}, status=429),
            errors.QuotaExceeded,
        ),
        (status(400, message="Your credit balance is too low to access the API"), errors.QuotaExceeded),
        (status(400, message="prompt is too long: 210000 tokens > 200000 maximum"), errors.ContextTooLong),
        (status(400), errors.BadRequest),
        (status(413, error_type="request_too_large"), errors.BadRequest),
        (faults.close_without_reply(), errors.ProviderUnavailable),
        (faults.short_body(), errors.ProviderUnavailable),
        (faults.html(), errors.ProviderUnavailable),
        (faults.error_in_200(), errors.ProviderUnavailable),
        (faults.gzip_bomb(20), errors.ProviderUnavailable),
        (faults.redirect("http://elsewhere.invalid/"), errors.ProviderUnavailable),
    ],
)
async def test_errors(response, kind, server, model, output, make_request):
    """Each failure is the class that says what helps, after exactly one request."""
    server.enqueue(response)

    with pytest.raises(errors.StepError) as caught:
        await AnthropicProvider().connect(model, output)(make_request(model, output))

    assert kind is type(caught.value)
    assert 1 == len(server.requests)
    assert "sk-ant" not in repr(
        getattr(caught.value.__cause__, "request", None) and caught.value.__cause__.request.headers
    )


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore:Anthropic client does not support")
@pytest.mark.parametrize("mode", ["tools", "json", "json_schema"])
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_lone_surrogate_does_not_stop_the_reask(mode, provider, server, output, make_request):
    """Fault 35: half an emoji in an invalid answer can be sent back."""
    model = Model(f"{provider}/x", base_url=server.base_url, api_key="sk-0123456789", mode=mode)
    send = {"openai": OpenAIProvider, "anthropic": AnthropicProvider}[provider]().connect(model, output)
    server.enqueue(answer("I would say \ud83d"))
    reply = await send(make_request(model, output))

    await send(make_request(model, output, turns=tuple(reply.reask("bad \udc00"))))

    assert "I would say \ufffd" in str(server.requests[1].json["messages"])
    assert "bad \ufffd" in str(server.requests[1].json["messages"])


def test_unknown_mode_names_those_of_the_provider(output):
    """What is advised works: Anthropic has no md_json."""
    with pytest.raises(errors.DefinitionError, match="use 'tools', 'json_schema' or 'json'$"):
        AnthropicProvider().connect(Model("anthropic/claude-x", mode="md_json"), output)


def all_subclasses(cls: type[Any]) -> set[type[Any]]:
    return {cls}.union(*(all_subclasses(child) for child in cls.__subclasses__()))


def test_every_error_of_the_sdk_is_mapped():
    """A new version of the SDK with a new error fails here and not in production; a status error tells by its status."""
    known = all_subclasses(anthropic.AnthropicError) - (
        all_subclasses(anthropic.APIStatusError) - {anthropic.APIStatusError}
    )
    names = {cls.__name__ for cls in known if cls.__module__.startswith("anthropic")}

    assert set() == names - set(TRANSLATORS)
