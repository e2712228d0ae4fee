"""Streamed replies of the three services: the same as unstreamed ones, and a typed error for each that is broken."""

from __future__ import annotations

import gc
import gzip
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import anthropic
import anyio
import instructor
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmflow import errors
from llmflow.messages import Usage
from llmflow.models import Model
from llmflow.prices import cost
from llmflow.providers import _anthropic, _google, _openai
from llmflow.providers._anthropic_stream import MessageStream
from llmflow.providers._google_stream import ContentStream
from llmflow.providers._openai_stream import CompletionStream
from llmflow.providers._plugin import llmflow_provider
from llmflow.providers._price_table import PriceTable
from llmflow.providers._sse import Event
from llmflow.testing import _http_faults as faults
from llmflow.testing._http_responses import answer, json_reply, raw_reply, status
from llmflow.testing._http_streams import streamed

pytestmark = pytest.mark.anyio

KEY = "sk-test-0123456789abcdef"
TICKET = '{"category":"bug","urgent":true}'
TEXT = "It is a bug, and a nasty one: ä€😀."
GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))
NAMES = ["openai/gpt-x", "anthropic/claude-x", "google/gemini-x"]

golden = pytest.mark.parametrize(
    "case", [json.loads(path.read_text()) for path in GOLDEN], ids=[path.stem for path in GOLDEN]
)
services = pytest.mark.parametrize("name", NAMES)


def reached(name: str, server: Any, **options: Any) -> Model:
    return Model(name, base_url=server.base_url, api_key=KEY, **options)


class Asker:
    """One provider, asked with or without a stream."""

    def __init__(self, model: Model, output: Any, make_request: Any) -> None:
        self.provider = llmflow_provider(model.provider)
        self.model, self.output, self.make_request = model, output, make_request
        self.send = self.provider.connect(model, output)
        self.pieces: list[str] = []

    async def plain(self) -> Any:
        return await self.send(self.make_request(self.model, self.output))

    async def streamed(self) -> Any:
        async def sink(chunk):
            self.pieces.append(chunk.text)

        return await self.send(self.make_request(self.model, self.output, sink=sink))

    async def failure(self) -> errors.StepError:
        try:
            with pytest.raises(errors.LLMFlowError) as caught:
                await self.streamed()
        finally:
            await self.provider.aclose()
        return caught.value


def parts(reply: Any) -> tuple[Any, ...]:
    return reply.text, reply.usage, reply.finish_reason, reply.model


# -- the same as unstreamed --------------------------------------------------------------------------------------------


@golden
async def test_a_streamed_reply_costs_what_the_whole_one_does(case, server, text_output, make_request):
    """Text, tokens and dollars of a real reply are equal, to the nano-dollar."""
    server.default = json_reply(case["body"])
    asker = Asker(reached(case["model"], server), text_output, make_request)
    whole = await asker.plain()
    server.default = streamed(reply=case["body"], size=3)

    reply = await asker.streamed()

    price = PriceTable().llmflow_price(Model(case["model"]))
    await asker.provider.aclose()
    assert parts(whole) == parts(reply)
    assert Usage(**case["usage"]) == reply.usage
    assert cost(whole.usage, price) == cost(reply.usage, price) is not None
    assert "It is a bug." == "".join(asker.pieces)


@services
@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("reason", ["stop", "length", "refusal", "content_filter"])
async def test_every_ending_is_the_same(name, typed, reason, server, output, text_output, make_request):
    """A typed answer or a text, complete, cut, refused or filtered: the reply is that of an unstreamed request."""
    form = output if typed else text_output
    server.default = answer(TICKET if typed else TEXT, finish_reason=reason, usage=(12, 7))
    asker = Asker(reached(name, server), form, make_request)

    whole, reply = await asker.plain(), await asker.streamed()

    await asker.provider.aclose()
    assert parts(whole) == parts(reply)
    if reason == "stop":
        assert (json.loads(TICKET) if typed else TEXT) == (
            json.loads("".join(asker.pieces)) if typed else "".join(asker.pieces)
        )


