"""Single flight: of those who ask the same at the same time, one asks and the others get its answer."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any, TypeVar

from llmflow.backend import Wakeup, loop_token
from llmflow.context import blocked_loop
from llmflow.errors import DeadlineExceeded, ProviderTimeout
from llmflow.policy import State

__all__ = ["Flight", "Flights", "Landed", "Seat", "copied"]

E = TypeVar("E", bound=BaseException)

_REQUESTS = 3
"""How many requests failing leaders may send together before their failure is everybody's."""


@dataclass(frozen=True, slots=True)
class Landed:
    """An answer, as text: each call makes a value of its own of it."""

    text: str
    by: str | None
    cost_nano: int | None


class Flight:
    """One question that is being asked, and who waits for its answer."""

    __slots__ = ("key", "loop", "requests", "waiting")

    def __init__(self, key: str, loop: object) -> None:
        self.key = key
        self.loop = loop
        """The event loop its leader runs on."""
        self.requests = 0
        self.waiting: deque[Seat] = deque()


class Seat(Wakeup):
    """The place of one who waits, and what became of it once it is woken."""

    __slots__ = ("blocked", "error", "landed", "leads", "loop")

    def __init__(self, loop: object, *, blocked: bool) -> None:
        super().__init__()
        self.loop = loop
        self.blocked = blocked
        self.leads = False
        self.landed: Landed | None = None
        self.error: BaseException | None = None


class Flights:
    """The flights of one runtime, for any number of tasks, threads and event loops."""

    __slots__ = ("_flights", "_lock")

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}
        self._lock = threading.Lock()

    def board(self, key: str) -> tuple[Flight | None, Seat | None]:
        """Return the flight to lead; or the flight and a seat to wait in; or nothing, when waiting could block for ever.

        A `.sync()` call in the thread of a running loop keeps that loop from going on. It waits for nothing but what is
        led on its own loop, as anybody else might be waiting for the loop it blocks.
        """
        loop, blocked = loop_token(), blocked_loop.get() is not None
        with self._lock:
            flight = self._flights.get(key)
            if flight is None:
                flight = self._flights[key] = Flight(key, loop)
                return flight, None
            if blocked and flight.loop is not loop:
                return None, None
            seat = Seat(loop, blocked=blocked)
            flight.waiting.append(seat)
            return flight, seat

    def lead(self, key: str) -> Flight | None:
        """Return a flight to lead, None when there is one already."""
        with self._lock:
            if key in self._flights:
                return None
            flight = self._flights[key] = Flight(key, loop_token())
            return flight

    def land(self, flight: Flight, landed: Landed) -> None:
        """Give everybody the answer."""
        for seat in self._end(flight):
            seat.landed = landed
            seat.set()

    def crash(self, flight: Flight, error: BaseException, requests: int) -> None:
        """End the leader's part: one who waits takes over, or everybody gets the failure.

        What failed for a reason of the leader's own says nothing about the others. What failed at the provider would
        probably fail again: it is tried again only as long as all leaders together send no more than a few requests.
        """
        flight.requests += requests
        if _is_its_own(error, requests) or flight.requests + requests <= _REQUESTS:
            self._hand_over(flight)
            return
        failure = copied(error)
        for seat in self._end(flight):
            seat.error = failure
            seat.set()

    def leave(self, flight: Flight, seat: Seat) -> None:
        """Get up from a seat; one who was just made the leader hands that on."""
        with self._lock:
            if seat in flight.waiting:
                flight.waiting.remove(seat)
                return
            led, seat.leads = seat.leads, False
        if led:
            self._hand_over(flight)

    def _end(self, flight: Flight) -> deque[Seat]:
        with self._lock:
            self._flights.pop(flight.key, None)
            waiting, flight.waiting = flight.waiting, deque()
            return waiting

    def _hand_over(self, flight: Flight) -> None:
        """Make the first who waits the leader; whoever must not wait for its loop goes alone."""
        while True:
            with self._lock:
                if not flight.waiting:
                    self._flights.pop(flight.key, None)
                    return
                heir = flight.waiting.popleft()
                heir.leads, flight.loop = True, heir.loop
                alone = [seat for seat in flight.waiting if seat.blocked and seat.loop is not heir.loop]
                for seat in alone:
                    flight.waiting.remove(seat)
            for seat in alone:
                seat.set()
            if heir.set():
                return
            with self._lock:  # its loop has ended; its task may have been told so, and have handed on already
                led, heir.leads = heir.leads, False
            if not led:
                return

    def state(self) -> State | None:
        """Say what is being asked."""
        with self._lock:
            waiting = sum(len(one.waiting) for one in self._flights.values())
            values = {"in_flight": len(self._flights), "waiting": waiting}
        return State(kind="cache", name="single flight", values=values)


def _is_its_own(error: BaseException, requests: int) -> bool:
    """Whether a leader failed for a reason that the others need not share: nothing was asked, or its time was up.

    One that a limit stopped half way has asked: if each of the others did the same, they would be as many requests.
    """
    if requests == 0 or not isinstance(error, Exception):
        return True
    if isinstance(error, ProviderTimeout):
        return error.cut
    return isinstance(error, DeadlineExceeded)


def copied(error: E) -> E:
    """Return an exception like `error`: each call adds its own notes, and annotates it as its own."""
    kind = type(error)
    made: Any = kind.__new__(kind, *error.args)
    made.__dict__.update(error.__dict__)
    if notes := error.__dict__.get("__notes__"):
        made.__notes__ = list(notes)
    made.__cause__, made.__suppress_context__ = error.__cause__, True
    return made  # type: ignore[no-any-return]
