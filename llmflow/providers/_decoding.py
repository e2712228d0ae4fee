"""Reads the body of a reply with an upper limit on what it unpacks to."""

from __future__ import annotations

import zlib

__all__ = ["ACCEPT_ENCODING", "MAX_BODY", "BodyDecoder", "ReplyTooLarge", "UnreadableReply"]

ACCEPT_ENCODING = "gzip, deflate"
MAX_BODY = 10 * 1024 * 1024
"""Bytes a decoded reply may have. The longest answer of a model is a hundredth of that."""

_GZIP = zlib.MAX_WBITS | 16
_GZIP_MAGIC = b"\x1f\x8b"
_MOST_MEMBERS = 1024  # of a gzip file; a member may be empty, and each costs a new decompressor
_OVERHEAD = 64 * 1024  # of an encoding, so that data which does not compress may fill the limit
_RAW_DEFLATE = -zlib.MAX_WBITS


class UnreadableReply(Exception):
    """The bytes of a reply are not what its headers say."""


class ReplyTooLarge(Exception):
    """A reply unpacks to more than the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the reply is larger than {limit:,} bytes")


class BodyDecoder:
    """Decodes one body piece by piece; never holds or makes more than `limit` bytes.

    Args:
        encoding: The reply's `Content-Encoding`.
        limit: How many decoded bytes are accepted.

    Raises:
        UnreadableReply: For an encoding that was not asked for.
    """

    __slots__ = ("_encoded_left", "_encoding", "_held", "_inflate", "_left", "_limit", "_members", "_started")

    def __init__(self, encoding: str = "", limit: int = MAX_BODY) -> None:
        self._encoding = encoding.strip().lower()
        self._limit = self._left = limit
        self._encoded_left = limit + _OVERHEAD
        self._started = False
        self._held: bytes | None = b""  # what may start another gzip member; None when none can follow
        self._members = 0
        if self._encoding in ("", "identity"):
            self._inflate = None
        elif self._encoding in ("gzip", "x-gzip"):
            self._inflate = zlib.decompressobj(_GZIP)
        elif self._encoding == "deflate":
            self._inflate = zlib.decompressobj()
        else:
            msg = f"the reply has content encoding {encoding[:40]!r}, which was not asked for"
            raise UnreadableReply(msg)

    def feed(self, data: bytes) -> bytes:
        """Return what `data` decodes to.

        Raises:
            ReplyTooLarge: When the limit is passed.
            UnreadableReply: When the data is not in the stated encoding.
        """
        self._encoded_left -= len(data)  # what unpacks to nothing, after the end of the compressed data, counts too
        decoded = data if self._inflate is None else self._decompress(data)
        self._left -= len(decoded)
        if self._left < 0 or self._encoded_left < 0:
            raise ReplyTooLarge(self._limit)
        return decoded

    def finish(self) -> None:
        """Say that all data was fed.

        Raises:
            UnreadableReply: When the compressed data has no end.
        """
        if self._inflate is not None and self._started and (self._held or not self._inflate.eof):
            msg = f"the reply's {self._encoding} data ends too early"
            raise UnreadableReply(msg)

    def _decompress(self, data: bytes) -> bytes:
        pieces: list[bytes] = []
        made = 0
        while data and self._starts_or_goes_on(data):
            assert self._inflate is not None
            piece = self._inflate_some((self._held or b"") + data, self._left - made)
            self._held = b""
            made += len(piece)
            pieces.append(piece)
            if made > self._left:
                break
            data = self._inflate.unused_data
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _starts_or_goes_on(self, data: bytes) -> bool:
        """Whether the data is compressed data, not what follows it: RFC 1952 lets gzip members follow each other."""
        assert self._inflate is not None
        if not self._inflate.eof:
            return True
        if self._held is None or self._encoding not in ("gzip", "x-gzip"):
            return False
        start = self._held + data[:2]
        if not start.startswith(_GZIP_MAGIC):
            self._held = start if start == _GZIP_MAGIC[:1] else None
            return False
        self._members += 1
        if self._members >= _MOST_MEMBERS:
            msg = f"the reply's {self._encoding} data has too many members"
            raise UnreadableReply(msg)
        self._inflate = zlib.decompressobj(_GZIP)
        return True

    def _inflate_some(self, data: bytes, left: int) -> bytes:
        assert self._inflate is not None
        first, self._started = not self._started, True
        try:
            # One byte more than is accepted tells "too large" from "exactly full"; zero would mean no limit.
            return self._inflate.decompress(data, left + 1)
        except zlib.error as exc:
            if first and self._encoding == "deflate":  # some servers send deflate without its zlib header
                self._inflate, self._encoding = zlib.decompressobj(_RAW_DEFLATE), "raw deflate"
                return self._inflate_some(data, left)
            msg = f"the reply is not valid {self._encoding} data: {exc}"
            raise UnreadableReply(msg) from exc
