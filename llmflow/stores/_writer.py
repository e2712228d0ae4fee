"""One thread that writes what others hand to it, many at a time."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["Writer"]

T = TypeVar("T")

_IDLE = 1.0
"""Seconds after which a thread that has nothing to write ends; the next thing to write starts another."""


class Writer(Generic[T]):
    """Hands what is added to `write`, in batches and in order, in a daemon thread of its own.

    Args:
        write: Writes one batch; it does not raise.
        name: Of the thread.
        limit: How much may wait.
    """

    def __init__(self, write: Callable[[list[T]], None], *, name: str, limit: int) -> None:
        self._write = write
        self._name = name
        self._limit = limit
        self.start_anew()
        _writers.add(self)

    def start_anew(self) -> None:
        """Begin with nothing, as a forked child has to: threads and what they hold stay with the parent."""
        self._changed = threading.Condition(threading.Lock())
        self._waiting: list[T] = []
        self._busy = False
        self._thread: threading.Thread | None = None

    def add(self, one: T) -> bool:
        """Have something written; False when too much waits already."""
        with self._changed:
            if len(self._waiting) >= self._limit:
                return False
            self._waiting.append(one)
            if self._thread is None:
                self._start()
            else:
                self._changed.notify_all()
            return True

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending; `flush` writes what waits
            return
        self._thread = thread

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            self._write(batch)
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _take(self) -> list[T] | None:
        """Return what waits; None when nothing came for a while, and this thread ends."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting, _IDLE)
            if not self._waiting:
                self._thread = None
                return None
            batch, self._waiting, self._busy = self._waiting, [], True
            return batch

    @property
    def is_idle(self) -> bool:
        """Whether everything is written."""
        return not self._waiting and not self._busy

    def flush(self, patience: float) -> None:
        """Return when everything is written, or after so many seconds."""
        with self._changed:
            if self._thread is not None:
                self._changed.wait_for(lambda: self.is_idle or self._thread is None, patience)
                return
            batch, self._waiting = self._waiting, []
        if batch:
            self._write(batch)


_writers: weakref.WeakSet[Writer[Any]] = weakref.WeakSet()
_PATIENCE_AT_EXIT = 5.0


def _flush_all() -> None:
    for one in list(_writers):
        one.flush(_PATIENCE_AT_EXIT)


def _start_all_anew() -> None:
    for one in list(_writers):
        one.start_anew()


atexit.register(_flush_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_all_anew)
