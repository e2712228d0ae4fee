"""The fault server does what it is told, whoever asks."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import time

import pytest

from llmflow.testing import _http_faults as faults
from llmflow.testing._http_responses import answer, anthropic_answer, gemini_answer, openai_answer, status
from llmflow.testing._loopback import LoopbackServer


@pytest.fixture
def server():
    with LoopbackServer() as running:
        yield running


def post(server, path="/v1/chat/completions", body=None, headers=None):
    """Send one request with the standard library, and return status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request("POST", path, json.dumps(body or {}), {"X-Test": "1", **(headers or {})})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def test_enqueued_responses_come_in_order_then_the_default(server):
    """The queue is served first in first out; afterwards the default applies."""
    server.enqueue(status(500), status(503))

    codes = [post(server)[0] for _ in range(3)]

    assert [500, 503, 200] == codes


def test_default_may_be_a_function_of_the_request(server):
    """A response can depend on what was asked."""
    server.default = lambda request: answer(request.json["model"])

    _, _, body = post(server, body={"model": "echo"})

    assert "echo" == json.loads(body)["choices"][0]["message"]["content"]


def test_requests_are_recorded(server):
    """Method, path, headers, body, time and connection are kept."""
    before = time.monotonic()
    post(server, body={"a": 1})
    post(server, body={"a": 2})

    first, second = server.requests

    assert ("POST", "/v1/chat/completions", {"a": 1}) == (first.method, first.path, first.json)
    assert "1" == first.headers["x-test"]
    assert before <= first.received <= second.received <= time.monotonic()
    assert (1, 2) == (first.connection, second.connection)
    assert first.closed_by_client_at is None


def test_chunked_requests_are_read(server):
    """Clients may send a body without saying its length."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(
        "POST",
        "/v1/chat/completions",
        iter([b'{"a"', b": 1}"]),
        encode_chunked=True,
        headers={"Transfer-Encoding": "chunked"},
    )
    connection.getresponse().read()
    connection.close()

    assert {"a": 1} == server.requests[0].json


def test_client_that_gives_up_is_noticed(server):
    """When the client closes before its reply is complete, the time is on the request."""
    server.enqueue(faults.never_answer())
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
        (request,) = server.wait_requests(1)
    deadline = time.monotonic() + 60
    while request.closed_by_client_at is None and time.monotonic() < deadline:
        time.sleep(0.005)

    assert request.closed_by_client_at is not None


def test_waiting_for_requests_that_do_not_come_times_out(server):
    """A test that waits for a request that was never sent says so."""
    with pytest.raises(TimeoutError, match="0 of 1 requests arrived"):
        server.wait_requests(1, timeout=0.01)


@pytest.mark.parametrize(
    ("path", "body", "pick"),
    [
        (
            "/v1/chat/completions",
            {"tools": [{"function": {"name": "T"}}], "tool_choice": {"type": "function", "function": {"name": "T"}}},
            lambda reply: json.loads(reply["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]),
        ),
        ("/v1/chat/completions", {}, lambda reply: json.loads(reply["choices"][0]["message"]["content"])),
        (
            "/v1/messages",
            {"tools": [{"name": "T"}], "tool_choice": {"type": "tool", "name": "T"}},
            lambda reply: reply["content"][0]["input"],
        ),
        ("/v1/messages", {}, lambda reply: json.loads(reply["content"][0]["text"])),
        (
            "/v1beta/models/gemini-x:generateContent",
            {},
            lambda reply: json.loads(reply["candidates"][0]["content"]["parts"][0]["text"]),
        ),
        (
            "/v1beta/models/gemini-x:generateContent",
            {
                "tools": [{"functionDeclarations": [{"name": "T"}]}],
                "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
            },
            lambda reply: reply["candidates"][0]["content"]["parts"][0]["functionCall"]["args"],
        ),
    ],
)
def test_answers_speak_the_dialect_of_the_request(path, body, pick, server):
    """One answer serves three APIs, as a tool call where the request forces one."""
    server.enqueue(answer('{"a": 1}'))

    _, _, reply = post(server, path, body)

    assert {"a": 1} == pick(json.loads(reply))


@pytest.mark.parametrize(
    ("builder", "member"), [(openai_answer, "choices"), (anthropic_answer, "content"), (gemini_answer, "candidates")]
)
def test_dialect_can_be_fixed(builder, member, server):
    """A service may answer in another dialect than its path suggests."""
    server.enqueue(builder("text"))

    _, _, reply = post(server, "/anything")

    assert member in json.loads(reply)


def test_usage_can_be_left_out(server):
    """Some services report no tokens."""
    server.enqueue(answer("text", usage=None))

    assert "usage" not in json.loads(post(server)[2])


@pytest.mark.parametrize(
    "fault",
    [
        faults.close_without_reply(),
        faults.reset_in_body(),
        faults.short_body(),
        faults.unfinished_chunks(),
        faults.not_http(),
    ],
    ids=lambda fault: fault.name,
)
def test_broken_connections_break(fault, server):
    """No client takes these for a reply."""
    server.enqueue(fault)

    with pytest.raises((http.client.HTTPException, ConnectionError)):
        post(server)


def test_client_that_speaks_no_http_is_hung_up_on(server):
    """A TLS handshake fails at once instead of waiting."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        client.sendall(b"\x16\x03\x01\x00\x05hello")
        try:
            received = client.recv(1)
        except ConnectionResetError:
            received = b""

    assert b"" == received


def test_refused_url_refuses():
    """Nobody listens there."""
    port = int(faults.refused_url().split(":")[2].split("/")[0])

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_gzip_bomb_is_small_on_the_wire():
    """Two hundred megabytes in a fifth of one."""
    assert len(faults.gzip_bomb(200).body) < 300_000


def test_stopping_drops_open_connections():
    """A test that leaves a request hanging does not hang."""
    with LoopbackServer(faults.never_answer()) as server:
        client = socket.create_connection(("127.0.0.1", server.port))
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        server.wait_requests(1)
    with client:
        assert b"" == receive(client)


def receive(client):
    try:
        return client.recv(1)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("fault", [faults.drip(0.01), faults.huge_body(100)], ids=lambda fault: fault.name)
def test_reset_while_the_server_writes_is_the_clients_doing(fault, server):
    """The server meets it in its own write, slow or fast, and still knows who left."""
    server.enqueue(fault)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
        (request,) = server.wait_requests(1)
        client.recv(100)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    deadline = time.monotonic() + 60
    while request.closed_by_client_at is None and time.monotonic() < deadline:
        time.sleep(0.005)

    assert request.closed_by_client_at is not None


def test_reset_by_the_server_is_not_the_clients_doing(server):
    """It has no time on the request."""
    server.enqueue(faults.reset_in_body())
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
        with pytest.raises(ConnectionResetError):
            while client.recv(1000):
                pass

    assert server.requests[0].closed_by_client_at is None
