"""Every fault of the network catalogue, on both ways to the provider: asyncio's direct one, and the SDK's under trio."""

from __future__ import annotations

import contextlib
import gc
import gzip
import logging
import resource
import traceback

import anyio
import anyio.abc
import pytest

from llmflow import errors
from llmflow.models import Model
from llmflow.providers._openai import OpenAIProvider
from llmflow.testing import _http_faults as faults
from llmflow.testing._http_responses import answer, json_reply, raw_reply, status
from llmflow.testing._loopback import LoopbackServer

TICKET = '{"category":"bug","urgent":true}'


async def failure(model, output, make_request, provider=None):
    """Send one request that fails, and return the error."""
    with pytest.raises(errors.LLMFlowError) as caught:
        await (provider or OpenAIProvider()).connect(model, output)(make_request(model, output))
    return caught.value


@pytest.mark.anyio
@pytest.mark.parametrize(
    "fault",
    [
        faults.close_without_reply(),
        faults.reset_in_body(),
        faults.short_body(),
        faults.unfinished_chunks(),
        faults.not_http(),
        faults.bad_encoding("gzip"),
        faults.bad_encoding("deflate"),
        faults.bad_encoding("br"),
        faults.html(),
        faults.invalid_json(),
        faults.empty_body(),
        faults.deeply_nested(),
        faults.long_number(),
        raw_reply(b"[1, 2]"),
        raw_reply(b"\xff\xfe\x00"),
        faults.error_in_200(),
    ],
    ids=lambda fault: getattr(fault, "name", None),
)
async def test_broken_replies_are_unavailable_and_retryable(fault, server, model, output, make_request):
    """No reply that is not one becomes an answer, and it is worth another try."""
    server.enqueue(fault)

    error = await failure(model, output, make_request)

    assert errors.ProviderUnavailable is type(error)
    assert error.retryable
    assert error.__cause__ is not None
    assert 1 == len(server.requests)


@pytest.mark.anyio
async def test_connection_refused(output, make_request):
    """Nobody listening is said as such, with the cause kept."""
    error = await failure(Model("openai/gpt-x", base_url=faults.refused_url()), output, make_request)

    assert errors.ProviderUnavailable is type(error)
    assert error.retryable
    assert error.__cause__ is not None


@pytest.mark.anyio
async def test_unknown_host(output, make_request):
    """A name that does not resolve is a failed connection."""
    model = Model("openai/gpt-x", base_url="http://nowhere.invalid/v1", api_key="sk-some-key")

    error = await failure(model, output, make_request)

    assert errors.ProviderUnavailable is type(error)


@pytest.mark.anyio
async def test_https_to_a_plain_server(server, output, make_request):
    """A failed TLS handshake is a failed connection."""
    model = Model("openai/gpt-x", base_url=server.base_url.replace("http:", "https:"))

    error = await failure(model, output, make_request)

    assert errors.ProviderUnavailable is type(error)


@pytest.mark.anyio
async def test_web_page_is_named_by_its_content_type(server, model, output, make_request):
    """A captive portal is recognisable from the message."""
    server.enqueue(faults.html())

    error = await failure(model, output, make_request)

    assert "text/html" in str(error)


@pytest.mark.anyio
async def test_right_json_with_a_wrong_label_is_accepted(server, model, output, make_request):
    """A service that labels its JSON text/plain still answers."""
    body = b'{"choices": [{"message": {"content": "{}"}, "finish_reason": "stop"}]}'
    server.enqueue(raw_reply(body, content_type="text/plain"))

    reply = await OpenAIProvider().connect(model, output)(make_request(model, output))

    assert "{}" == reply.text


@pytest.mark.anyio
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compressed_replies_are_read(encoding, server, model, output, make_request):
    """The encodings that are asked for work."""
    import zlib

    body = b'{"choices": [{"message": {"content": "{}"}}]}'
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    server.enqueue(raw_reply(packed, headers={"content-encoding": encoding}))

    reply = await OpenAIProvider().connect(model, output)(make_request(model, output))

    assert "{}" == reply.text
    assert "gzip, deflate" == server.requests[0].headers["accept-encoding"]


STATUSES = [
    (400, errors.BadRequest, False),
    (401, errors.AuthenticationFailed, False),
    (402, errors.QuotaExceeded, False),
    (403, errors.AuthenticationFailed, False),
    (404, errors.BadRequest, False),
    (408, errors.ProviderUnavailable, True),
    (409, errors.BadRequest, False),
    (413, errors.BadRequest, False),
    (422, errors.BadRequest, False),
    (429, errors.RateLimited, True),
    (500, errors.ProviderUnavailable, True),
    (502, errors.ProviderUnavailable, True),
    (503, errors.ProviderUnavailable, True),
    (504, errors.ProviderUnavailable, True),
    (529, errors.ProviderUnavailable, True),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("code", "kind", "retryable"), STATUSES)