@services
async def test_an_answer_comes_in_pieces(name, server, text_output, make_request):
    """The sink has each piece when it comes, not all of them at the end."""
    server.default = streamed("abcdef" * 4, size=6)
    asker = Asker(reached(name, server), text_output, make_request)

    await asker.streamed()

    await asker.provider.aclose()
    assert ["abcdef"] * 4 == asker.pieces


@pytest.mark.parametrize("name", NAMES[:2])
async def test_a_repeated_ask_can_be_built_from_a_stream(name, server, output, make_request):
    """instructor's handlers get the same reply, and so build the same turns."""
    server.default = answer('{"category": "spam", "urgent": true}')
    asker = Asker(reached(name, server), output, make_request)
    whole, reply = await asker.plain(), await asker.streamed()

    expected, built = whole.reask("no such category"), reply.reask("no such category")

    await asker.provider.aclose()
    assert json.loads(json.dumps(expected)) == json.loads(json.dumps(built))


@services
async def test_connections_are_used_again(name, server, text_output, make_request):
    """A stream that was read to its end leaves its connection for the next request."""
    asker = Asker(reached(name, server), text_output, make_request)
    server.default = streamed("a" * 50)

    for _ in range(3):
        await asker.streamed()

    await asker.provider.aclose()
    assert 1 == server.connections_opened


async def test_a_prompt_that_gemini_refuses_is_filtered(server, text_output, make_request):
    """A stream with no candidate in it, but a reason, is the answer that the unstreamed reply is."""
    body = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}}
    server.enqueue(json_reply(body), streamed(reply=body))
    asker = Asker(reached(NAMES[2], server), text_output, make_request)

    whole, reply = await asker.plain(), await asker.streamed()

    await asker.provider.aclose()
    assert ("content_filter", None) == (reply.finish_reason, reply.text)
    assert parts(whole) == parts(reply)


async def test_the_official_order_of_bodies(server, output, make_request):
    """The body asks for a stream, and for the tokens in it."""
    asker = Asker(reached("openai/gpt-x", server), output, make_request)

    await asker.plain()
    await asker.streamed()

    plain, body = (one.json for one in server.requests)
    await asker.provider.aclose()
    assert {"stream": True, "stream_options": {"include_usage": True}} == {
        key: one for key, one in body.items() if key not in plain
    }


async def test_a_service_that_does_not_count_is_asked_without(server, text_output, make_request):
    """Services that refuse `stream_options` are asked once more without it, and never again with it."""
    refusal = status(422, message="Extra inputs are not permitted: stream_options")
    server.enqueue(refusal, streamed("a"), streamed("b"))
    asker = Asker(reached("openai/gpt-x", server), text_output, make_request)

    first, second = await asker.streamed(), await asker.streamed()

    await asker.provider.aclose()
    assert ("a", "b") == (first.text, second.text)
    assert [True, False, False] == ["stream_options" in one.json for one in server.requests]


async def test_a_service_may_be_told_not_to_count(server, text_output, make_request):
    """An option of the model wins."""
    model = reached("openai/gpt-x", server, stream_options={"include_usage": False})
    asker = Asker(model, text_output, make_request)
    server.default = streamed("a")

    reply = await asker.streamed()

    await asker.provider.aclose()
    assert ("a", None) == (reply.text, reply.usage)


@pytest.mark.parametrize("name", NAMES[:2])
async def test_a_service_that_does_not_stream_still_answers(name, server, text_output, make_request):
    """A whole reply to a request for a stream is that reply; the caller makes one piece of it."""
    bodies = {
        NAMES[0]: {"choices": [{"message": {"content": TEXT}, "finish_reason": "stop"}]},
        NAMES[1]: {"type": "message", "content": [{"type": "text", "text": TEXT}], "stop_reason": "end_turn"},
    }
    server.default = json_reply(bodies[name])
    asker = Asker(reached(name, server), text_output, make_request)

    reply = await asker.streamed()

    await asker.provider.aclose()
    assert (TEXT, []) == (reply.text, asker.pieces)


