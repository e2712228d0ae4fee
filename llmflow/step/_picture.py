"""What there is to show of an answer: its text so far, and the view of it that was shown last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmflow.schema import OutputSchema

__all__ = ["Picture"]

_READ_PER_PIECE = 2048
"""Characters of a structure that are read, on average, for one more piece of it."""


class Picture:
    """One answer as it grows.

    Args:
        output: The shape of the answer; None for a task or a flow, which have nothing to show before their value.
    """

    __slots__ = ("_credit", "_is_behind", "_length", "_output", "_pieces", "_shown")

    def __init__(self, output: OutputSchema | None) -> None:
        self._output = output
        self.clear()

    def clear(self) -> None:
        """Begin again from nothing."""
        self._pieces: list[str] = []
        self._shown: Any = None
        self._length = self._credit = 0
        self._is_behind = False

    def add(self, piece: str) -> None:
        """Take the next piece."""
        self._pieces.append(piece)
        self._length += len(piece)
        self._credit += _READ_PER_PIECE

    def look(self, *, more_is_here: bool) -> Any:
        """Return a new view of the answer so far, None when there is none.

        A structure is read from its start each time. It is not read while more pieces are here, and each piece pays for
        so many characters only: else an answer of 10,000 pieces would be read 10,000 times.
        """
        assert self._output is not None  # what has none has no pieces
        self._is_behind = not self._output.is_text and (more_is_here or self._credit < self._length)
        if self._is_behind:
            return None
        self._credit = 0
        return self._view(self._text())

    def complete(self, value: Any) -> Any:
        """Return the view of the complete answer, None when it was shown; `value` is what was made of it."""
        if self._output is None or self._output.view is None:
            return value
        if self._output.is_text:
            return value if value != self._shown else None
        last = self._view(self._text()) if self._is_behind else None
        if self._shown is None:
            last = self._view(self._output.dump(value))
        return value if self._shown is None else last  # a validator may make a model of what does not look like one

    def text_unless_streamed(self, value: Any) -> str | None:
        """Return the answer as text when no piece of it came: from a cache, or from a body that asked nobody."""
        return None if self._pieces or self._output is None else self._output.dump(value)

    def _text(self) -> str:
        self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    def _view(self, text: str) -> Any:
        view = None if self._output is None else self._output.view
        snapshot = None if view is None else view(text)
        if snapshot is None or snapshot == self._shown:
            return None
        self._shown = snapshot
        return snapshot
