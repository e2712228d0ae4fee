"""The state of a circuit breaker: outcomes in a rolling window, and who may try when it is open."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

from llmflow.errors import CircuitOpen
from llmflow.events import BreakerChanged
from llmflow.policy import State

if TYPE_CHECKING:
    from llmflow.models import Model

__all__ = ["Breaker"]

_State: TypeAlias = Literal["closed", "open", "half_open"]
_Emit: TypeAlias = Callable[[object], None]

BUCKETS = 10
"""The window moves on in tenths: what is counted is between nine tenths of it and the whole."""
PROBE_GRACE = 1.0
"""Seconds past its deadline after which a probe is given up: nobody has told what became of it."""
PROBE_SECONDS = 300.0
"""The same for a probe without a deadline: as long as a call may take by default."""


class _Bucket:
    """What ended in one tenth of the window."""

    __slots__ = ("calls", "failures", "index")

    def __init__(self, index: int) -> None:
        self.index = index
        self.calls = 0
        self.failures = 0


class Breaker:
    """A circuit breaker for any number of threads and event loops.

    Whoever wants to send takes a ticket: `epoch` when it is `closed` after that was read, else what `admit` returns. The ticket is given
    back with the outcome, and an outcome counts only while its ticket is the current one; so what was sent before the
    breaker opened, or by a probe that was given up, says nothing about the provider as it is now.

    Attributes:
        name: The model it guards.
        closed: Whether everybody may send.
        epoch: The current ticket; a new one with each change of state and each probe.
    """

    __slots__ = (
        "_buckets",
        "_calls",
        "_emit",
        "_ends",
        "_failures",
        "_lock",
        "_model",
        "_now",
        "_opened_at",
        "_probe_until",
        "_starts",
        "_state",
        "closed",
        "epoch",
        "failure_ratio",
        "min_calls",
        "name",
        "open_for",
        "window",
    )

    def __init__(
        self,
        model: Model,
        *,
        failure_ratio: float,
        window: float,
        min_calls: int,
        open_for: float,
        now: Callable[[], float],
        emit: _Emit,
    ) -> None:
        self.name = model.name
        self._model = model
        self.failure_ratio = failure_ratio
        self.window = window
        self.min_calls = min_calls
        self.open_for = open_for
        self.closed = True
        self.epoch = 0
        self._now = now
        self._emit = emit
        self._state: _State = "closed"
        self._opened_at = 0.0
        self._probe_until: float | None = None
        self._lock = threading.Lock()
        self._forget()

    # -- asking to send ------------------------------------------------------------------------------------------------

    def admit(self, now: float, deadline: float, *, hedge: bool) -> int:
        """Return a ticket for one request, as the probe if it is time for one.

        Raises:
            CircuitOpen: While the provider is left alone, and while another probe is under way.
        """
        with self._lock:
            if self.closed:  # again, since the caller looked
                return self.epoch
            old, wait = self._state, self._wait(now)
            # A hedge is no probe: the request it stands beside was refused, or is the probe.
            if wait is not None or hedge or not self._may_probe(now):
                raise self._refusal(wait)
            self._change("half_open")
            self._probe_until = deadline + PROBE_GRACE if deadline != float("inf") else now + PROBE_SECONDS
            ticket = self.epoch
        self._announce(old, "half_open")
        return ticket

    def _wait(self, now: float) -> float | None:
        """Return the seconds until a probe may be sent, None when one may be sent now."""
        if self._state != "open":
            return None
        # The clock of another loop may be behind, in tests on virtual time: wait once more then, and not for ever.
        self._opened_at = min(self._opened_at, now)
        left = self._opened_at + self.open_for - now
        return left if left > 0 else None

    def _may_probe(self, now: float) -> bool:
        return self._probe_until is None or now > self._probe_until

    def _refusal(self, wait: float | None) -> CircuitOpen:
        if wait is None:
            error = CircuitOpen(f"{self.name} has failed too often, and one request is trying it at the moment")
        else:
            error = CircuitOpen(f"{self.name} has failed too often and is left alone for another {wait:.3g} s")
        error.retry_after = wait
        return error

    # -- telling what became of it -------------------------------------------------------------------------------------

    def succeeded(self, ticket: int) -> None:
        """Take note of an answer: it counts, or closes the breaker when it is the probe's."""
        with self._lock:
            if ticket != self.epoch:
                return
            old = self._state
            if self.closed:
                self._count(0)
                if not self._failures or not self._is_over():
                    return
                self._open()  # it was the last of `min_calls`, and the others failed
            else:
                self._change("closed")
                self._forget()
            new = self._state
        self._announce(old, new)

    def failed(self, ticket: int) -> None:
        """Take note of a failure of the provider: it counts, or opens the breaker again when it is the probe's."""
        with self._lock:
            if ticket != self.epoch:
                return
            old = self._state
            if self.closed:
                self._count(1)
                if not self._is_over():
                    return
            self._open()
        self._announce(old, "open")

    def ended(self, ticket: int) -> None:
        """Take note of an end that says nothing about the provider: the next caller is the probe."""
        with self._lock:
            if ticket == self.epoch and not self.closed:
                self._probe_until = None

    # -- inside the lock -----------------------------------------------------------------------------------------------

    def _change(self, state: _State) -> None:
        # Callers read `epoch` and then `closed` without the lock: one who sees the ticket of an open breaker must see
        # that it is not closed.
        self.closed = False
        self._state = state
        self._probe_until = None
        self.epoch += 1
        self.closed = state == "closed"

    def _open(self) -> None:
        self._change("open")
        self._opened_at = self._now()

    def _is_over(self) -> bool:
        return self._calls >= self.min_calls and self._failures >= self.failure_ratio * self._calls

    def _count(self, failures: int) -> None:
        now = self._now()
        if not self._starts <= now < self._ends:
            self._move_to(now)
        bucket = self._buckets[-1]
        bucket.calls += 1
        bucket.failures += failures
        self._calls += 1
        self._failures += failures

    def _move_to(self, now: float) -> None:
        """Begin the bucket of this moment, and drop those that the window has left behind."""
        width = self.window / BUCKETS
        index = int(now // width)
        if self._buckets and index <= self._buckets[-1].index:
            # Rounding at the edge of a bucket is met here, and the clock of another loop on virtual time.
            if self._buckets[-1].index - index < BUCKETS:
                return
            self._forget()
        while self._buckets and self._buckets[0].index <= index - BUCKETS:
            gone = self._buckets.popleft()
            self._calls -= gone.calls
            self._failures -= gone.failures
        self._buckets.append(_Bucket(index))
        self._starts, self._ends = index * width, (index + 1) * width

    def _forget(self) -> None:
        self._buckets: deque[_Bucket] = deque()
        self._calls = self._failures = 0
        self._starts = self._ends = float("inf")  # no moment is in it, so the first outcome begins a bucket

    def _announce(self, old: _State, new: _State) -> None:
        """Tell listeners, after the lock was given back: they may ask for statistics."""
        if old != new:
            self._emit(BreakerChanged(name=self.name, old=old, new=new))

    # -- being looked at and reset -----------------------------------------------------------------------------------------------

    def state(self) -> State:
        """Return what it has counted in its window, and how long it stays open."""
        now = self._now()
        index = int(now // (self.window / BUCKETS))
        with self._lock:
            counted = [one for one in self._buckets if index - BUCKETS < one.index <= index]
            values: dict[str, object] = {
                "state": self._state,
                "calls": sum(one.calls for one in counted),
                "failures": sum(one.failures for one in counted),
            }
            if self._state == "open":
                values["retry_after_s"] = min(max(0.0, self._opened_at + self.open_for - now), self.open_for)
        return State(kind="breaker", name=self.name, values=values)

    def guards(self, model: Model | str | None) -> bool:
        """Whether it is a breaker of this model: by name, by name and connection, or any."""
        return self._model.is_meant_by(model)

    def reset(self) -> None:
        """Close it, and forget what was counted and who is under way."""
        with self._lock:
            old = self._state
            self._change("closed")
            self._forget()
        if old != "closed":
            self._announce(old, "closed")