def sse(*data: object, done: bool = True, **headers: str) -> Any:
    lines = [f"data: {json.dumps(one) if not isinstance(one, str) else one}\n\n" for one in data]
    body = "".join([*lines, "data: [DONE]\n\n"] if done else lines).encode()
    if headers.get("content_encoding") == "gzip":
        return raw_reply(gzip.compress(body), content_type="text/event-stream", headers={"content-encoding": "gzip"})
    return raw_reply(body, content_type=headers.get("content_type", "text/event-stream"))


def chunk(delta: object, finish: object = None, **more: object) -> dict[str, object]:
    return {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def call(index: object, arguments: str | None, **more: object) -> dict[str, object]:
    function = {"arguments": arguments, **({"name": "Ticket"} if "id" in more else {})}
    return chunk({"tool_calls": [{"index": index, "function": function, **more}]})


SHAPES = {
    "usage in every chunk": (
        sse(
            chunk({"content": "a"}, usage={"prompt_tokens": 5, "completion_tokens": 1}),
            chunk({"content": "b"}, "stop", usage={"prompt_tokens": 5, "completion_tokens": 2}),
        ),
        ("ab", Usage(input_tokens=5, output_tokens=2), "stop"),
    ),
    "no DONE": (sse(chunk({"content": "ab"}), chunk({}, "stop"), done=False), ("ab", None, "stop")),
    "no finish": (sse(chunk({"content": "ab"})), ("ab", None, "stop")),
    "labelled as text": (sse(chunk({"content": "ab"}, "stop"), content_type="text/plain"), ("ab", None, "stop")),
    "compressed": (sse(chunk({"content": "ab"}, "stop"), content_encoding="gzip"), ("ab", None, "stop")),
    "content in parts": (
        sse(chunk({"content": [{"type": "text", "text": "ab"}, {"type": "thinking"}]}, "stop")),
        ("ab", None, "stop"),
    ),
    "choices empty": (sse({"choices": []}, chunk({"content": "ab"}, "stop"), {"choices": None}), ("ab", None, "stop")),
    "reasoning": (sse(chunk({"reasoning_content": "hm"}), chunk({"content": "ab"}, "stop")), ("ab", None, "stop")),
    "two answers": (
        sse(chunk({"content": "ab"}, "stop"), {"choices": [{"index": 1, "delta": {"content": "xx"}}]}),
        ("ab", None, "stop"),
    ),
    "refusal": (sse(chunk({"refusal": "I "}), chunk({"refusal": "won't"}, "stop")), ("I won't", None, "refusal")),
    "empty events": (sse("", chunk({"content": "ab"}, "stop")), ("ab", None, "stop")),
    "nothing": (sse(chunk({"role": "assistant"}), chunk({}, "stop")), (None, None, "stop")),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_services_that_only_resemble_openai(shape, server, text_output, make_request):
    """Every shape of chunks that services are known to send is read."""
    response, expected = SHAPES[shape]
    server.default = response
    asker = Asker(reached("openai/gpt-x", server), text_output, make_request)

    reply = await asker.streamed()

    await asker.provider.aclose()
    assert expected == (reply.text, reply.usage, reply.finish_reason)


CALLS = {
    "one": [call(0, "", id="c1"), call(0, '{"category":'), call(0, '"bug"}')],
    "two": [call(0, '{"category":', id="c1"), call(1, "{}", id="c2"), call(0, '"bug"}')],
    "no index": [call(None, '{"category":', id="c1"), call(None, '"bug"}'), call(None, "{}", id="c2")],
    "text before": [chunk({"content": "Sure: "}), call(0, '{"category":"bug"}', id="c1")],
    "legacy": [chunk({"function_call": {"name": "T", "arguments": one}}) for one in ('{"category":', '"bug"}')],
    "odd": [call(0, None, id="c1"), chunk({"tool_calls": [5]}), call(0, '{"category":"bug"}')],
}


@pytest.mark.parametrize("shape", CALLS)
async def test_the_first_tool_call_is_the_answer(shape, server, output, make_request):
    """Its arguments are what is shown and what is taken, whatever comes before and beside it."""
    server.default = sse(*CALLS[shape], chunk({}, "tool_calls"))
    asker = Asker(reached("openai/gpt-x", server), output, make_request)

    reply = await asker.streamed()

    await asker.provider.aclose()
    assert '{"category":"bug"}' == reply.text == "".join(asker.pieces)


async def test_text_instead_of_a_tool_call_is_the_answer(server, output, make_request):
    """A service that ignores the tool answers in the text: it is taken, and shown as one piece by the caller."""
    server.default = sse(chunk({"content": TICKET}), chunk({}, "stop"))
    asker = Asker(reached("openai/gpt-x", server), output, make_request)

    reply = await asker.streamed()

    await asker.provider.aclose()
    assert (TICKET, []) == (reply.text, asker.pieces)


# -- faults ------------------------------------------------------------------------------------------------------------


@services
@pytest.mark.parametrize("fault", ["reset", "end", "error", "junk"])
async def test_43_a_broken_stream_is_unavailable(name, fault, server, text_output, make_request):
    """Fault 43: reset, ended early, an error event, junk: a typed error that may be tried again, and never half."""
    server.default = streamed("a" * 60, fault=fault, after=5)
    asker = Asker(reached(name, server), text_output, make_request)

    error = await asker.failure()

    assert isinstance(error, errors.ProviderUnavailable)
    assert error.retryable
    assert error.sent
    assert error.status is None  # what was written till then may be billed
    assert 0 < len("".join(asker.pieces)) < 60


@services
async def test_43_a_stream_that_just_ends_is_no_answer(name, server, text_output, make_request):
    """Fault 43: whole events and a clean end, but not the one that says so."""
    server.default = _Cut("a" * 60)
    asker = Asker(reached(name, server), text_output, make_request)

    error = await asker.failure()

    assert isinstance(error, errors.ProviderUnavailable)
    assert "the stream ended early" in error.message


class _Cut:
    """A stream without its last events."""

    def __init__(self, text: str) -> None:
        self.text = text

    async def send(self, exchange: Any) -> None:
        from llmflow.testing._http_responses import reply_in_dialect
        from llmflow.testing._http_streams import events_of

        events = list(events_of(reply_in_dialect(self.text, exchange.request), exchange.request, 8))
        last = {"/messages": 2, "/completions": 3}.get("/" + exchange.request.path.rpartition("/")[2], 1)
        await exchange.write_reply(200, {"content-type": "text/event-stream"}, b"".join(events[:-last]))


@services
async def test_43_a_stalled_stream_waits_for_its_timeout(name, server, text_output, make_request, closed_by_client):
    """Fault 43: the provider itself waits; whoever limits it gets its socket closed within a second."""
    server.default = streamed("a" * 60, fault="stall", after=4)
    asker = Asker(reached(name, server), text_output, make_request)

    async with anyio.create_task_group() as group:
        group.start_soon(asker.streamed)
        with anyio.fail_after(60):
            while not asker.pieces and not (name == NAMES[1] and server.requests):
                await anyio.sleep(0.01)
        await anyio.sleep(0.1)
        group.cancel_scope.cancel()

    await closed_by_client(server.requests[0])
    await asker.provider.aclose()


@services
async def test_s6_a_stream_has_a_limit(name, server, text_output, make_request):
    """S6: a stream without end is ended at ten megabytes, without holding them, and is not tried again."""
    server.default = streamed("a" * 60, fault="overlong", after=4)
    asker = Asker(reached(name, server), text_output, make_request)
    gc.collect()
    tracemalloc.start()
    try:
        error = await asker.failure()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert "larger than 10,485,760 bytes" in error.message
    assert not error.retryable
    assert peak < 64_000_000


@services
@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (faults.rate_limited("7"), errors.RateLimited),
        (faults.insufficient_quota(), errors.QuotaExceeded),
        (status(401), errors.AuthenticationFailed),
        (status(529), errors.ProviderUnavailable),
        (faults.redirect("http://127.0.0.1:1/v1"), errors.ProviderUnavailable),
        (faults.close_without_reply(), errors.ProviderUnavailable),
        (faults.not_http(), errors.ProviderUnavailable),
        (faults.html(), errors.ProviderUnavailable),
        (faults.empty_body(), errors.ProviderUnavailable),
        (raw_reply(b"", content_type="text/event-stream"), errors.ProviderUnavailable),
        (raw_reply(b"<html>", content_type="text/event-stream"), errors.ProviderUnavailable),
        (raw_reply(b"data: [1]\n\n", content_type="text/event-stream"), errors.ProviderUnavailable),
    ],
    ids=str,
)
async def test_a_stream_that_does_not_begin_fails_as_any_request(
    name, response, kind, server, text_output, make_request
):
    """Error statuses, redirects, pages and garbage are what they are without a stream."""
    server.default = response
    asker = Asker(reached(name, server), text_output, make_request)

    error = await asker.failure()

    assert kind is type(error)
    assert [] == asker.pieces
    if kind is errors.RateLimited:
        assert 7 == error.retry_after


