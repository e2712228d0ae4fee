"""Server-sent events from bytes as they come: no sockets, no waiting, linear time."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Event", "EventReader"]

_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event of a stream."""

    name: str
    """What `event:` said, empty without one."""
    data: str


class EventReader:
    """Puts events together, wherever the bytes are cut: inside a line, between CR and LF, inside a character.

    Lines are split as bytes and decoded whole, so a character is never cut. What is before the end of a line is kept
    in pieces, so that a long line in a thousand of them is joined once.
    """

    __slots__ = ("_at_start", "_data", "_ends_in_cr", "_line", "_name")

    def __init__(self) -> None:
        self._line: list[bytes] = []
        self._data: list[str] = []
        self._name = ""
        self._at_start = True
        self._ends_in_cr = False

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that `data` completes."""
        if self._ends_in_cr:
            data, self._ends_in_cr = b"\r" + data, False
        if data.endswith(b"\r"):  # whether a LF follows, and belongs to it, is not known yet
            data, self._ends_in_cr = data[:-1], True
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *lines = data.split(b"\n")
        self._line.append(first)
        if not lines:
            return []
        lines.insert(0, b"".join(self._line))
        self._line = [lines.pop()]
        return [event for line in lines if (event := self._take(line)) is not None]

    def finish(self) -> list[Event]:
        """Return what stands at the end of the stream without the empty line that should follow it."""
        return [*self.feed(b"\n\n")]

    def _take(self, line: bytes) -> Event | None:
        """Take one whole line; an empty one ends an event."""
        if self._at_start:
            line, self._at_start = line.removeprefix(_BOM), False
        if not line:
            return self._complete()
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
        elif name == b"event":
            self._name = value.removeprefix(b" ").decode("utf-8", "replace")
        return None  # comments, which keep a connection alive, have an empty name; `id` and `retry` are for browsers

    def _complete(self) -> Event | None:
        event = Event(self._name, "\n".join(self._data)) if self._data else None
        self._name, self._data = "", []
        return event
