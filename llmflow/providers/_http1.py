"""Reads an HTTP/1.1 reply from bytes as they come: no sockets, no waiting."""

from __future__ import annotations

import re

from llmflow.providers._decoding import MAX_BODY, BodyDecoder, ReplyTooLarge, UnreadableReply

__all__ = ["HttpReply", "ReplyReader"]

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n]*)?")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?")
_LENGTH = re.compile(r"[0-9]{1,12}")
_LONGEST_HEAD = 64 * 1024
_LONGEST_LINE = 4096


class HttpReply:
    """A complete reply, its body decoded."""

    __slots__ = ("content", "headers", "reusable", "status")

    def __init__(self, status: int, headers: dict[str, str], *, reusable: bool) -> None:
        self.status = status
        self.headers = headers
        """By lower-case name."""
        self.reusable = reusable
        """Whether the connection may carry another request."""
        self.content = b""


class ReplyReader:
    """Puts one reply together; `feed` says when it is complete.

    Anything that is not plainly a complete, correct reply is an `UnreadableReply`: guessing at the end of a body would
    make a partial answer look like a whole one.
    """

    __slots__ = ("_body", "_buffer", "_decoder", "_left", "_read", "reply")

    def __init__(self) -> None:
        self.reply: HttpReply | None = None
        self._buffer = b""
        self._body: list[bytes] = []
        self._left = 0
        self._read = self._read_head

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; True when the reply is complete.

        Raises:
            UnreadableReply: When this is not HTTP, or not what its headers say.
            ReplyTooLarge: When the body decodes to more than the limit.
        """
        self._buffer = self._buffer + data if self._buffer else data
        while True:
            outcome = self._read()
            if outcome is not None:
                return outcome

    def feed_end(self) -> bool:
        """Say that the connection was closed; True when that completes the reply."""
        if self._read == self._read_to_end:
            return self._complete()
        msg = (
            "the connection was closed in the middle of the reply"
            if self.reply
            else "the connection was closed without a reply"
        )
        raise UnreadableReply(msg)

    # Each of these takes what it can from the buffer and returns None to go on, False to wait for more, True when done.

    def _read_head(self) -> bool | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            self._check_start()
            return False
        start, *lines = self._buffer[:end].split(b"\r\n")
        self._buffer = self._buffer[end + 4 :]
        matched = _STATUS_LINE.fullmatch(start)
        if matched is None:
            raise UnreadableReply(_not_http(start))
        status = int(matched[2])
        headers = _headers(lines)
        if 100 <= status < 200:
            if status == 101:
                msg = "the server switched to another protocol"
                raise UnreadableReply(msg)
            return None  # an interim reply; the real one follows
        keep_alive = matched[1] == b"1" and "close" not in headers.get("connection", "").lower()
        self.reply = HttpReply(status, headers, reusable=keep_alive)
        self._decoder = BodyDecoder(headers.get("content-encoding", ""))
        return self._start_body(status, headers)

    def _check_start(self) -> None:
        if len(self._buffer) > _LONGEST_HEAD:
            msg = "the reply's headers are too long"
            raise UnreadableReply(msg)
        if not b"HTTP/1.".startswith(self._buffer[:7]):
            raise UnreadableReply(_not_http(self._buffer))

    def _start_body(self, status: int, headers: dict[str, str]) -> bool | None:
        if status in (204, 304):
            return self._complete()
        if "transfer-encoding" in headers:
            if headers["transfer-encoding"].strip().lower() != "chunked":
                msg = "the reply has an unknown transfer encoding"
                raise UnreadableReply(msg)
            self._read = self._read_chunk_size
        elif (length := headers.get("content-length")) is not None:
            if not _LENGTH.fullmatch(length):
                msg = "the reply has no readable content length"
                raise UnreadableReply(msg)
            self._left = int(length)
            if self._left > MAX_BODY:
                raise ReplyTooLarge(MAX_BODY)
            self._read = self._read_to_length
        else:
            self._read = self._read_to_end
        return None

    def _read_to_length(self) -> bool | None:
        self._take_body()
        return self._complete() if self._left == 0 else False

    def _read_to_end(self) -> bool | None:
        self._left = len(self._buffer)
        self._take_body()
        return False

    def _read_chunk_size(self) -> bool | None:
        if (line := self._take_line()) is None:
            return False
        matched = _CHUNK_SIZE.fullmatch(line)
        if matched is None:
            msg = "the reply's chunks are malformed"
            raise UnreadableReply(msg)
        self._left = int(matched[1], 16)
        self._read = self._read_chunk if self._left else self._read_trailers
        return None

    def _read_chunk(self) -> bool | None:
        self._take_body()
        if self._left:
            return False
        self._read = self._read_chunk_end
        return None

    def _read_chunk_end(self) -> bool | None:
        if len(self._buffer) < 2:
            return False
        if not self._buffer.startswith(b"\r\n"):
            msg = "the reply's chunks are malformed"
            raise UnreadableReply(msg)
        self._buffer = self._buffer[2:]
        self._read = self._read_chunk_size
        return None

    def _read_trailers(self) -> bool | None:
        if (line := self._take_line()) is None:
            return False
        return None if line else self._complete()

    def _take_line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > _LONGEST_LINE:
                msg = "the reply's chunks are malformed"
                raise UnreadableReply(msg)
            return None
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def _take_body(self) -> None:
        data, self._buffer = self._buffer[: self._left], self._buffer[self._left :]
        self._left -= len(data)
        if data:
            self._body.append(self._decoder.feed(data))

    def _complete(self) -> bool:
        assert self.reply is not None
        self._decoder.finish()
        self.reply.content = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        if self._buffer:  # bytes nobody asked for: whatever they are, the next reply does not start here
            self.reply.reusable = False
        return True


def _headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not name or name != name.strip():
            msg = "the reply has a malformed header"
            raise UnreadableReply(msg)
        name, value = name.lower(), value.strip()
        if name not in headers:
            headers[name] = value
        elif name != "content-length":
            headers[name] += f", {value}"
        elif headers[name] != value:
            msg = "the reply has two content lengths"
            raise UnreadableReply(msg)
    return headers


def _not_http(start: bytes) -> str:
    return f"the reply is not HTTP/1.1: {start[:40]!r}"
