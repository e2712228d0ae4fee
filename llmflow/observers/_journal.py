"""Hands what happens to the journal: plugins like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from llmflow.context import caller
from llmflow.events import AttemptFinished, AttemptStarted, CacheHit, CallFinished, RunFinished
from llmflow.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from llmflow.ports import Journal

    class MemoryJournal(Protocol):
        """The built-in journal in memory, whose layer is the one of this module."""

        note: Callable[[object, str | None, Mapping[str, str] | None], None]


__all__ = ["journal_observer"]


class _Durable:
    """Writes down every request that is sent or was sent, every answer that took none, and every call."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    @hookimpl
    def llmflow_attempt_started(self, event: AttemptStarted) -> None:
        """Write down that a request is about to be sent, which a journal must know that outlives the process."""
        self._journal.write(event)

    @hookimpl
    def llmflow_attempt_finished(self, event: AttemptFinished) -> None:
        """Write down a physical request."""
        self._journal.write(event)

    @hookimpl
    def llmflow_cache_hit(self, event: CacheHit) -> None:
        """Write down an answer that took no request."""
        self._journal.write(event)

    @hookimpl
    def llmflow_call_finished(self, event: CallFinished) -> None:
        """Write down a call."""
        self._journal.write(event)


class _InMemory:
    """Hands over what happened to a journal that only remembers it.

    It also writes down runs, which are not recorded one by one where nobody can take them up again.
    """

    def __init__(self, journal: MemoryJournal) -> None:
        self._note = journal.note

    @hookimpl
    def llmflow_attempt_finished(self, event: AttemptFinished) -> None:
        """Write down a physical request."""
        self._note(event, event.node, event.tags)

    @hookimpl
    def llmflow_cache_hit(self, event: CacheHit) -> None:
        """Write down an answer that took no request."""
        self._note(event, event.node, caller.get().tags or None)

    @hookimpl
    def llmflow_call_finished(self, event: CallFinished) -> None:
        """Write down a call."""
        self._note(event, event.node, event.tags)

    @hookimpl
    def llmflow_run_finished(self, event: RunFinished) -> None:
        """Write down that a run has ended."""
        self._note(event, None, None)


def journal_observer(journal: Journal) -> object:
    """Return the plugin that tells a journal of requests and calls."""
    return _InMemory(cast("MemoryJournal", journal)) if hasattr(journal, "note") else _Durable(journal)
