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
from llmflow.prices import dollars, nanos

__all__ = ["Latency", "ModelStats", "Stats", "StatsObserver", "StepStats", "TenantStats"]

WINDOW = 2048
"""How many of the latest latencies are kept for each step and model; percentiles are over these."""
BATCH = 4096
"""How many events may wait to be counted."""
TENANTS = 10_000
"""How many tenants are counted apart; those that come after are counted together, as `OTHERS`."""
OTHERS = "(others)"

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
        hits: Calls that took no request of their own: a cache or another call had the answer.
        throttled: Retries that were not made because too many of the connection's requests were retries.
        waited_s: Seconds that the calls waited in limits, budgets and queues.
        cost_usd: Dollars of all requests whose cost is known; `unpriced` calls have a request that is not in it.
        saved_usd: Dollars that the hits had cost when they were asked for, as far as that is known.
    """

    calls: int = 0
    errors: Mapping[str, int] = field(default_factory=dict[str, int])
    attempts: int = 0
    reasks: int = 0
    repaired: int = 0
    retries: int = 0
    fallbacks: int = 0
    hits: int = 0
    throttled: int = 0
    waited_s: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced: int = 0
    saved_usd: Decimal = Decimal(0)
    latency_s: Latency = Latency()


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantStats:
    """Calls made for one tenant, as `llmflow.context(tenant=...)` names it."""

    calls: int = 0
    hits: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced: int = 0
    saved_usd: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStats:
    """Attempts of one model: physical requests, by outcome.

    Attributes:
        hedges: Second requests beside a slow one, counted in `attempts` too.
        first_token_s: Of streamed answers: seconds until the first piece.
    """

    attempts: int = 0
    errors: Mapping[str, int] = field(default_factory=dict[str, int])
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced: int = 0
    latency_s: Latency = Latency()
    hedges: int = 0
    first_token_s: Latency = Latency()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """A snapshot of what a runtime has done: operations by step, attempts by model.

    Attributes:
        tenants: Calls by tenant; those that were made for nobody in particular are not in it.
        abandoned_threads: Bodies of tasks past their time that still run in a thread, as Python cannot stop them.
        states: What policies hold at the moment: breakers, limits, budgets, caches.
    """

    steps: Mapping[str, StepStats]
    models: Mapping[str, ModelStats]
    abandoned_threads: int = 0
    states: tuple[State, ...] = ()
    tenants: Mapping[str, TenantStats] = field(default_factory=dict[str, TenantStats])

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


class _Money:
    """Calls and money behind a `TenantStats`, and part of the others; whole nano-dollars, so that no sum is rounded."""

    __slots__ = ("calls", "cost", "hits", "saved", "unpriced")

    def __init__(self) -> None:
        self.calls = self.hits = self.cost = self.saved = self.unpriced = 0

    def spend(self, cost: Decimal | None) -> None:
        if cost is not None:
            self.cost += nanos(cost)

    def add(self, event: CallFinished) -> None:
        """Count a call. Its requests were spent one by one: a sum with an unknown part has none, but its parts have."""
        self.calls += 1
        self.unpriced += event.cost_usd is None
        if event.cached:
            self.hits += 1
            self.saved += 0 if event.saved_usd is None else nanos(event.saved_usd)

    def of_calls(self) -> dict[str, Any]:
        return {"calls": self.calls, "hits": self.hits, "saved_usd": dollars(self.saved), **self.spent()}

    def spent(self) -> dict[str, Any]:
        return {"cost_usd": dollars(self.cost), "unpriced": self.unpriced}


class _Tally:
    """The running counts behind one `StepStats` or `ModelStats`."""

    __slots__ = ("counts", "errors", "firsts", "latencies", "money", "waited")

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.money = _Money()
        self.waited = 0.0
        self.latencies: deque[float] = deque(maxlen=WINDOW)
        self.firsts: deque[float] = deque(maxlen=WINDOW)

    def _add(self, event: CallFinished | AttemptFinished) -> None:
        self.latencies.append(event.latency_s)
        if (usage := event.usage) is not None:
            self.counts["input_tokens"] += usage.input_tokens or 0
            self.counts["output_tokens"] += usage.output_tokens or 0

    def add_call(self, event: CallFinished) -> None:
        self._add(event)
        self.money.add(event)
        counts = self.counts
        counts["attempts"] += event.attempts
        counts["reasks"] += event.reasks
        counts["repaired"] += event.repaired
        counts["throttled"] += event.throttled
        self.waited += event.waited_s
        if event.error is not None:
            self.errors[event.error] += 1

    def add_attempt(self, event: AttemptFinished) -> None:
        self._add(event)
        self.money.spend(event.cost_usd)
        self.money.unpriced += event.cost_usd is None
        self.counts["attempts"] += 1
        self.counts["hedges"] += event.hedge
        if event.first_token_s is not None:
            self.firsts.append(event.first_token_s)
        if event.outcome != "ok":
            self.errors[event.outcome] += 1

    def of_step(self) -> StepStats:
        names = ("attempts", "reasks", "repaired", "retries", "fallbacks", "throttled")
        return StepStats(**self._counted(*names), **self.money.of_calls(), waited_s=self.waited, **self._common())

    def of_model(self) -> ModelStats:
        firsts = Latency.of(self.firsts)
        return ModelStats(
            **self._counted("attempts", "hedges"), **self.money.spent(), first_token_s=firsts, **self._common()
        )

    def _common(self) -> dict[str, Any]:
        counted = self._counted("input_tokens", "output_tokens")
        return {**counted, "errors": dict(self.errors), "latency_s": Latency.of(self.latencies)}

    def _counted(self, *names: str) -> dict[str, Any]:
        return {name: self.counts[name] for name in names}


class StatsObserver:
    """Listens to the notify hooks and keeps count; a plugin like any other.

    A hook only appends its event, which needs no lock; they are counted when somebody asks, or when many have come.
    """

    def __init__(self) -> None:
        self._steps: defaultdict[str, _Tally] = defaultdict(_Tally)
        self._models: defaultdict[str, _Tally] = defaultdict(_Tally)
        self._tenants: dict[str, _Money] = {}
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
                if event.tenant is not None:
                    self._tenant(event.tenant).add(event)
            elif isinstance(event, AttemptFinished):
                self._models[event.model].add_attempt(event)
                if event.cost_usd:
                    self._steps[event.step].money.spend(event.cost_usd)
                    if event.tenant is not None:
                        self._tenant(event.tenant).spend(event.cost_usd)
            else:
                name = "retries" if isinstance(event, RetryScheduled) else "fallbacks"
                self._steps[event.step].counts[name] += 1

    def snapshot(self) -> Stats:
        """Return the counts as they are now."""
        with self._lock:
            self._count()
            steps = {step: tally.of_step() for step, tally in self._steps.items()}
            models = {model: tally.of_model() for model, tally in self._models.items()}
            tenants = {tenant: TenantStats(**money.of_calls()) for tenant, money in self._tenants.items()}
        return Stats(steps=steps, models=models, tenants=tenants)

    def _tenant(self, name: str) -> _Money:
        if name not in self._tenants and len(self._tenants) >= TENANTS:
            name = OTHERS
        return self._tenants.setdefault(name, _Money())