async def test_statuses(code, kind, retryable, server, model, output, make_request):
    """Each status is the class that says what helps, after exactly one request."""
    server.enqueue(status(code, message="Something specific"))

    error = await failure(model, output, make_request)

    assert kind is type(error)
    assert (code, retryable) == (error.status, error.retryable)
    assert f"openai/gpt-x: {code} Something specific" == str(error)
    assert 1 == len(server.requests)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (faults.insufficient_quota(), errors.QuotaExceeded),
        (status(429, error_code="billing_hard_limit_reached"), errors.QuotaExceeded),
        (status(400, error_code="context_length_exceeded"), errors.ContextTooLong),
        (status(400, message="This model's maximum context length is 8192 tokens."), errors.ContextTooLong),
        (status(400, error_code="content_filter"), errors.ContentFiltered),
        (faults.error_in_200(code=429), errors.RateLimited),
        (faults.error_in_200(code="429"), errors.RateLimited),
        (faults.error_in_200(code="insufficient_quota"), errors.QuotaExceeded),
        (faults.error_in_200(code="rate_limit_exceeded"), errors.RateLimited),
        (faults.error_in_200(code="context_length_exceeded"), errors.ContextTooLong),
        (faults.error_in_200(code="invalid_api_key"), errors.AuthenticationFailed),
        (faults.error_in_200(code=503), errors.ProviderUnavailable),
        (json_reply({"error": "plain words"}), errors.ProviderUnavailable),
    ],
)
async def test_codes_decide_where_the_status_does_not(response, kind, server, model, output, make_request):
    """The provider's own word for the failure is finer than its status."""
    server.enqueue(response)

    assert kind is type(await failure(model, output, make_request))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("says", "code", "retryable"), [("false", 500, False), ("true", 400, True), ("maybe", 500, True)]
)
async def test_x_should_retry_is_obeyed(says, code, retryable, server, model, output, make_request):
    """The provider knows best whether another try helps."""
    server.enqueue(status(code, headers={"x-should-retry": says}))

    assert retryable is (await failure(model, output, make_request)).retryable


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("response", "seconds"),
    [
        (faults.rate_limited(), None),
        (faults.rate_limited("7"), 7.0),
        (faults.rate_limited("7", ms="1500"), 1.5),
        (faults.rate_limited("Wed, 01 Jan 2025 00:00:30 GMT"), 30.0),
        (faults.rate_limited("inf"), None),
        (faults.rate_limited("soon"), None),
        (status(503, headers={"retry-after": "3600"}), 3600.0),
    ],
)
async def test_retry_after_is_on_the_error(response, seconds, server, model, output, make_request):
    """How long the provider asked to wait is there to be read."""
    server.enqueue(response)
    provider = OpenAIProvider(wall_clock=lambda: 1735689600.0)

    assert seconds == (await failure(model, output, make_request, provider)).retry_after


@pytest.mark.anyio
async def test_redirects_are_not_followed(server, model, output, make_request):
    """Neither key nor prompt reach another host, and the address is named."""
    with LoopbackServer() as elsewhere:
        server.enqueue(faults.redirect(f"{elsewhere.base_url}/chat/completions"))

        error = await failure(model, output, make_request)

        assert [] == elsewhere.requests
    assert errors.ProviderUnavailable is type(error)
    assert (307, False) == (error.status, error.retryable)
    assert elsewhere.base_url in str(error)


@pytest.mark.anyio
@pytest.mark.parametrize("fault", [faults.huge_body(100), faults.gzip_bomb(200)], ids=["100 MB", "gzip bomb"])
async def test_large_bodies_are_cut_off_while_reading(fault, server, model, output, make_request):
    """Memory does not grow with what a provider sends."""
    server.enqueue(answer(TICKET), fault)
    send = OpenAIProvider().connect(model, output)
    await send(make_request(model, output))
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(errors.ProviderUnavailable, match="larger than 10,485,760 bytes") as caught:
        await send(make_request(model, output))

    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert not caught.value.retryable
    assert grown_kb < 64 * 1024


@pytest.mark.anyio
@pytest.mark.parametrize("fault", [faults.never_answer(), faults.stall_in_body(), faults.drip(0.02)])
async def test_cancelling_closes_the_socket(fault, server, model, output, make_request, closed_by_client):
    """A call that is given up does not leave the provider working."""
    server.default = fault

    while not server.requests:  # on a machine that stood still the time was up before the request was sent
        with anyio.move_on_after(0.2) as scope:
            await OpenAIProvider().connect(model, output)(make_request(model, output))

        assert scope.cancelled_caught
    await closed_by_client(server.requests[0])


