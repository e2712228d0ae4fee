"""One thread that writes what others hand to it, many at a time."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from llmflow.backend import Wakeup

__all__ = ["Ticket", "Writer"]

logger = logging.getLogger("llmflow")

T = TypeVar("T")

_IDLE = 1.0
"""Seconds after which a thread that has nothing to write ends; the next thing to write starts another."""


class Ticket:
    """Waits for everything that was added before it to be written.

    Attributes:
        error: Why some of it could not be written.
    """

    __slots__ = ("error", "number", "wakeup")

    def __init__(self, number: int) -> None:
        self.number = number
        self.wakeup = Wakeup()
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
        self._waiting: list[T] = []
        self._busy = False
        self._added = self._done = 0
        self._tickets: list[Ticket] = []
        self._thread: threading.Thread | None = None

    def add(self, one: T) -> bool:
        """Have something written; False when too much waits already."""
        with self._changed:
            if len(self._waiting) >= self._limit:
                return False
            self._waiting.append(one)
            self._added += 1
            if self._thread is None:
                self._start()
            elif not self._busy:
                self._changed.notify_all()
            return True

    def ticket(self) -> Ticket | None:
        """Return what wakes when everything that was added so far is written, None when it is."""
        with self._changed:
            if self._done >= self._added:
                return None
            if self._thread is None:
                self._start()
            ticket = Ticket(self._added)
            self._tickets.append(ticket)
            return ticket

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending; `flush` writes what waits
            return
        self._thread = thread

    def _run(self) -> None:
        while True:
            if batch := self._take():
                self._finish(batch, self._tried(batch))
            elif not self._stays() and self._leave():
                return

    def _tried(self, batch: list[T]) -> Exception | None:
        try:
            return self._write(batch)
        except Exception as exc:  # a thread that died would leave everybody waiting
            logger.exception("%s: what was to be written is lost", self._name)
            return exc

    def _leave(self) -> bool:
        """End the thread, unless something came."""
        with self._changed:
            if self._waiting:
                return False
            self._thread = None
            self._changed.notify_all()
            return True

    def _finish(self, batch: list[T], error: Exception | None) -> None:
        """Tell those who wait."""
        with self._changed:
            self._busy = False
            self._done += len(batch)
            ready = [one for one in self._tickets if one.number <= self._done]
            if ready:
                self._tickets = [one for one in self._tickets if one.number > self._done]
            for one in self._tickets if error is not None else ():
                one.error = error  # a part of what it waits for is lost
            self._changed.notify_all()
        for one in ready:
            one.error = one.error or error
            one.wakeup.set()

    def _take(self) -> list[T]:
        """Return what waits; nothing when nothing came for a while."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting, _IDLE)
            batch, self._waiting = self._waiting, []
            self._busy = bool(batch)
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
            self._finish(batch, self._tried(batch))


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