@pytest.mark.parametrize("name", NAMES[:2])
@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"type": "rate_limit_error", "code": "rate_limit_exceeded", "message": "slow"}, errors.RateLimited),
        ({"type": "invalid_request_error", "message": "prompt is too long"}, errors.BadRequest),
        ({"type": "overloaded_error", "message": "Overloaded"}, errors.ProviderUnavailable),
        ("upstream died", errors.ProviderUnavailable),
    ],
    ids=str,
)
async def test_an_error_event_is_the_error_it_is(name, said, kind, server, text_output, make_request):
    """Its own words say what helps, as those of an error status do."""
    body = f"event: error\ndata: {json.dumps({'type': 'error', 'error': said})}\n\n".encode()
    server.default = raw_reply(body, content_type="text/event-stream")

    error = await Asker(reached(name, server), text_output, make_request).failure()

    assert kind is type(error)


async def test_an_error_event_in_plain_words(server, text_output, make_request):
    """Some gateways write a sentence where JSON should be."""
    server.default = raw_reply(b"event: error\ndata: upstream died\n\n", content_type="text/event-stream")

    error = await Asker(reached("openai/gpt-x", server), text_output, make_request).failure()

    assert "upstream died" in error.message


@services
async def test_s2_a_key_in_a_stream_is_not_repeated(name, server, text_output, make_request):
    """S2: a provider that echoes the key in an error event does not bring it into the message."""
    said = {"error": {"message": f"bad key {KEY}", "code": 401, "type": "error"}}
    server.default = raw_reply(f"data: {json.dumps(said)}\n\n".encode(), content_type="text/event-stream")

    error = await Asker(reached(name, server), text_output, make_request).failure()

    assert KEY not in f"{error!r} {error.__cause__!r}"


