"""The ledger: every request and every saved one, kept in memory and bounded, with totals that stay exact."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal, TypeAlias, overload

from llmflow.context import caller
from llmflow.errors import DefinitionError
from llmflow.events import AttemptFinished, CacheHit
from llmflow.hookspecs import hookimpl
from llmflow.ledger import LedgerRow
from llmflow.messages import Usage
from llmflow.prices import dollars, nanos

__all__ = ["By", "Ledger", "Total"]

ROWS = 10_000
"""How many of the latest rows are kept."""
GROUPS = 10_000
"""How many steps, tenants, ... have a total of their own; what comes after goes into `OTHERS`."""
OTHERS = "(others)"
BATCH = 1024
"""How many events may wait to be counted."""
_DAY = 86_400
_UNKNOWN = Usage()

By: TypeAlias = Literal["step", "model", "tenant", "prompt", "day"]
_DIMENSIONS: tuple[By, ...] = ("step", "model", "tenant", "prompt", "day")
_Event: TypeAlias = AttemptFinished | CacheHit
_Note: TypeAlias = tuple[float, _Event, Mapping[str, str] | None]
"""When, what, and the tags around it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """What many rows took together.

    Attributes:
        attempts: Physical requests. `failed` ones among them are all that have no answer, cancelled ones included.
        hits: Answers that took no request.
        cost_usd: Dollars of the requests whose cost is known; `unpriced` requests are not in it.
        saved_usd: Dollars that the hits had cost when they were asked for, as far as that is known.
    """

    attempts: int = 0
    failed: int = 0
    hits: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced: int = 0
    saved_usd: Decimal = Decimal(0)


class _Sum:
    """The running numbers behind one `Total`, all of them integers."""

    __slots__ = ("attempts", "cached", "cost", "failed", "hits", "output", "prompt", "reasoning", "saved", "unpriced")

    def __init__(self) -> None:
        self.attempts = self.failed = self.hits = self.unpriced = 0
        self.prompt = self.cached = self.output = self.reasoning = 0
        self.cost = self.saved = 0

    def count(self, event: _Event) -> None:
        if isinstance(event, CacheHit):
            self.hits += 1
            self.saved += 0 if event.saved_usd is None else nanos(event.saved_usd)
            return
        self.attempts += 1
        self.failed += event.outcome != "ok"
        if (usage := event.usage) is not None:
            self.prompt += usage.input_tokens or 0
            self.cached += usage.cached_tokens or 0
            self.output += usage.output_tokens or 0
            self.reasoning += usage.reasoning_tokens or 0
        if event.cost_usd is None:
            self.unpriced += 1
        else:
            self.cost += nanos(event.cost_usd)

    def add(self, other: _Sum) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def total(self) -> Total:
        return Total(
            attempts=self.attempts,
            failed=self.failed,
            hits=self.hits,
            input_tokens=self.prompt,
            cached_tokens=self.cached,
            output_tokens=self.output,
            reasoning_tokens=self.reasoning,
            cost_usd=dollars(self.cost),
            unpriced=self.unpriced,
            saved_usd=dollars(self.saved),
        )


class Ledger:
    """Listens to the notify hooks and writes down what every request took; a plugin like any other.

    A hook only appends its event, which needs no lock; they are counted when somebody asks, or when many have come.

    Args:
        wall_clock: Seconds since the epoch.
        limit: How many of the latest rows are kept; totals go on counting those that were dropped.
    """

    def __init__(self, wall_clock: Callable[[], float] = time.time, *, limit: int = ROWS) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            msg = f"Ledger: limit is {limit!r}, expected a number of rows, at least 1"
            raise DefinitionError(msg)
        self._now = wall_clock
        self._events: deque[_Note] = deque()
        self._kept: deque[_Note] = deque(maxlen=limit)
        self._all = _Sum()
        self._sums: dict[By, dict[str, _Sum]] = {by: {} for by in _DIMENSIONS}
        self._lock = threading.Lock()

    @hookimpl
    def llmflow_attempt_finished(self, event: AttemptFinished) -> None:
        """Write down a physical request."""
        self._events.append((self._now(), event, event.tags))
        if len(self._events) >= BATCH:
            self._count()

    @hookimpl
    def llmflow_cache_hit(self, event: CacheHit) -> None:
        """Write down an answer that took no request."""
        self._events.append((self._now(), event, caller.get().tags or None))
        if len(self._events) >= BATCH:
            self._count()

    def rows(self) -> tuple[LedgerRow, ...]:
        """Return the latest rows, oldest first."""
        self._count()
        with self._lock:
            kept = tuple(self._kept)
        return tuple(_row(*note) for note in kept)

    @overload
    def total(self) -> Total: ...

    @overload
    def total(self, by: By) -> dict[str, Total]: ...

    def total(self, by: By | None = None) -> Total | dict[str, Total]:
        """Return what all rows took together, those that were dropped included.

        Args:
            by: Return it for each `step`, `model`, `tenant`, `prompt` version or UTC `day` instead. Rows without a tenant
                or prompt version are under the empty text.

        Raises:
            DefinitionError: For any other `by`.
        """
        if by is not None and by not in _DIMENSIONS:
            msg = f"Ledger.total: by is {by!r}, expected one of {', '.join(map(repr, _DIMENSIONS))}"
            raise DefinitionError(msg)
        self._count()
        with self._lock:
            if by is None:
                return self._all.total()
            return {name: one.total() for name, one in self._sums[by].items()}

    def _count(self) -> None:
        """Count the events that have come.

        Those of one batch are first counted by everything at once, as most of them have the same step, model and day.
        """
        with self._lock:
            batch: dict[tuple[str, str, str | None, str | None, int], _Sum] = {}
            while self._events:
                at, event, _ = note = self._events.popleft()
                self._kept.append(note)
                key = (event.step, event.model, event.tenant, event.prompt_version, int(at // _DAY))
                found = batch.get(key)
                if found is None:
                    found = batch[key] = _Sum()
                found.count(event)
            for (step, model, tenant, prompt, day), one in batch.items():
                self._all.add(one)
                names = (step, model, tenant or "", prompt or "", _date(day))
                for by, name in zip(_DIMENSIONS, names, strict=True):
                    _group(self._sums[by], name).add(one)


def _group(sums: dict[str, _Sum], name: str) -> _Sum:
    if name not in sums and len(sums) >= GROUPS:
        name = OTHERS
    return sums.setdefault(name, _Sum())


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * _DAY, UTC).date().isoformat()


def _row(at: float, event: _Event, tags: Mapping[str, str] | None) -> LedgerRow:
    if isinstance(event, CacheHit):
        return LedgerRow(
            time=at,
            kind=event.kind,
            run_id=event.run_id,
            call_id=event.call_id,
            step=event.step,
            model=event.model,
            cost_nano=0,
            saved_nano=None if event.saved_usd is None else nanos(event.saved_usd),
            prompt_version=event.prompt_version,
            tenant=event.tenant,
            tags=tags,
        )
    usage = event.usage or _UNKNOWN
    return LedgerRow(
        time=at,
        kind="attempt",
        run_id=event.run_id,
        call_id=event.call_id,
        step=event.step,
        model=event.model,
        number=event.number,
        outcome=event.outcome,
        input_tokens=usage.input_tokens,
        cached_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost_nano=None if event.cost_usd is None else nanos(event.cost_usd),
        latency_s=event.latency_s,
        first_token_s=event.first_token_s,
        status=event.status,
        hedge=event.hedge,
        prompt_version=event.prompt_version,
        tenant=event.tenant,
        tags=tags,
    )
