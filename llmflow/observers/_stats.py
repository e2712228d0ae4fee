"""Counts and latencies of one runtime, kept in memory and bounded."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any, TypeAlias, cast

from llmflow.events import AttemptFinished, CallFinished, FallbackTaken, RetryScheduled
from llmflow.hookspecs import hookimpl
from llmflow.policy import State

__all__ = ["Latency", "ModelStats", "Stats", "StatsObserver", "StepStats"]

WINDOW = 2048
"""How many of the latest latencies are kept for each step and model; percentiles are over these."""
BATCH = 4096
"""How many events may wait to be counted."""

_Event: TypeAlias = CallFinished | AttemptFinished | RetryScheduled | FallbackTaken


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
    errors: Mapping[str, int] = field(default_factory=dict[str, int])
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
    errors: Mapping[str, int] = field(default_factory=dict[str, int])
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced: int = 0
    latency_s: Latency = Latency()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """A snapshot of what a runtime has done: operations by step, attempts by model.

    Attributes:
        abandoned_threads: Bodies of tasks past their time that still run in a thread, as Python cannot stop them.
        states: What policies hold at the moment: breakers, limits, budgets, caches.
    """

    steps: Mapping[str, StepStats]
    models: Mapping[str, ModelStats]
    abandoned_threads: int = 0
    states: tuple[State, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the snapshot as plain dicts, with decimals as text, fit for JSON."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, tuple):
        return [_plain(one) for one in cast("tuple[object, ...]", value)]
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

    def counted(self, *names: str) -> dict[str, Any]:
        return {name: self.counts[name] for name in names}

    def add_call(self, event: CallFinished) -> None:
        self.add(event)
        counts = self.counts
        counts["calls"] += 1
        counts["attempts"] += event.attempts
        counts["reasks"] += event.reasks
        counts["repaired"] += event.repaired
        if event.error is not None:
            self.errors[event.error] += 1

    def add_attempt(self, event: AttemptFinished) -> None:
        self.add(event)
        self.counts["attempts"] += 1
        if event.outcome != "ok":
            self.errors[event.outcome] += 1

    def of_step(self) -> dict[str, Any]:
        names = ("calls", "attempts", "reasks", "repaired", "retries", "fallbacks")
        return {**{name: self.counts[name] for name in names}, **self.common()}

    def common(self) -> dict[str, Any]:
        return {
            **self.counted("input_tokens", "output_tokens", "unpriced"),
            "errors": dict(self.errors),
            "cost_usd": self.cost,
            "latency_s": Latency.of(self.latencies),
        }


class StatsObserver:
    """Listens to the notify hooks and keeps count; a plugin like any other.

    A hook only appends its event, which needs no lock; they are counted when somebody asks, or when many have come.
    """

    def __init__(self) -> None:
        self._steps: defaultdict[str, _Tally] = defaultdict(_Tally)
        self._models: defaultdict[str, _Tally] = defaultdict(_Tally)
        self._events: deque[_Event] = deque()
        self._lock = threading.Lock()

    def _note(self, event: _Event) -> None:
        self._events.append(event)
        if len(self._events) >= BATCH:
            with self._lock:
                self._count()

    @hookimpl
    def llmflow_call_finished(self, event: CallFinished) -> None:
        """Count a call."""
        self._note(event)

    @hookimpl
    def llmflow_attempt_finished(self, event: AttemptFinished) -> None:
        """Count a physical request."""
        self._note(event)

    @hookimpl
    def llmflow_retry_scheduled(self, event: RetryScheduled) -> None:
        """Count a retry."""
        self._note(event)

    @hookimpl
    def llmflow_fallback_taken(self, event: FallbackTaken) -> None:
        """Count a change of model."""
        self._note(event)

    def _count(self) -> None:
        """Count the events that have come; the lock is held."""
        while self._events:
            event = self._events.popleft()
            if isinstance(event, CallFinished):
                self._steps[event.step].add_call(event)
            elif isinstance(event, AttemptFinished):
                self._models[event.model].add_attempt(event)
            else:
                name = "retries" if isinstance(event, RetryScheduled) else "fallbacks"
                self._steps[event.step].counts[name] += 1

    def snapshot(self) -> Stats:
        """Return the counts as they are now."""
        with self._lock:
            self._count()
            steps = {step: StepStats(**tally.of_step()) for step, tally in self._steps.items()}
            models = {
                model: ModelStats(attempts=tally.counts["attempts"], **tally.common())
                for model, tally in self._models.items()
            }
        return Stats(steps=steps, models=models)