@services
async def test_r8_a_cancelled_stream_closes_its_socket(name, server, text_output, make_request, closed_by_client):
    """R8: cancelled while a piece is taken, the connection is closed within a second, and nothing is left half-way."""
    server.default = streamed("a" * 4000, interval=0.01)
    asker = Asker(reached(name, server), text_output, make_request)

    async def sink(_):
        scope.cancel()
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        await asker.send(make_request(asker.model, text_output, sink=sink))

    await closed_by_client(server.requests[0])
    await asker.provider.aclose()
    gc.collect()


@services
async def test_a_slow_reader_holds_the_provider(name, server, text_output, make_request):
    """What is not taken is not read: the server cannot send much more than the network's buffers hold."""
    server.default = streamed(" " * 9_000_000, size=30_000)
    asker = Asker(reached(name, server), text_output, make_request)
    started, taken = time.monotonic(), 0

    async def sink(chunk):
        nonlocal taken
        taken += len(chunk.text)
        if taken < 60_001:
            await anyio.sleep(0.3)

    reply = await asker.send(make_request(asker.model, text_output, sink=sink))

    await asker.provider.aclose()
    assert 9_000_000 == len(reply.text) == taken
    assert time.monotonic() - started > 0.6


@pytest.mark.parametrize("name", NAMES[:2])
async def test_a_complete_answer_does_not_wait_for_the_end_of_its_connection(name, server, text_output, make_request):
    """A service that says the answer is complete and then keeps the connection open: the answer is there at once."""
    server.default = _Open("abcd")
    asker = Asker(reached(name, server), text_output, make_request)
    started = time.monotonic()

    replies = [await asker.streamed(), await asker.streamed()]

    await asker.provider.aclose()
    assert ["abcd", "abcd"] == [one.text for one in replies]
    assert time.monotonic() - started < 60  # for ever, if it waited
    assert 2 == server.connections_opened  # one that has not ended cannot be used again


