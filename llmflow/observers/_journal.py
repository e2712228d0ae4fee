"""Hands what happens to the journal: plugins like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmflow.events import AttemptFinished, AttemptStarted, CacheHit, CallFinished, RunFinished
from llmflow.hookspecs import hookimpl

if TYPE_CHECKING:
    from llmflow.ports import Journal

__all__ = ["JournalObserver", "journal_observer"]


class JournalObserver:
    """Writes down every request that was sent, every answer that took none, and every call."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

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


class _Durable(JournalObserver):
    """Also writes down what is in flight, which a journal must know that outlives the process."""

    @hookimpl
    def llmflow_attempt_started(self, event: AttemptStarted) -> None:
        """Write down that a request is about to be sent."""
        self._journal.write(event)


class _InMemory(JournalObserver):
    """Also writes down runs, which are not recorded one by one where nobody can take them up again."""

    @hookimpl
    def llmflow_run_finished(self, event: RunFinished) -> None:
        """Write down that a run has ended."""
        self._journal.write(event)


def journal_observer(journal: Journal, *, is_durable: bool) -> JournalObserver:
    """Return what tells a journal of requests and calls."""
    return (_Durable if is_durable else _InMemory)(journal)
