"""Gemini: what is sent, what is read, and what its errors become."""

from __future__ import annotations

import re
from typing import Any

import pytest

from llmflow import errors
from llmflow.messages import File, Message, Usage
from llmflow.models import Model
from llmflow.providers._google import GoogleProvider
from llmflow.providers._google_errors import TRANSLATORS
from llmflow.testing import _http_faults as faults
from llmflow.testing._http_responses import answer, json_reply

genai = pytest.importorskip("google.genai")

TICKET = '{"category":"bug","urgent":true}'


@pytest.fixture
def model(server):
    return Model("google/gemini-x", base_url=server.base_url, api_key="AIzaSecretKey0123456789")


def failed(code: int, status: str, **error: Any):
    """A failure in Google's form."""
    return json_reply(
        {"error": {"code": code, "message": "Something specific", "status": status, **error}}, status=code
    )


@pytest.fixture
async def google(anyio_backend):
    """A provider whose connections are closed on the loop they belong to, which lives on after the test."""
    provider = GoogleProvider()
    yield provider
    await provider.aclose()


@pytest.mark.anyio
async def test_typed_answer(server, model, output, make_request, google):
    """The schema goes out in the API's own JSON mode."""
    server.enqueue(answer(TICKET, usage=(12, 7)))
    request = make_request(
        model,
        output,
        Message("system", "Be brief"),
        Message("user", "hi"),
        Message("assistant", "yes"),
        params={"max_tokens": 9, "stop": "END"},
    )

    reply = await google.connect(model, output)(request)

    (received,) = server.requests
    body = received.json
    config = body["generationConfig"]
    assert (TICKET, "stop", "gemini") == (reply.text, reply.finish_reason, reply.model)
    assert Usage(input_tokens=12, output_tokens=7) == reply.usage
    assert received.path.endswith("/models/gemini-x:generateContent")
    assert "AIzaSecretKey0123456789" == received.headers["x-goog-api-key"]
    assert ["user", "model"] == [content["role"] for content in body["contents"]]
    assert "Be brief" == body["systemInstruction"]["parts"][0]["text"]
    assert ("application/json", 9, ["END"]) == (
        config["responseMimeType"],
        config["maxOutputTokens"],
        config["stopSequences"],
    )
    assert {"category", "urgent"} == set(config["responseJsonSchema"]["properties"])


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("ending", "path"),
    [
        ("/v1", "/v1/"),
        ("/v1beta", "/v1beta/"),
        ("/v1beta/", "/v1beta/"),
        ("/proxy/v1alpha2", "/proxy/v1alpha2/"),
        ("", "/v1(?:beta)?/"),  # which one, the version of the SDK decides
        ("/v1/gateway", "/v1/gateway/v1(?:beta)?/"),
    ],
)
async def test_version_in_the_address_is_taken_as_it_is(ending, path, server, output, make_request, google):
    """The SDK adds a version of its own only where the address has none."""
    model = Model("google/gemini-x", base_url=f"http://127.0.0.1:{server.port}{ending}", api_key="AIza0123456789abc")
    server.enqueue(answer(TICKET))

    await google.connect(model, output)(make_request(model, output))

    assert re.fullmatch(f"{path}models/gemini-x:generateContent", server.requests[0].path)


@pytest.mark.anyio
async def test_text_step_with_a_file(server, model, text_output, make_request, google):
    """A step that returns str sends no schema; files are parts before the text."""
    server.enqueue(answer("All good."))
    request = make_request(model, text_output, Message("user", "Look", (File(media_type="image/png", data=b"png"),)))

    reply = await google.connect(model, text_output)(request)

    image, text = server.requests[0].json["contents"][0]["parts"]
    assert "All good." == reply.text
    assert ["cG5n", "image/png"] == list(image["inlineData"].values())
    assert "Look" == text["text"]


@pytest.mark.anyio
@pytest.mark.parametrize(("sent", "expected"), [("length", "length"), ("content_filter", "content_filter")])
async def test_finish_reasons(sent, expected, server, model, output, make_request, google):
    """A cut or withheld answer is told from a complete one."""
    server.enqueue(answer("{", finish_reason=sent))

    reply = await google.connect(model, output)(make_request(model, output))

    assert ("{", expected) == (reply.text, reply.finish_reason)