@pytest.mark.parametrize("name", NAMES[:2])
@pytest.mark.parametrize("reset", [False, True])
async def test_a_complete_answer_survives_the_end_of_its_connection(name, reset, server, text_output, make_request):
    """A connection that breaks when the provider has said that the answer is complete takes nothing away from it."""
    server.default = _Open("abcd", ends="reset" if reset else "close")
    asker = Asker(reached(name, server), text_output, make_request)

    reply = await asker.streamed()

    await asker.provider.aclose()
    assert "abcd" == reply.text
    assert 1 == len(server.requests)


class _Open:
    """A stream whose events end and whose body does not."""

    def __init__(self, text: str, ends: str = "") -> None:
        self.text = text
        self.ends = ends

    async def send(self, exchange: Any) -> None:
        from llmflow.testing._http_responses import reply_in_dialect
        from llmflow.testing._http_streams import events_of

        events = b"".join(events_of(reply_in_dialect(self.text, exchange.request), exchange.request, 8))
        head = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
        await exchange.write_head(200, head)
        await exchange.write(b"%x\r\n%s\r\n" % (len(events), events))
        if self.ends == "reset":
            await anyio.sleep(0.02)  # a reset at once would overtake the bytes
            exchange.reset()
        elif self.ends == "close":
            exchange.close()
        else:
            await exchange.wait_closed()


