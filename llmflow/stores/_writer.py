"""One thread that writes what others hand to it, many at a time."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from llmflow.backend import Broadcast

__all__ = ["Ticket", "Writer"]

logger = logging.getLogger("llmflow")

T = TypeVar("T")

_IDLE = 1.0
"""Seconds after which a thread that has nothing to write ends; the next thing to write starts another."""
_GATHERING = 0.002
"""Seconds for which it lets more gather that nobody waits for: each thing that is written on its own costs a commit."""


class Ticket:
    """Waits for what was added before it to be written; everybody who waits for the same batch has the same one.

    Attributes:
        error: Why it could not be written.
    """

    __slots__ = ("error", "written")

    def __init__(self) -> None:
        self.written = Broadcast()
        self.error: Exception | None = None


class Writer(Generic[T]):
    """Hands what is added to `write`, in batches and in order, in a daemon thread of its own.

    Args:
        write: Writes one batch and returns why it could not, if so.
        name: Of the thread.
        limit: How much may wait.
        stays: Asked about once a second while there is nothing to write; the thread ends when it returns False.
    """

    def __init__(
        self,
        write: Callable[[list[T]], Exception | None],
        *,
        name: str,
        limit: int,
        stays: Callable[[], bool] = lambda: False,
    ) -> None:
        self._write = write
        self._name = name
        self._limit = limit
        self._stays = stays
        self.start_anew()
        _writers.add(self)

    def start_anew(self) -> None:
        """Begin with nothing, as a forked child has to: threads and what they hold stay with the parent."""
        self._changed = threading.Condition(threading.Lock())
        self._waiting: deque[T] = deque()
        self._busy = False
        self._sleeps = True
        """Whether somebody has to be woken: the thread waits, or there is none. Set before it looks a last time."""
        self._next: Ticket | None = None
        self._current: Ticket | None = None
        self._thread: threading.Thread | None = None
        self._attended = False

    def add(self, one: T) -> bool:
        """Have something written; False when too much waits already."""
        waiting = self._waiting
        if len(waiting) >= self._limit:
            return False
        waiting.append(one)  # on its own it needs no lock
        if self._sleeps:
            self._wake()
        return True

    def attend(self) -> None:
        """Have the thread there although nothing is to be written, so that it asks `stays`."""
        with self._changed:
            self._attended = True
            if self._thread is None:
                self._start()

    def _wake(self) -> None:
        with self._changed:
            if self._thread is None:
                self._start()
            else:
                self._changed.notify_all()

    def ticket(self) -> Ticket | None:
        """Return what to wait for until everything that was added so far is written, None when it is."""
        with self._changed:
            if self._waiting:
                if self._thread is None:
                    self._start()
                return self._hurry() if self._thread is not None else _nobody_writes()
            if self._busy:
                self._current = self._current or Ticket()
            return self._current

    def _hurry(self) -> Ticket:
        """Have what waits written at once; the lock is held."""
        if self._next is None:
            self._next = Ticket()
            self._changed.notify_all()
        return self._next

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # there are too many, or the interpreter is ending; `flush` writes what waits
            return
        self._thread = thread

    def _run(self) -> None:
        while True:
            if batch := self._take():
                self._finish(self._tried(batch))
            elif not self._has_to_stay() and self._leave():
                return

    def _tried(self, batch: list[T]) -> Exception | None:
        try:
            return self._write(batch)
        except Exception as exc:  # a thread that died would leave everybody waiting
            logger.exception("%s: what was to be written is lost", self._name)
            return exc

    def _has_to_stay(self) -> bool:
        try:
            return self._stays()
        except Exception:
            logger.exception("%s: failed while it had nothing to write", self._name)
            return False

    def _leave(self) -> bool:
        """End the thread, unless something came."""
        with self._changed:
            if self._waiting or self._attended:
                self._attended = False
                return False
            self._thread = None
            self._changed.notify_all()
            return True

    def _take(self) -> list[T]:
        """Return what waits; nothing when nothing came for a while."""
        with self._changed:
            if not self._waiting:
                self._sleeps = True
                self._changed.wait_for(lambda: self._waiting, _IDLE)
            if self._waiting:
                self._sleeps = False
                self._changed.wait_for(lambda: self._next, _GATHERING)
            return self._batch()

    def _batch(self) -> list[T]:
        """Take what waits; the lock is held."""
        waiting = self._waiting
        batch = [waiting.popleft() for _ in range(len(waiting))]
        self._busy = bool(batch)
        self._sleeps = not batch
        self._current, self._next = (self._next, None) if batch else (self._current, self._next)
        return batch

    def _finish(self, error: Exception | None) -> None:
        """Tell those who wait."""
        with self._changed:
            self._busy = False
            ticket, self._current = self._current, None
            self._changed.notify_all()
        if ticket is not None:
            ticket.error = error
            ticket.written.set()

    @property
    def is_idle(self) -> bool:
        """Whether everything is written."""
        return not self._waiting and not self._busy

    def flush(self, patience: float) -> None:
        """Return when everything is written, or after so many seconds."""
        with self._changed:
            if self._thread is not None:
                self._hurry()
                self._changed.wait_for(lambda: self.is_idle or self._thread is None, patience)
                return
            batch = self._batch()
        if batch:
            self._finish(self._tried(batch))


def _nobody_writes() -> Ticket:
    ticket = Ticket()
    ticket.error = RuntimeError("no thread can be started that writes")
    ticket.written.set()
    return ticket


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
