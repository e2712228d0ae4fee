"""Files of their owner alone, and a thread that writes."""

from __future__ import annotations

import os
import threading

import pytest

from llmflow.stores._files import NotPrivate, file_id, make_file, make_private, set_aside
from llmflow.stores._writer import Writer, _flush_all


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="there are no owners")
def test_a_file_of_somebody_else_is_refused(tmp_path, monkeypatch):
    """Whoever owns it may put there what they like."""
    path = tmp_path / "cache.db"
    path.write_bytes(b"")
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)

    for check in (make_file, make_private):
        with pytest.raises(NotPrivate, match="belongs to somebody else"):
            check(path)


def test_a_corrupt_file_that_cannot_be_renamed_is_left(tmp_path, monkeypatch):
    """It is no use, and no harm."""
    path = tmp_path / "cache.db"
    path.write_bytes(b"x")

    def refuse(self, target):
        raise PermissionError("read-only")

    monkeypatch.setattr(type(path), "rename", refuse)

    assert None is set_aside(path, file_id(path))
    assert b"x" == path.read_bytes()


def test_not_more_than_so_many_are_set_aside(tmp_path):
    """A disk that corrupts every file is not filled with them; and a file that was replaced meanwhile is not touched."""
    path = tmp_path / "cache.db"
    kept = []
    for _ in range(25):
        path.write_bytes(b"x")
        kept.append(set_aside(path, file_id(path)))

    assert (20, None, None) == (len([one for one in kept if one]), kept[-1], set_aside(path, (0, 0)))


def test_what_waits_is_written_without_a_thread_too(monkeypatch):
    """When the interpreter ends no thread can be started any more; the last flush writes."""
    written = []

    def refuse(self):
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    writer = Writer(written.append, name="test", limit=2)

    assert [True, True, False] == [writer.add(number) for number in range(3)]
    _flush_all()
    writer.flush(1)
    assert [[0, 1]] == written


def test_a_thread_with_nothing_to_do_ends(monkeypatch):
    """And the next thing to write starts another."""
    monkeypatch.setattr("llmflow.stores._writer._IDLE", 0.01)
    written = []
    writer = Writer(written.append, name="test", limit=10)
    for number in range(2):
        writer.add(number)
        thread = writer._thread
        if thread is not None:
            thread.join(60)

    assert (None, [[0], [1]]) == (writer._thread, written)


def test_what_nobody_waits_for_gathers_and_who_waits_does_not_wait_for_that(monkeypatch):
    """A commit each for a handful of notes would be most of what they cost; `flush` and a ticket have them at once."""
    monkeypatch.setattr("llmflow.stores._writer._GATHERING", 600.0)
    written = []
    writer = Writer(written.append, name="test", limit=10)

    for number in range(3):
        writer.add(number)
    writer.flush(60)
    for number in range(3, 6):
        writer.add(number)
    ticket = writer.ticket()
    writer.flush(60)

    assert [[0, 1, 2], [3, 4, 5]] == written
    assert ticket is not None
    assert ticket.error is None
