"""How long requests take, and whether one that takes longer is worth a second one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from llmflow.policy import State

__all__ = ["Pace"]

WINDOW = 256
"""How many of the latest latencies are looked at."""
STEP = 20
"""How many it takes before there is a percentile; it is then computed anew after each so many."""
SHORTEST = 0.01
"""The least that a percentile may say: a request that answers in milliseconds is not worth doubling."""
MARGIN = 1.01
"""What a percentile is multiplied by, so that a provider which always takes as long is not slow each time."""
EXTRA = 0.1
"""How many second requests each answered request pays for."""
SAVED = 10.0
"""How many may be saved up, and are there at the start."""


class Pace:
    """What is known of the requests of one step to one model, for any number of threads and event loops.

    Attributes:
        delay: Seconds after which a request is slow; None while nobody knows, and while all of them are slow.
    """

    __slots__ = (
        "_due",
        "_latencies",
        "_lock",
        "_name",
        "_percent",
        "_requests",
        "_rivals",
        "_seconds",
        "_step",
        "_tokens",
        "_usual",
        "delay",
    )

    def __init__(self, name: str, step: str, *, percent: int | None = None, seconds: float | None = None) -> None:
        self._name = name
        self._step = step
        self._percent = percent
        self._seconds = seconds
        self._usual = seconds
        self.delay = seconds
        self._latencies: deque[float] = deque(maxlen=WINDOW)
        self._due = STEP
        self._tokens = SAVED
        self._requests = self._rivals = 0
        self._lock = threading.Lock()

    def note(self, seconds: float) -> None:
        """Take note of a first request that was answered, or that took so long without being answered first."""
        with self._lock:
            self._latencies.append(seconds)
            self._requests += 1
            if self._tokens < SAVED:
                self._tokens += EXTRA
            self._due -= 1
            if not self._due:
                self._due = STEP
                self.delay = self._next_delay()

    def _next_delay(self) -> float | None:
        latest = list(self._latencies)
        recent = sorted(latest[-STEP:])
        slow, self._usual = self._usual, self._seconds
        if self._percent is not None:
            latest.sort()
            self._usual = ranked(latest, 95)
        # When more than half of the latest were slow, it is not the odd one that is: a second request would only add
        # to what the provider cannot bear (https://github.com/grafana/loki/issues/4826).
        if slow is not None and ranked(recent, 50) > max(slow, SHORTEST):
            return None
        return self._seconds if self._percent is None else max(SHORTEST, MARGIN * ranked(latest, self._percent))

    def take(self) -> bool:
        """Pay for one more request; False when too many of the latest have been doubled."""
        with self._lock:
            if self.delay is None or self._tokens < 1:
                return False
            self._tokens -= 1
            self._rivals += 1
            return True

    def give_back(self) -> None:
        """Take back what was paid for a request that was not sent."""
        with self._lock:
            self._tokens += 1
            self._rivals -= 1

    def state(self) -> State | None:
        """Return the percentiles of the latencies, and how many requests were doubled."""
        with self._lock:
            if not self._requests:
                return None
            latest = sorted(self._latencies)
            values: dict[str, object] = {
                "step": self._step,
                "after_s": self.delay,
                "p50_s": ranked(latest, 50),
                "p95_s": ranked(latest, 95),
                "requests": self._requests,
                "hedges": self._rivals,
            }
        return State(kind="hedge", name=self._name, values=values)


def ranked(values: Sequence[float], percent: int) -> float:
    """Return a percentile of sorted values, by the nearest-rank method."""
    return values[max(0, -(-len(values) * percent // 100) - 1)]