async def test_a_tool_call_that_is_no_json_is_the_schemas_to_refuse(output):
    """Cut by a limit, the input of a tool is no object: it stays the text it is."""
    stream = MessageStream({"tools": [1]})
    block = {"type": "tool_use", "id": "t", "name": "Ticket", "input": {}}
    for kind, data in (
        ("message_start", {"message": {"role": "assistant", "usage": {"input_tokens": 3}}}),
        ("content_block_start", {"index": 0, "content_block": block}),
        ("content_block_delta", {"index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"cat'}}),
        ("message_delta", {"delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 4}}),
        ("message_stop", {}),
    ):
        stream.take(Event(kind, ""), data)

    reply = _anthropic.API.read(stream.reply(), None, None)

    assert ("length", Usage(input_tokens=3, output_tokens=4, cached_tokens=0)) == (reply.finish_reason, reply.usage)
    assert '{"cat' in json.loads(reply.text)


# -- clients of the user's own -----------------------------------------------------------------------------------------


async def test_an_async_client_streams(server, text_output, make_request):
    """A client of the openai SDK is streamed through."""
    server.default = streamed("abcd", size=2)
    async with openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY) as client:
        asker = Asker(Model("openai/gpt-x", client=client), text_output, make_request)

        reply = await asker.streamed()

    assert ("abcd", ["ab", "cd"]) == (reply.text, asker.pieces)


@pytest.mark.parametrize("form", ["typed", "text"])
async def test_an_async_client_of_instructor_streams(form, server, output, text_output, make_request):
    """Those over the openai and anthropic SDKs are streamed through, in the client's own mode."""
    shape, text = (output, TICKET) if form == "typed" else (text_output, TEXT)
    server.default = answer(text)
    base = server.base_url
    async with (
        openai.AsyncOpenAI(base_url=base, api_key=KEY) as first,
        anthropic.AsyncAnthropic(base_url=base.removesuffix("/v1"), api_key=KEY) as second,
    ):
        for client in (instructor.from_openai(first), instructor.from_anthropic(second)):
            asker = Asker(Model("client/gpt-x", client=client), shape, make_request)
            reply = await asker.streamed()

            assert text == reply.text
            assert len(asker.pieces) > 1


async def test_s6_the_limit_holds_for_a_client_of_the_users_own(server, text_output, make_request):
    """S6: such a client has no limit itself."""
    server.default = streamed("a" * 60, fault="overlong", after=4)
    async with openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY) as client:
        error = await Asker(Model("openai/gpt-x", client=client), text_output, make_request).failure()

    assert "larger than 10,485,760 bytes" in error.message


async def test_other_clients_answer_in_one_piece(server, text_output, output, make_request):
    """A blocking client and one of instructor are asked for the whole answer."""
    with openai.OpenAI(base_url=server.base_url, api_key=KEY) as client:
        wrapped = instructor.from_openai(client)
        for one, form, text in ((client, text_output, "abcd"), (wrapped, output, TICKET)):
            server.default = answer(text)
            asker = Asker(Model("openai/gpt-x", client=one), form, make_request)
            reply = await asker.streamed()

            assert (text, []) == (reply.text, asker.pieces)
    assert all("stream" not in one.json for one in server.requests)


# -- whatever comes ----------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 2)
    | st.text(max_size=4)
    | st.sampled_from(["text_delta", "input_json_delta", "tool_use", "text", "stop"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "index", "content", "tool_calls", "function", "arguments", "usage", "type", "text"]
                + ["message", "content_block", "partial_json", "stop_reason", "finish_reason", "error", "refusal", "id"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
KINDS = st.sampled_from(
    ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "ping", None]
)


@settings(max_examples=200, deadline=None)
@given(events=st.lists(st.tuples(KINDS, st.dictionaries(st.sampled_from(
    ["choices", "delta", "index", "content_block", "message", "usage", "id", "model", "error", "type"]), JSON)),
    max_size=6), tools=st.booleans())  # fmt: skip
def test_v5_no_event_breaks_the_reader(events, tools):
    """V5: whatever JSON comes, a stream is put together to some reply, and reading that raises nothing either."""
    for stream, read in (
        (CompletionStream({"tools": [1]} if tools else {}), _openai.API.read),
        (MessageStream({"tools": [1]} if tools else {}), _anthropic.API.read),
    ):
        for kind, data in events:
            piece = stream.take(Event(kind or "", ""), {**data, **({"type": kind} if kind else {})})
            assert isinstance(piece, str)
        assert isinstance(stream.complete, bool)
        read(stream.reply(), None, None)


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=10), thought=st.booleans())
def test_thoughts_are_no_answer(text, thought):
    """Gemini's thinking is part of the reply, and not of its text."""
    stream = ContentStream()
    part = {"text": text, "thought": thought}

    piece = stream.take(Event("", ""), {"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]})

    assert ("" if thought else text) == piece
    assert stream.complete
    assert (None if thought else text) == _google._read(stream.reply()).text