@pytest.mark.anyio
async def test_call_after_a_cancelled_one_gets_its_own_answer(server, model, output, make_request):
    """What is left of a cancelled call's reply is never read as the next one's."""
    server.enqueue(answer("old", delay=0.3), answer("new"))
    send = OpenAIProvider().connect(model, output)
    async with anyio.create_task_group() as group:
        group.start_soon(send, make_request(model, output))
        await anyio.to_thread.run_sync(server.wait_requests, 1)
        group.cancel_scope.cancel()

    reply = await send(make_request(model, output))

    assert "new" == reply.text


# -- what an error may say ---------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_keys_are_in_no_log(server, model, output, make_request, caplog):
    """Not even at DEBUG, when the provider repeats the key."""
    caplog.set_level(logging.DEBUG)
    key = model.api_key.reveal()
    server.enqueue(status(401, message=f"Incorrect API key provided: {key}"))

    await failure(model, output, make_request)

    assert key not in caplog.text


@pytest.mark.anyio
async def test_keys_are_in_no_part_of_an_error(server, model, output, make_request):
    """Not when the provider repeats the key, not in the cause, its request or the traceback."""
    key = model.api_key.reveal()
    server.enqueue(status(401, message=f"Incorrect API key provided: {key}", headers={"x-echo": key}))

    error = await failure(model, output, make_request)

    texts = [str(error), repr(error), "".join(traceback.format_exception(error))]
    cause = error.__cause__
    while cause is not None:
        texts += [str(cause), repr(cause), repr(vars(cause)), repr(cause.args)]
        for holder in (getattr(cause, "request", None), getattr(getattr(cause, "response", None), "request", None)):
            texts += [] if holder is None else [repr(dict(holder.headers))]
        if (response := getattr(cause, "response", None)) is not None:
            texts += [response.text, repr(response.content), repr(dict(response.headers))]
        cause = cause.__cause__ or cause.__context__
    assert [] == [text for text in texts if key in text]
    assert "openai/gpt-x: 401 Incorrect API key provided: **********" == str(error)


@pytest.mark.anyio
async def test_what_looks_like_a_key_is_hidden_too(server, model, output, make_request):
    """A gateway may repeat a key that is not ours."""
    server.enqueue(status(401, message="bad key sk-proj-abcdefghijkl0123 used"))

    assert "openai/gpt-x: 401 bad key ********** used" == str(await failure(model, output, make_request))


@pytest.mark.anyio
async def test_messages_are_one_short_line(server, model, output, make_request):
    """Line breaks, escape sequences and endless texts of a provider stay out of logs."""
    server.enqueue(status(500, message="a\r\nFORGED\x1b[31m\u202e" + "x" * 5000))

    text = str(await failure(model, output, make_request))

    assert text.startswith("openai/gpt-x: 500 a FORGED\\x1b[31m\\u202ex")
    assert len(text) < 400


@pytest.mark.anyio
async def test_prompt_is_not_in_the_error(server, model, output, make_request):
    """A body that repeats the request, as validating gateways send, is not quoted."""
    detail = [{"loc": ["body"], "msg": "extra field", "input": "My bill is wrong"}]
    server.enqueue(json_reply({"detail": detail}, status=422))

    assert "openai/gpt-x: 422 without a message" == str(await failure(model, output, make_request))


@pytest.mark.anyio
async def test_gzip_of_several_members_is_read(server, model, output, make_request):
    """Both ways to the provider read what RFC 1952 allows."""
    body = b'{"choices": [{"message": {"content": "{}"}}]}'
    packed = gzip.compress(body[:20]) + gzip.compress(body[20:])
    server.enqueue(raw_reply(packed, headers={"content-encoding": "gzip"}))

    reply = await OpenAIProvider().connect(model, output)(make_request(model, output))

    assert "{}" == reply.text


@pytest.mark.anyio
async def test_second_reply_in_one_packet_answers_nobody(output, make_request):
    """What follows a reply is not the next one's answer, whoever reads it."""

    def completion(text):
        body = b'{"choices": [{"message": {"content": "%b"}}]}' % text
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async def serve(stream):
        nonlocal connections
        connections += 1
        async with stream:
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    received = b""
                    while not received.endswith(b"}"):
                        received += await stream.receive()
                    await stream.send(completion(b"asked") + completion(b"not asked"))

    connections = 0
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        model = Model("openai/gpt-x", base_url=f"http://127.0.0.1:{port}/v1", api_key="sk-some-key")
        provider = OpenAIProvider()
        send = provider.connect(model, output)

        texts = [(await send(make_request(model, output))).text for _ in range(3)]
        await provider.aclose()
        group.cancel_scope.cancel()

    assert ["asked"] * 3 == texts
    assert 3 == connections