@pytest.mark.anyio
async def test_blocked_prompt(server, model, output, make_request, google):
    """A prompt that Google refuses to answer is filtered content, without text."""
    server.enqueue(json_reply({"promptFeedback": {"blockReason": "SAFETY"}}))

    reply = await google.connect(model, output)(make_request(model, output))

    assert (None, "content_filter") == (reply.text, reply.finish_reason)


@pytest.mark.anyio
async def test_reasoning_is_part_of_the_output(server, model, output, make_request, google):
    """llmflow's output includes reasoning; Gemini counts it apart."""
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 8, "thoughtsTokenCount": 5, "cachedContentTokenCount": 4}
    server.enqueue(answer(TICKET, usage=usage))

    reply = await google.connect(model, output)(make_request(model, output))

    assert Usage(input_tokens=10, output_tokens=13, cached_tokens=4, reasoning_tokens=5) == reply.usage


DELAY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}
PER_DAY = {
    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
    "violations": [{"quotaId": "RequestsPerDayPerProject"}],
}
BAD_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (failed(429, "RESOURCE_EXHAUSTED"), errors.RateLimited),
        (failed(429, "RESOURCE_EXHAUSTED", details=[PER_DAY]), errors.QuotaExceeded),
        (failed(503, "UNAVAILABLE"), errors.ProviderUnavailable),
        (failed(500, "INTERNAL"), errors.ProviderUnavailable),
        (failed(403, "PERMISSION_DENIED"), errors.AuthenticationFailed),
        (failed(400, "INVALID_ARGUMENT"), errors.BadRequest),
        (failed(400, "INVALID_ARGUMENT", details=[BAD_KEY]), errors.AuthenticationFailed),
        (
            failed(400, "INVALID_ARGUMENT", message="The input token count (9) exceeds the maximum number of tokens"),
            errors.ContextTooLong,
        ),
        (failed(404, "NOT_FOUND"), errors.BadRequest),
        (faults.close_without_reply(), errors.ProviderUnavailable),
        (faults.short_body(), errors.ProviderUnavailable),
        (faults.reset_in_body(), errors.ProviderUnavailable),
        (faults.html(), errors.ProviderUnavailable),
        (faults.invalid_json(), errors.ProviderUnavailable),
        (faults.gzip_bomb(20), errors.ProviderUnavailable),
        (faults.redirect("http://elsewhere.invalid/"), errors.ProviderUnavailable),
    ],
)
async def test_errors(response, kind, server, model, output, make_request, google):
    """Each failure is the class that says what helps, after exactly one request."""
    server.enqueue(response)

    with pytest.raises(errors.StepError) as caught:
        await google.connect(model, output)(make_request(model, output))

    assert kind is type(caught.value)
    assert 1 == len(server.requests)
    assert "AIza" not in str(caught.value)


@pytest.mark.anyio
async def test_delay_in_the_body_is_on_the_error(server, model, output, make_request, google):
    """Google says how long to wait in the body."""
    server.enqueue(failed(429, "RESOURCE_EXHAUSTED", details=[DELAY]))

    with pytest.raises(errors.RateLimited) as caught:
        await google.connect(model, output)(make_request(model, output))

    assert 34.0 == caught.value.retry_after


@pytest.mark.anyio
async def test_missing_key_names_the_variable(output, make_request, google):
    """Without a key there is no request."""
    model = Model("google/gemini-x")

    with pytest.raises(errors.AuthenticationFailed, match="set GEMINI_API_KEY"):
        await google.connect(model, output)(make_request(model, output))


def test_every_error_of_the_sdk_is_mapped():
    """A new version of the SDK with a new error fails here and not in production."""
    from google.genai import errors as sdk_errors

    classes = [cls for cls in vars(sdk_errors).values() if isinstance(cls, type) and issubclass(cls, Exception)]
    names = {cls.__name__ for cls in classes if not issubclass(cls, Warning)}

    assert set() == names - set(TRANSLATORS)
