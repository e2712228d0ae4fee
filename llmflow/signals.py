"""Who is told about what: one tuple of functions for each class of event, made once when a runtime starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from llmflow.events import (
    AttemptFinished,
    AttemptStarted,
    BreakerChanged,
    BudgetRefused,
    CacheHit,
    CallFinished,
    CallStarted,
    FallbackTaken,
    RetryScheduled,
    RunFinished,
    RunStarted,
)

__all__ = ["HOOK_OF", "Listener", "Signals"]

Listener: TypeAlias = Callable[[Any], None]

HOOK_OF: Mapping[type, str] = {
    RunStarted: "llmflow_run_started",
    RunFinished: "llmflow_run_finished",
    CallStarted: "llmflow_call_started",
    CallFinished: "llmflow_call_finished",
    AttemptStarted: "llmflow_attempt_started",
    AttemptFinished: "llmflow_attempt_finished",
    RetryScheduled: "llmflow_retry_scheduled",
    FallbackTaken: "llmflow_fallback_taken",
    CacheHit: "llmflow_cache_hit",
    BreakerChanged: "llmflow_breaker_changed",
    BudgetRefused: "llmflow_budget_refused",
}
"""The notify hook that is told of each class of event."""


class Signals:
    """Tells listeners what happened; the listeners do not raise (see `llmflow.plugins`)."""

    __slots__ = ("_listeners",)

    def __init__(self, listeners: Mapping[type, tuple[Listener, ...]]) -> None:
        self._listeners = dict(listeners)

    def listeners(self, kind: type) -> tuple[Listener, ...]:
        """Return who is told of this class of event."""
        return self._listeners.get(kind, ())

    def emit(self, event: object) -> None:
        """Tell everybody who listens to this class of event."""
        for listener in self._listeners.get(type(event), ()):
            listener(event)
