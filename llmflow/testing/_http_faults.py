"""Everything that goes wrong between a caller and a provider, one builder for each fault."""

from __future__ import annotations

import asyncio
import json
import socket
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmflow.testing._http_responses import Plain, json_reply, raw_reply, status

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from llmflow.testing._http_exchange import Exchange, Response

__all__ = [
    "bad_encoding",
    "close_after",
    "close_without_reply",
    "deeply_nested",
    "drip",
    "empty_body",
    "error_in_200",
    "gzip_bomb",
    "html",
    "huge_body",
    "insufficient_quota",
    "invalid_json",
    "long_number",
    "never_answer",
    "not_http",
    "rate_limited",
    "redirect",
    "refused_url",
    "reset_in_body",
    "short_body",
    "stall_in_body",
    "unfinished_chunks",
]

_MEGABYTE = 1 << 20
_HALF = b'{"id": "chatcmpl-1", "choices": [{"message": {"content": "hal'
_JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Fault:
    """A reply that is a script."""

    script: Callable[[Exchange], Coroutine[object, object, None]] = field(repr=False)
    name: str

    async def send(self, exchange: Exchange) -> None:
        await self.script(exchange)


def refused_url() -> str:
    """Return a base URL on which nobody listens, so that connecting is refused."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def close_without_reply() -> Fault:
    """Close the connection without sending a byte."""

    async def script(exchange: Exchange) -> None:
        exchange.close()

    return Fault(script, "close_without_reply")


def reset_in_body() -> Fault:
    """Send half of the body, then reset the connection."""

    async def script(exchange: Exchange) -> None:
        await exchange.write_head(200, _JSON | {"content-length": "5000"})
        await exchange.write(_HALF)
        await asyncio.sleep(0.02)  # a reset at once would overtake the bytes
        exchange.reset()

    return Fault(script, "reset_in_body")


def short_body() -> Fault:
    """Promise more bytes than are sent, then close."""

    async def script(exchange: Exchange) -> None:
        await exchange.write_head(200, _JSON | {"content-length": "5000"})
        await exchange.write(_HALF)
        exchange.close()

    return Fault(script, "short_body")


def unfinished_chunks() -> Fault:
    """Send a chunked body without its last chunk, then close."""

    async def script(exchange: Exchange) -> None:
        await exchange.write_head(200, _JSON | {"transfer-encoding": "chunked"})
        await exchange.write(b"%x\r\n%s\r\n" % (len(_HALF), _HALF))
        exchange.close()

    return Fault(script, "unfinished_chunks")


def not_http() -> Fault:
    """Answer with bytes that are not HTTP."""

    async def script(exchange: Exchange) -> None:
        await exchange.write(b"SSH-2.0-OpenSSH_9.6\r\nwho is there?\r\n\r\n")
        exchange.close()

    return Fault(script, "not_http")


def never_answer() -> Fault:
    """Accept the request and never answer it."""

    async def script(exchange: Exchange) -> None:
        await exchange.wait_closed()

    return Fault(script, "never_answer")


def stall_in_body() -> Fault:
    """Send half of the body and then nothing more."""

    async def script(exchange: Exchange) -> None:
        await exchange.write_head(200, _JSON | {"content-length": "5000"})
        await exchange.write(_HALF)
        await exchange.wait_closed()

    return Fault(script, "stall_in_body")


def drip(interval: float = 0.2) -> Fault:
    """Send a right head and then one byte of the body per `interval` seconds."""

    async def script(exchange: Exchange) -> None:
        await exchange.write_head(200, _JSON | {"content-length": "100000"})
        while True:
            await exchange.write(b" ")
            await asyncio.sleep(interval)

    return Fault(script, "drip")


def html(body: str = "<html><body>Please log in to the Wi-Fi</body></html>", *, code: int = 200) -> Plain:
    """Answer with a web page, as a captive portal does."""
    return raw_reply(body.encode(), status=code, content_type="text/html; charset=utf-8")


def invalid_json() -> Plain:
    """Call something JSON that is not."""
    return raw_reply(b"{'choices': oops")


def empty_body() -> Plain:
    """Answer 200 with nothing in it."""
    return raw_reply(b"")


def error_in_200(message: str = "upstream failed", *, code: object = None) -> Plain:
    """Answer 200 with an error inside, as gateways do."""
    return json_reply({"error": {"message": message, "code": code}})


def bad_encoding(encoding: str = "gzip") -> Plain:
    """Claim a content encoding that the body does not have."""
    return raw_reply(b'{"choices": []}', headers={"content-encoding": encoding})


def rate_limited(
    retry_after: str | None = None, *, ms: str | None = None, headers: Mapping[str, str] | None = None
) -> Plain:
    """Answer 429, with `Retry-After` (seconds, a date or garbage) or `retry-after-ms` where given."""
    waits = {"retry-after": retry_after, "retry-after-ms": ms}
    given = {name: value for name, value in waits.items() if value is not None}
    return status(
        429, message="Rate limit reached", error_code="rate_limit_exceeded", headers=given | dict(headers or {})
    )


def insufficient_quota() -> Plain:
    """Answer 429 because the account has no credit left."""
    return status(
        429,
        message="You exceeded your current quota, please check your plan and billing details.",
        error_code="insufficient_quota",
        error_type="insufficient_quota",
    )


def redirect(location: str, *, code: int = 307) -> Plain:
    """Send the client to another address."""
    return raw_reply(b"", status=code, headers={"location": location})


def huge_body(megabytes: int = 100) -> Fault:
    """Send a body of this many megabytes, made while it is sent."""

    async def script(exchange: Exchange) -> None:
        await exchange.write_head(200, _JSON | {"transfer-encoding": "chunked"})
        block = b" " * (_MEGABYTE // 4)
        for _ in range(megabytes * 4):
            await exchange.write(b"%x\r\n%s\r\n" % (len(block), block))
        await exchange.write(b"0\r\n\r\n")

    return Fault(script, "huge_body")


def gzip_bomb(megabytes: int = 200) -> Plain:
    """Send a body of about a thousandth of this many megabytes that unpacks to all of them."""
    return raw_reply(_bomb(megabytes), headers={"content-encoding": "gzip"})


def _bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    block = b" " * _MEGABYTE
    pieces = [packer.compress(block) for _ in range(megabytes)]
    return b"".join([*pieces, packer.flush()])


def close_after(response: Response) -> Fault:
    """Send a right reply on a connection that looks alive, and close it shortly after."""

    async def script(exchange: Exchange) -> None:
        await response.send(exchange)
        exchange.close()

    return Fault(script, "close_after")


def deeply_nested(depth: int = 100_000) -> Plain:
    """Send JSON that is nested deeper than any stack."""
    return raw_reply(b"[" * depth + b"]" * depth)


def long_number(digits: int = 5_000) -> Plain:
    """Send JSON with a number longer than Python converts."""
    return raw_reply(json.dumps({"id": 0}).encode().replace(b"0", b"9" * digits))
