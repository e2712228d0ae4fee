"""The reader of replies takes every correct one, in any pieces, and nothing else."""

from __future__ import annotations

import gzip
import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmflow.providers._decoding import MAX_BODY, BodyDecoder, ReplyTooLarge, UnreadableReply
from llmflow.providers._http1 import ReplyReader

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LENGTH = HEAD + b"Content-Length: 11\r\n\r\nhello world"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;x=1\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: 1\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH
PACKED = gzip.compress(b"hello world", mtime=0)
GZIPPED = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(PACKED), PACKED)


def read(*pieces: bytes):
    """Feed the pieces, and return the reply if it is complete."""
    reader = ReplyReader()
    for piece in pieces:
        if reader.feed(piece):
            return reader.reply
    return None


@pytest.mark.parametrize("reply", [LENGTH, CHUNKED, INTERIM, GZIPPED])
def test_reply_is_the_same_in_any_two_pieces(reply):
    """Where the network cuts makes no difference."""
    for cut in range(len(reply) + 1):
        complete = read(reply[:cut], reply[cut:])

        assert (200, b"hello world", True) == (complete.status, complete.content, complete.reusable)


@pytest.mark.parametrize("reply", [LENGTH, CHUNKED, INTERIM, GZIPPED])
def test_reply_is_the_same_byte_by_byte(reply):
    """The smallest pieces work too."""
    assert b"hello world" == read(*(reply[i : i + 1] for i in range(len(reply)))).content


@pytest.mark.parametrize("reply", [LENGTH, CHUNKED, GZIPPED])
def test_reply_that_ends_early_is_none(reply):
    """A partial answer is never taken for a whole one."""
    for cut in range(len(reply)):
        reader = ReplyReader()

        assert not reader.feed(reply[:cut])
        with pytest.raises(UnreadableReply):
            reader.feed_end()


def test_body_may_end_with_the_connection():
    """Without a length the end of the connection is the end of the body."""
    reader = ReplyReader()
    reader.feed(HEAD + b"Connection: close\r\n\r\nhello")
    reader.feed(b" world")

    assert reader.feed_end()
    assert (b"hello world", False) == (reader.reply.content, reader.reply.reusable)


@pytest.mark.parametrize(
    ("reply", "reusable"),
    [
        (LENGTH, True),
        (LENGTH.replace(b"\r\n\r\n", b"\r\nConnection: Close\r\n\r\n"), False),
        (LENGTH.replace(b"HTTP/1.1", b"HTTP/1.0"), False),
        (LENGTH + b"extra", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 11\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\n\r\nhello", False),
        (CHUNKED, True),
        (CHUNKED + b"\r\n", False),
        (CHUNKED.replace(b"\r\n\r\n5", b"\r\nConnection: keep-alive, close\r\n\r\n5"), False),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + LENGTH, True),
    ],
)
def test_connection_is_reusable_only_when_it_is_clean(reply, reusable):
    """Whatever follows a reply is not the start of the next one."""
    assert reusable is read(reply).reusable


@pytest.mark.parametrize(
    "reply",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"\x15\x03\x01\x00\x02\x02",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
        HEAD + b"Content-Length: 5, 5\r\n\r\n",
        HEAD + b"Content-Length: +5\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 5000 + b"\r\na\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"T: 1\r\n" * 1000,
        HEAD + b"X: a\nForged: b\r\n\r\n",
        HEAD + b"X: a\0b\r\n\r\n",
        HEAD + b"X: 1\r\n" * 1000 + b"\r\n",
        HEAD + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 5000,
        HEAD + b"Name : x\r\n\r\n",
        HEAD + b"no colon\r\n\r\n",
        HEAD + b" folded: x\r\n\r\n",
        HEAD + b"X: " + b"y" * 70_000,
        HEAD + b"Content-Encoding: br\r\n\r\n",
    ],
)
def test_anything_else_is_unreadable(reply):
    """Guessing would be worse than another try."""
    with pytest.raises(UnreadableReply):
        read(reply)


def test_headers_may_hold_any_character():
    """What is not ASCII is read as Latin-1, like HTTP has it."""
    assert "\xe9t\xe9" == read(LENGTH.replace(b"application/json", b" \xe9t\xe9\t")).headers["content-type"]


def test_body_to_the_end_of_the_connection_is_the_last_on_it():
    """Also when the server did not say that it would close."""
    reader = ReplyReader()
    reader.feed(HEAD + b"\r\nhello")
    reader.feed_end()

    assert not reader.reply.reusable


def test_data_after_the_end_of_a_compressed_body_is_limited_too():
    """It unpacks to nothing, and would be read forever."""
    decoder = BodyDecoder("gzip", limit=100)
    decoder.feed(PACKED)
    with pytest.raises(ReplyTooLarge):
        for _ in range(100):
            decoder.feed(b"x" * 1000)


def test_many_tiny_chunks_are_read_in_one_go():
    """A megabyte of them would take minutes if each were to copy the rest."""
    reply = read(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 150_000 + b"0\r\n\r\n")

    assert b"x" * 150_000 == reply.content


