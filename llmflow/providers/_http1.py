"""Reads an HTTP/1.1 reply from bytes as they come: no sockets, no waiting."""

from __future__ import annotations

import re

from llmflow.providers._decoding import MAX_BODY, BodyDecoder, ReplyTooLarge, UnreadableReply

__all__ = ["HttpReply", "ReplyReader"]

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n]*)?")
_HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([^\r\n\0]*)")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")
_LENGTH = re.compile(r"[0-9]{1,12}")
_LONGEST_HEAD = 64 * 1024
_LONGEST_LINE = 4096
_MOST_CHUNKS = 250_000
_MOST_HEADERS = 256
_MOST_INTERIM = 16


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

    __slots__ = ("_at", "_body", "_buffer", "_chunks", "_decoder", "_interim", "_left", "_read", "_trailers", "reply")

    def __init__(self) -> None:
        self.reply: HttpReply | None = None
        self._buffer = b""
        self._at = 0
        self._body: list[bytes] = []
        self._chunks = self._left = self._interim = self._trailers = 0
        self._read = self._read_head

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; True when the reply is complete.

        Raises:
            UnreadableReply: When this is not HTTP, or not what its headers say.
            ReplyTooLarge: When the body decodes to more than the limit.
        """
        # What was read stays in the buffer till here, so that thousands of tiny chunks are not copied once for each.
        self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
        self._at = 0
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

    def take_body(self) -> bytes:
        """Return what of the body has come since the last time; it will not be in the reply's content."""
        body, self._body = self._body, []
        return body[0] if len(body) == 1 else b"".join(body)

    # Each of these takes what it can from the buffer and returns None to go on, False to wait for more, True when done.

    def _read_head(self) -> bool | None:
        start = self._at
        end = self._buffer.find(b"\r\n\r\n", start)
        self._check_head(start, end)
        if end < 0:
            return False
        first, *lines = self._buffer[start:end].split(b"\r\n")
        self._at = end + 4
        matched = _STATUS_LINE.fullmatch(first)
        if matched is None:
            raise UnreadableReply(_not_http(first))
        status = int(matched[2])
        headers = _headers(lines)
        if status < 200:
            self._skip_interim(status)
            return None
        keep_alive = matched[1] == b"1" and "close" not in headers.get("connection", "").lower()
        self.reply = HttpReply(status, headers, reusable=keep_alive)
        self._decoder = BodyDecoder(headers.get("content-encoding", ""))
        return self._start_body(self.reply)

    def _check_head(self, start: int, end: int) -> None:
        if (len(self._buffer) if end < 0 else end) - start > _LONGEST_HEAD:
            msg = "the reply's headers are too long"
            raise UnreadableReply(msg)
        if not b"HTTP/1.".startswith(self._buffer[start : start + 7]):
            raise UnreadableReply(_not_http(self._buffer[start : start + 40]))

    def _skip_interim(self, status: int) -> None:
        self._interim += 1
        if status == 101 or self._interim > _MOST_INTERIM:
            msg = (
                "the server switched to another protocol"
                if status == 101
                else "the server sent no reply but interim ones"
            )
            raise UnreadableReply(msg)

    def _start_body(self, reply: HttpReply) -> bool | None:
        coding, length = reply.headers.get("transfer-encoding"), reply.headers.get("content-length")
        if coding is not None and length is not None:
            # Two ends for one body: whoever stands between may have believed the other one.
            msg = "the reply has both a transfer encoding and a content length"
            raise UnreadableReply(msg)
        if reply.status in (204, 304):
            return self._complete()
        if coding is not None:
            if coding.lower() != "chunked":
                msg = "the reply has an unknown transfer encoding"
                raise UnreadableReply(msg)
            self._read = self._read_chunk_size
        elif length is not None:
            self._left = _length(length)
            self._read = self._read_to_length
        else:
            reply.reusable = False
            self._read = self._read_to_end
        return None

    def _read_to_length(self) -> bool | None:
        self._take_body()
        return self._complete() if self._left == 0 else False

    def _read_to_end(self) -> bool | None:
        self._left = len(self._buffer) - self._at
        self._take_body()
        return False

    def _read_chunk_size(self) -> bool | None:
        self._take_whole_chunks()
        if (line := self._take_line()) is None:
            return False
        self._count_chunks(1)
        matched = _CHUNK_SIZE.fullmatch(line)
        if matched is None:
            msg = "the reply's chunks are malformed"
            raise UnreadableReply(msg)
        self._left = int(matched[1], 16)
        self._read = self._read_chunk if self._left else self._read_trailers
        return None

    def _take_whole_chunks(self) -> None:
        """Take the chunks that are in the buffer from end to end at once: one read may hold 40,000 of a byte each."""
        buffer, at, size = self._buffer, self._at, len(self._buffer)
        pieces: list[bytes] = []
        while (matched := _CHUNK_LINE.match(buffer, at, min(at + _LONGEST_LINE, size))) is not None:
            start = matched.end()
            end = start + int(matched[1], 16)
            # The last one, one that is not complete, or one that is malformed: the careful way takes it from here.
            if end == start or not buffer.startswith(b"\r\n", end):
                break
            pieces.append(buffer[start:end])
            at = end + 2
        if pieces:
            self._at = at
            self._count_chunks(len(pieces))
            self._body.append(self._decoder.feed(b"".join(pieces)))

    def _count_chunks(self, more: int) -> None:
        self._chunks += more
        if self._chunks > _MOST_CHUNKS:
            msg = "the reply has too many chunks"
            raise UnreadableReply(msg)

    def _read_chunk(self) -> bool | None:
        self._take_body()
        if self._left:
            return False
        self._read = self._read_chunk_end
        return None

    def _read_chunk_end(self) -> bool | None:
        if len(self._buffer) - self._at < 2:
            return False
        if not self._buffer.startswith(b"\r\n", self._at):
            msg = "the reply's chunks are malformed"
            raise UnreadableReply(msg)
        self._at += 2
        self._read = self._read_chunk_size
        return None

    def _read_trailers(self) -> bool | None:
        if (line := self._take_line()) is None:
            return False
        if not line:
            return self._complete()
        self._trailers += 1
        if self._trailers > _MOST_HEADERS:
            msg = "the reply has too many trailers"
            raise UnreadableReply(msg)
        return None

    def _take_line(self) -> bytes | None:
        start, end = self._at, self._buffer.find(b"\r\n", self._at)
        if (len(self._buffer) if end < 0 else end) - start > _LONGEST_LINE:
            msg = "the reply's chunks are malformed"
            raise UnreadableReply(msg)
        if end < 0:
            return None
        self._at = end + 2
        return self._buffer[start:end]

    def _take_body(self) -> None:
        data = self._buffer[self._at : self._at + self._left]
        self._at += len(data)
        self._left -= len(data)
        if data:
            self._body.append(self._decoder.feed(data))

    def _complete(self) -> bool:
        assert self.reply is not None
        self._decoder.finish()
        self.reply.content = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        if self._at < len(
            self._buffer
        ):  # bytes nobody asked for: whatever they are, the next reply does not start here
            self.reply.reusable = False
        return True


def _headers(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > _MOST_HEADERS:
        msg = "the reply has too many headers"
        raise UnreadableReply(msg)
    headers: dict[str, str] = {}
    for line in lines:
        matched = _HEADER.fullmatch(line)
        if matched is None:
            msg = "the reply has a malformed header"
            raise UnreadableReply(msg)
        name, value = matched[1].decode("ascii").lower(), matched[2].decode("latin-1").strip(" \t")
        if name not in headers:
            headers[name] = value
        elif name != "content-length":
            headers[name] += f", {value}"
        else:
            msg = "the reply has two content lengths"
            raise UnreadableReply(msg)
    return headers


def _length(stated: str) -> int:
    if not _LENGTH.fullmatch(stated):
        msg = "the reply has no readable content length"
        raise UnreadableReply(msg)
    length = int(stated)
    if length > MAX_BODY:
        raise ReplyTooLarge(MAX_BODY)
    return length


def _not_http(start: bytes) -> str:
    return f"the reply is not HTTP/1.1: {start[:40]!r}"
