"""Counts and latencies of one runtime, kept in memory and bounded."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from llmflow.hookspecs import hookimpl

if TYPE_CHECKING:
    from llmflow.events import AttemptFinished, CallFinished, FallbackTaken, RetryScheduled

__all__ = ["Latency", "ModelStats", "Stats", "StatsObserver", "StepStats"]

WINDOW = 2048
"""How many of the latest latencies are kept for each step and model; percentiles are over these."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of the latest latencies in seconds, None before there is any."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None

    @classmethod
    def of(cls, values: Iterable[float]) -> Latency:
        """Return the percentiles by the nearest-rank method."""
        ranked = sorted(values)
        if not ranked:
            return cls()
        return cls(*(ranked[max(0, -(-len(ranked) * percent // 100) - 1)] for percent in (50, 95, 99)))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStats:
    """Operations of one step: calls as the author sees them, whatever they took.

    Attributes:
        calls: Calls that ended, `errors` of them badly, by error class.
        attempts: Physical requests they took.
        reasks: Asks that were repeated for an invalid answer.
        repaired: Calls whose answer was mended or asked for again.
        retries: Requests that were repeated for a transient failure.
        fallbacks: How often a further model was asked.
        cost_usd: Dollars of the calls whose cost is known; `unpriced` calls are not in it.
    """

    calls: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    attempts: int = 0
    reasks: int = 0
    repaired: int = 0
    retries: int = 0
    fallbacks: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced: int = 0
    latency_s: Latency = Latency()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStats:
    """Attempts of one model: physical requests, by outcome."""

    attempts: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced: int = 0
    latency_s: Latency = Latency()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """A snapshot of what a runtime has done: operations by step, attempts by model."""

    steps: Mapping[str, StepStats]
    models: Mapping[str, ModelStats]

    def to_dict(self) -> dict[str, Any]:
        """Return the snapshot as plain dicts, with decimals as text, fit for JSON."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return str(value) if isinstance(value, Decimal) else value


class _Tally:
    """The running counts behind one `StepStats` or `ModelStats`."""

    __slots__ = ("cost", "counts", "errors", "latencies")

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.cost = Decimal(0)
        self.latencies: deque[float] = deque(maxlen=WINDOW)

    def add(self, event: CallFinished | AttemptFinished) -> None:
        self.latencies.append(event.latency_s)
        counts = self.counts
        if (usage := event.usage) is not None:
            counts["input_tokens"] += usage.input_tokens or 0
            counts["output_tokens"] += usage.output_tokens or 0
        if event.cost_usd is None:
            counts["unpriced"] += 1
        else:
            self.cost += event.cost_usd

    def common(self) -> dict[str, Any]:
        names = ("input_tokens", "output_tokens", "unpriced")
        return {
            **{name: self.counts[name] for name in names},
            "errors": dict(self.errors),
            "cost_usd": self.cost,
            "latency_s": Latency.of(self.latencies),
        }


class StatsObserver:
    """Listens to the notify hooks and keeps count; a plugin like any other."""

    def __init__(self) -> None:
        self._steps: dict[str, _Tally] = {}
        self._models: dict[str, _Tally] = {}
        self._lock = threading.Lock()

    @hookimpl
    def llmflow_call_finished(self, event: CallFinished) -> None:
        """Count a call."""
        with self._lock:
            tally = self._step(event.step)
            tally.add(event)
            counts = tally.counts
            counts["calls"] += 1
            counts["attempts"] += event.attempts
            if event.reasks:
                counts["reasks"] += event.reasks
            if event.repaired:
                counts["repaired"] += 1
            if event.error is not None:
                tally.errors[event.error] += 1

    @hookimpl
    def llmflow_attempt_finished(self, event: AttemptFinished) -> None:
        """Count a physical request."""
        with self._lock:
            tally = self._models.get(event.model)
            if tally is None:
                tally = self._models[event.model] = _Tally()
            tally.add(event)
            tally.counts["attempts"] += 1
            if event.outcome != "ok":
                tally.errors[event.outcome] += 1

    @hookimpl
    def llmflow_retry_scheduled(self, event: RetryScheduled) -> None:
        """Count a retry."""
        with self._lock:
            self._step(event.step).counts["retries"] += 1

    @hookimpl
    def llmflow_fallback_taken(self, event: FallbackTaken) -> None:
        """Count a change of model."""
        with self._lock:
            self._step(event.step).counts["fallbacks"] += 1

    def _step(self, name: str) -> _Tally:
        tally = self._steps.get(name)
        if tally is None:
            tally = self._steps[name] = _Tally()
        return tally

    def snapshot(self) -> Stats:
        """Return the counts as they are now."""
        with self._lock:
            names = ("calls", "attempts", "reasks", "repaired", "retries", "fallbacks")
            steps = {
                step: StepStats(**{name: tally.counts[name] for name in names}, **tally.common())
                for step, tally in self._steps.items()
            }
            models = {
                model: ModelStats(attempts=tally.counts["attempts"], **tally.common()) for model, tally in self._models.items()
            }
        return Stats(steps=steps, models=models)