def test_tiny_chunks_of_one_read_are_decoded_at_once(monkeypatch):
    """One read of asyncio's is 256 KB; one by one its 43,000 chunks held the loop for a quarter of a second."""
    fed = []
    feed = BodyDecoder.feed
    monkeypatch.setattr(BodyDecoder, "feed", lambda decoder, data: fed.append(data) or feed(decoder, data))

    reply = read(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 43_000 + b"0\r\n\r\n")

    assert b"x" * 43_000 == reply.content
    assert 1 == len(fed)


def test_endless_tiny_chunks_are_refused():
    """No answer of a model comes in a million pieces."""
    reader = ReplyReader()
    reader.feed(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    with pytest.raises(UnreadableReply, match="too many chunks"):
        for _ in range(100):
            reader.feed(b"1\r\nx\r\n" * 10_000)


@given(
    st.lists(st.binary(min_size=1, max_size=9), max_size=30),
    st.sampled_from([b"", b";ext=1", b" "]),
    st.lists(st.integers(0, 400), max_size=6),
)
def test_chunks_are_the_same_in_any_pieces(chunks, extension, cuts):
    """However chunks and reads are cut, the body is what the chunks hold."""
    wire = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    wire = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + wire + b"0\r\n\r\n"
    edges = [0, *sorted({min(len(HEAD) + cut, len(wire) - 1) for cut in cuts}), len(wire)]

    reply = read(*(wire[start:end] for start, end in itertools.pairwise(edges)))

    assert b"".join(chunks) == reply.content
    assert reply.reusable


def test_stated_length_above_the_limit_is_refused_at_once():
    """Nothing of such a body is read."""
    with pytest.raises(ReplyTooLarge):
        read(HEAD + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1))


@given(st.lists(st.binary(max_size=60), max_size=6), st.sampled_from([b"", HEAD, LENGTH, CHUNKED, GZIPPED[:90]]))
def test_no_bytes_raise_anything_else(pieces, start):
    """Whatever comes is a reply, waited for, or unreadable."""
    reader = ReplyReader()
    try:
        for piece in [start, *pieces]:
            if reader.feed(piece):
                return
        reader.feed_end()
    except (UnreadableReply, ReplyTooLarge):
        pass


# -- decoding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("", b"hello"),
        ("identity", b"hello"),
        ("gzip", gzip.compress(b"hello", mtime=0)),
        (" GZIP ", gzip.compress(b"hello", mtime=0)),
        ("deflate", zlib.compress(b"hello")),
        ("deflate", zlib.compress(b"hello", wbits=-15)),
    ],
)
def test_encodings(encoding, packed):
    """Every encoding that is asked for is decoded, deflate in both its forms."""
    decoder = BodyDecoder(encoding)

    decoded = b"".join(decoder.feed(packed[i : i + 3]) for i in range(0, len(packed), 3))
    decoder.finish()

    assert b"hello" == decoded


@given(st.integers(0, 50), st.integers(0, 50), st.sampled_from(["", "gzip", "deflate"]))
def test_limit_is_exact(size, limit, encoding):
    """A body of exactly the limit passes, one byte more does not."""
    body = b"x" * size
    packed = {"": body, "gzip": gzip.compress(body), "deflate": zlib.compress(body)}[encoding]
    decoder = BodyDecoder(encoding, limit)

    if size <= limit:
        assert body == decoder.feed(packed)
    else:
        with pytest.raises(ReplyTooLarge):
            decoder.feed(packed)


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=5), st.integers(1, 40))
def test_gzip_members_follow_each_other(members, size):
    """RFC 1952: a gzip file is a series of members; some servers and proxies make one for each write."""
    packed = b"".join(gzip.compress(member, mtime=0) for member in members)
    decoder = BodyDecoder("gzip")

    decoded = b"".join(decoder.feed(packed[i : i + size]) for i in range(0, len(packed), size))
    decoder.finish()

    assert b"".join(members) == decoded


@pytest.mark.parametrize("size", [11, 100])
def test_limit_holds_over_all_gzip_members(size):
    """Members do not each have a limit of their own."""
    packed = gzip.compress(b"x" * 5, mtime=0) * 2 + gzip.compress(b"x", mtime=0)

    assert 11 == len(BodyDecoder("gzip", 11).feed(packed))
    with pytest.raises(ReplyTooLarge):
        BodyDecoder("gzip", 10).feed(packed + gzip.compress(b"x" * size))


@pytest.mark.parametrize("cut", [1, 2, 5, 15, 25])
def test_gzip_member_that_ends_early_is_unreadable(cut):
    """Half of a second member is half an answer."""
    decoder = BodyDecoder("gzip")
    decoder.feed(PACKED + PACKED[:cut])

    with pytest.raises(UnreadableReply, match="too early"):
        decoder.finish()


def test_padding_after_gzip_is_ignored():
    """Zeros fill blocks, and what no member starts with never starts one later."""
    decoder = BodyDecoder("gzip")

    assert b"hello world" == decoder.feed(PACKED + b"\0") + decoder.feed(PACKED)
    decoder.finish()


def test_endless_gzip_members_are_refused():
    """An empty member costs 20 bytes and a new decompressor."""
    with pytest.raises(UnreadableReply, match="members"):
        BodyDecoder("gzip").feed(gzip.compress(b"") * 10_000)


def test_empty_body_with_an_encoding_is_empty():
    """Nothing to decode is no error."""
    BodyDecoder("gzip").finish()
