"""Connections of the direct wire: none is used again unless its last reply was read to its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import select

import pytest

from llmflow.providers._decoding import UnreadableReply
from llmflow.providers._direct import DirectClient
from llmflow.testing import _http_faults as faults
from llmflow.testing._http_faults import Fault
from llmflow.testing._http_responses import json_reply, raw_reply
from llmflow.testing._loopback import LoopbackServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    """It is for asyncio only."""
    return "asyncio"


@pytest.fixture
async def client(server):
    made = DirectClient("127.0.0.1", server.port, None)
    yield made
    await made.aclose()


def request_of(body: object, *, padding: int = 0) -> bytes:
    content = json.dumps(body).encode() + b" " * padding
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(content)
    return head + content


def raw(*pieces: bytes, pause: float = 0.0) -> Fault:
    """A reply of exactly these bytes."""

    async def script(exchange):
        for piece in pieces:
            await exchange.write(piece)
            await asyncio.sleep(pause)

    return Fault(script, "raw")


COMPLETE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


async def opened_by_two_calls(client, server, first) -> int:
    """How many connections a reply, and then an ordinary one, take."""
    server.enqueue(first, json_reply({"second": True}))
    with contextlib.suppress(UnreadableReply, OSError):
        await client.exchange(request_of(1))
    reply = await client.exchange(request_of(2))

    assert {"second": True} == json.loads(reply.content)
    return server.connections_opened


@pytest.mark.parametrize(
    "first",
    [
        raw(COMPLETE),
        raw(b"HTTP/1.1 100 Continue\r\n\r\n", COMPLETE, pause=0.01),
        raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
        raw(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nTrailer: x\r\n\r\n"),
        raw_reply(b"{}", status=500),
    ],
)
async def test_connection_with_a_whole_reply_is_used_again(first, client, server):
    """One connection for both calls, whatever form the reply has."""
    assert 1 == await opened_by_two_calls(client, server, first)


@pytest.mark.parametrize(
    "first",
    [
        raw(COMPLETE + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n666"),
        raw(COMPLETE.replace(b"HTTP/1.1", b"HTTP/1.0")),
        raw(COMPLETE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")),
        raw(COMPLETE.replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\n")),
        raw(COMPLETE.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")),
        raw(b"HTTP/1.1 204 No Content\r\n\r\nbody"),
        faults.short_body(),
        faults.unfinished_chunks(),
        faults.not_http(),
        faults.bad_encoding("gzip"),
        faults.bad_encoding("br"),
    ],
)
async def test_connection_with_anything_else_is_not(first, client, server):
    """The next call opens its own."""
    assert 2 == await opened_by_two_calls(client, server, first)


async def test_bytes_that_follow_later_close_the_connection(client, server):
    """The next caller does not take them for its answer."""
    server.enqueue(raw(COMPLETE, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n666", pause=0.02))
    server.default = json_reply({"second": True})

    await client.exchange(request_of(1))
    await until_closed(client)
    reply = await client.exchange(request_of(2))

    assert {"second": True} == json.loads(reply.content)
    assert 2 == server.connections_opened


async def until_closed(client):
    async with asyncio.timeout(60):
        while client._open:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("read_by_loop", [True, False])
async def test_connection_that_the_server_closed_is_not_used_again(read_by_loop, client, server):
    """An idle connection ends without anybody waiting for it."""

    async def script(exchange):
        await exchange.write(COMPLETE)
        exchange.close()

    server.enqueue(Fault(script, "close_after"), json_reply({}))
    await client.exchange(request_of(1))
    if read_by_loop:
        await until_closed(client)
    else:  # the loop sees nothing of it
        select.select([client._idle[0]._transport.get_extra_info("socket")], [], [])
    await client.exchange(request_of(2))

    assert 2 == server.connections_opened


async def test_answer_before_the_end_of_the_request_is_the_last_on_its_connection():
    """What is left of the request would stand in front of the next one."""
    answered = asyncio.Event()

    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await answered.wait()
        writer.transport.abort()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as listening:
        client = DirectClient("127.0.0.1", listening.sockets[0].getsockname()[1], None)
        reply = await client.exchange(request_of(1, padding=32 << 20))

        assert 413 == reply.status
        assert [] == client._idle
        answered.set()
        await asyncio.sleep(0.01)
        await client.aclose()


@pytest.mark.parametrize("moment", range(1, 6))
async def test_cancelling_at_any_moment_leaves_nothing_in_the_pool(moment, client, server):
    """While connecting, sending, or waiting: counted in turns of the event loop."""
    server.default = json_reply({}, delay=60)
    task = asyncio.ensure_future(client.exchange(request_of(1)))
    for _ in range(moment):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert [] == client._idle
    await asyncio.sleep(0.01)
    assert set() == client._open


async def test_cancelling_in_the_turn_the_reply_arrives_closes_the_connection(client, server, monkeypatch):
    """Neither the reply is handed on nor its connection."""
    server.default = json_reply({})
    task = asyncio.ensure_future(client.exchange(request_of(1)))
    while not client._open or not (connection := next(iter(client._open)))._waiter or not connection._waiter.done():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert [] == client._idle


@pytest.mark.slow
async def test_every_answer_belongs_to_its_caller():
    """200 callers, cancelled and timed out at random, on connections that others have used."""
    chance = random.Random(7)

    def reply(request):
        number = request.json["number"]
        delay = random.Random(number).choice([0, 0, 0.001, 0.005, 0.02])
        return json_reply({"number": number, "padding": "x" * random.Random(number).randrange(20_000)}, delay=delay)

    outcomes: dict[str, int] = {"answered": 0, "given up": 0}

    async def call(client, number):
        limit = chance.choice([None, None, None, None, 0.002, 0.05])
        try:
            async with asyncio.timeout(limit):
                got = await client.exchange(request_of({"number": number}))
        except TimeoutError:
            outcomes["given up"] += 1
            return
        assert number == json.loads(got.content)["number"]
        outcomes["answered"] += 1

    async def caller(client, first):
        for number in range(first, first + 10):
            task = asyncio.ensure_future(call(client, number))
            if chance.random() < 0.2:
                await asyncio.sleep(chance.random() * 0.1)
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    with LoopbackServer(reply) as server:
        client = DirectClient("127.0.0.1", server.port, None)
        await asyncio.gather(*(caller(client, 10 * index) for index in range(200)))
        in_pool = len(client._idle)

        assert in_pool == len(client._open)
        assert min(outcomes.values()) > 100
        assert server.connections_opened < outcomes["answered"]
        await client.aclose()
