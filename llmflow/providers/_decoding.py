"""Reads the body of a reply with an upper limit on what it unpacks to."""

from __future__ import annotations

import zlib

__all__ = ["ACCEPT_ENCODING", "MAX_BODY", "BodyDecoder", "ReplyTooLarge", "UnreadableReply"]

ACCEPT_ENCODING = "gzip, deflate"
MAX_BODY = 10 * 1024 * 1024
"""Bytes a decoded reply may have. The longest answer of a model is a hundredth of that."""

_GZIP = zlib.MAX_WBITS | 16
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

    __slots__ = ("_encoded_left", "_encoding", "_inflate", "_left", "_limit", "_started")

    def __init__(self, encoding: str = "", limit: int = MAX_BODY) -> None:
        self._encoding = encoding.strip().lower()
        self._limit = self._left = limit
        self._encoded_left = limit + _OVERHEAD
        self._started = False
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
        if self._inflate is not None and self._started and not self._inflate.eof:
            msg = f"the reply's {self._encoding} data ends too early"
            raise UnreadableReply(msg)

    def _decompress(self, data: bytes) -> bytes:
        assert self._inflate is not None
        if self._inflate.eof:
            return b""
        first, self._started = not self._started, True
        try:
            # One byte more than is accepted tells "too large" from "exactly full"; zero would mean no limit.
            return self._inflate.decompress(data, self._left + 1)
        except zlib.error as exc:
            if first and self._encoding == "deflate":  # some servers send deflate without its zlib header
                self._inflate, self._encoding = zlib.decompressobj(_RAW_DEFLATE), "raw deflate"
                return self._decompress(data)
            msg = f"the reply is not valid {self._encoding} data: {exc}"
            raise UnreadableReply(msg) from exc
