"""A pot of a rate limit: its window, and the line of those who wait for it.

Nobody who waits here holds anything that another one needs: a request that stands in line has a place in the limits
further out, and a place is a point in time that passes by itself. So requests that pass several limits, in whatever
order, wait only for time and for what is given back, and never for each other.

Whoever comes by lets through all whose turn it is (`_advance`), on behalf of any thread and event loop: a waiter at the
head whose loop is busy does not hold up the others, and one whose loop has died is left out.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from llmflow.backend import Wakeup, alarm
from llmflow.errors import RateLimitTimeout
from llmflow.policies._rate_window import Entry, Plan, Window

if TYPE_CHECKING:
    from llmflow.policies._rate_limiter import Limiter

__all__ = ["Pot"]

_REPLAN_AFTER = 0.25
"""Seconds for which the turns that were told are not told anew: that costs as much as the line is long."""
_LATE = 0.05
"""Seconds after which one who is not at the head looks whether those before are alive."""


class _Waiter:
    """One who stands in line."""

    __slots__ = ("admitted", "alarm_at", "deadline", "entry", "left", "refused", "turn", "wakeup")

    def __init__(self, entry: Entry, turn: float, deadline: float) -> None:
        self.entry = entry
        self.turn = turn
        self.deadline = deadline
        self.alarm_at = min(turn, deadline)
        self.wakeup = Wakeup()
        self.admitted = False
        self.refused = False
        self.left = False


class Pot:
    """So many requests and tokens in any window, first come first served, for any number of threads and loops."""

    __slots__ = ("_limiter", "_line", "_lock", "_plan", "_signals", "_stale", "now", "waiting", "window")

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._lock = limiter.lock
        self._signals = limiter.signals
        self._line: deque[_Waiter] = deque()
        self._plan: Plan | None = None
        self._stale = False
        self.window = Window(limiter.max_requests, limiter.max_tokens, limiter.window)
        self.waiting = 0
        self.now = float("-inf")
        """The latest point of the clock that was seen; threads may come with theirs in another order."""

    # -- coming in -----------------------------------------------------------------------------------------------------

    def take_nowait(self, now: float, tokens: int) -> Entry | None:
        """Let a request through if it fits and nobody waits."""
        with self._lock:
            if self.waiting:
                return None
            if now < self.now:
                now = self.now
            else:
                self.now = now
            return self._admit(Entry(tokens), now)

    async def take(self, tokens: int, deadline: float, *, hedge: bool) -> Entry:
        """Wait for a turn.

        Raises:
            RateLimitTimeout: When it would come after the deadline, or never; at once, and not after waiting.
        """
        waiter = self._line_up(tokens, deadline, hedge=hedge)
        try:
            while not waiter.admitted:
                with alarm(waiter.alarm_at - self._limiter.monotonic()):
                    await waiter.wakeup.wait()
                self._look(waiter)
        except BaseException:
            self._step_out(waiter)
            raise
        return waiter.entry

    def _admit(self, entry: Entry, now: float) -> Entry | None:
        """Let a request through if it fits; on the path of every request, so nothing here is a call that need not be."""
        window, signals, tokens = self.window, self._signals, entry.tokens
        log = window.log
        if log and log[0].leaves <= now:
            window.expire(now)
        if window.requests >= window.max_requests or window.tokens + tokens > window.max_tokens:
            return None
        if now < signals.until:
            if signals.ready(now, tokens, signals.requests_left, signals.tokens_left) > now:
                return None
            signals.requests_left -= 1
            signals.tokens_left -= tokens
        signals.admitted = entry.number = signals.admitted + 1
        signals.reserved = entry.reserved = signals.reserved + tokens
        entry.leaves = now + window.per
        window.requests += 1
        window.tokens += tokens
        log.append(entry)
        return entry

    def _line_up(self, tokens: int, deadline: float, *, hedge: bool) -> _Waiter:
        with self._lock:
            now = self._tick()
            self._advance(now)
            waiter = _Waiter(Entry(tokens), now, deadline)
            if not self.waiting and self._admit(waiter.entry, now):  # given back since `take_nowait`
                waiter.admitted = True
                return waiter
            waiter.turn = self._turn_of_next(tokens, now, deadline)
            if hedge or waiter.turn >= deadline:
                raise self._too_late(waiter, now, hedge=hedge)
            waiter.alarm_at = min(waiter.turn + _LATE, deadline) if self.waiting else waiter.turn
            if self._plan is not None:
                self._plan.place(waiter.entry, waiter.turn)
            self._line.append(waiter)
            self.waiting += 1
            return waiter

    def _turn_of_next(self, tokens: int, now: float, deadline: float) -> float:
        """Return when one who joins the line now would be let through."""
        if not self.waiting:
            signals = self._signals
            due = self.window.due(tokens, now)
            return signals.ready(due, tokens, signals.requests_left, signals.tokens_left)
        plan = self._plan or self._replan(now)
        turn = plan.turn(tokens, now)
        if turn >= deadline and self._stale and now - plan.made >= self.window.per / 100:
            turn = self._replan(now).turn(tokens, now)  # what was given back may let it in after all
        return turn

    def _replan(self, now: float) -> Plan:
        """Tell everybody in line their turn anew."""
        plan = self._plan = Plan(self.window, self._signals, now)
        self._stale = False
        for waiter in self._line:
            if not waiter.left:
                waiter.turn = plan.turn(waiter.entry.tokens, now)
                plan.place(waiter.entry, waiter.turn)
        return plan

    # -- waiting -------------------------------------------------------------------------------------------------------

    def _look(self, waiter: _Waiter) -> None:
        """See, after waking up, whether it is one's turn; if not, prepare to wait again."""
        with self._lock:
            if waiter.admitted:
                return
            now = self._tick()
            if not waiter.refused and (waiter is self._line[0] or now >= waiter.turn + _LATE):
                self._advance(now)
                if waiter.admitted:
                    return
            if waiter.refused or now >= waiter.deadline:
                raise self._too_late(waiter, now)
            self._prepare(waiter, now)

    def _prepare(self, waiter: _Waiter, now: float) -> None:
        """Set the alarm anew: for the head when its turn is, for the others a little later.

        Each is let through by the one before it; were they all to look at the same instant, some would overtake others.
        """
        waiter.wakeup = Wakeup()
        head = self._line[0]
        if waiter is head:
            waiter.alarm_at = min(waiter.turn, waiter.deadline)
            return
        if waiter.turn <= now:  # those before are late
            if now >= waiter.turn + _LATE and (self._plan is None or now - self._plan.made >= _REPLAN_AFTER):
                self._replan(now)
            waiter.turn = max(waiter.turn, now, head.turn)
        waiter.alarm_at = min(waiter.turn + _LATE, waiter.deadline)

    def _advance(self, now: float) -> None:
        """Let through all whose turn it is, and see to it that the next one wakes up in time."""
        line = self._line
        while line:
            head = line[0]
            if head.left:
                line.popleft()
            elif self._admit(head.entry, now):
                line.popleft()
                self.waiting -= 1
                head.admitted = True
                if not head.wakeup.set():  # its loop is gone
                    self._forget(head.entry)
            elif self._wake_in_time(head, now):
                return
            else:
                line.popleft()
                self._leave_line(head)
        self._plan = None

    def _wake_in_time(self, head: _Waiter, now: float) -> bool:
        """Tell the head when its turn is; False when nobody is there to be told."""
        signals, tokens = self._signals, head.entry.tokens
        head.turn = signals.ready(self.window.due(tokens, now), tokens, signals.requests_left, signals.tokens_left)
        return head.turn >= head.alarm_at or head.wakeup.set()

    # -- leaving -------------------------------------------------------------------------------------------------------

    def _step_out(self, waiter: _Waiter) -> None:
        """Leave the line; a turn that was given in the same moment goes to the next."""
        with self._lock:
            if waiter.admitted:
                self._forget(waiter.entry)
            elif not waiter.left:
                self._leave_line(waiter)
            self._advance(self._tick())

    def _leave_line(self, waiter: _Waiter) -> None:
        waiter.left = True
        self.waiting -= 1
        waiter.entry.counted = False
        self._given_back(waiter.entry, 1, waiter.entry.tokens)

    def _forget(self, entry: Entry) -> None:
        """Take back a request that was not sent."""
        self._signals.refund(entry)
        if entry.counted and not entry.gone:
            self.window.remove(entry)
            self._given_back(entry, 1, entry.tokens)

    def _given_back(self, entry: Entry, requests: int, tokens: int) -> None:
        if self._plan is not None:
            self._plan.give_back(entry, requests, tokens)
            self._stale = True

    def refuse_hopeless(self, now: float) -> None:
        """Refuse who waits for what the provider will not give before the deadline, so that it can go elsewhere."""
        signals = self._signals
        for waiter in self._line:
            ready = signals.ready(now, waiter.entry.tokens, signals.requests_left, signals.tokens_left)
            if not waiter.left and ready >= waiter.deadline:
                waiter.turn, waiter.refused = ready, True
                self._leave_line(waiter)
                waiter.wakeup.set()
        self._plan = None  # all turns are later now

    # -- afterwards: the caller holds the lock -------------------------------------------------------------------------

    def never_sent(self, entry: Entry) -> None:
        """Give everything back."""
        self._forget(entry)

    def used(self, entry: Entry, tokens: int) -> None:
        """Correct an estimate by what was really used."""
        if entry.gone or not entry.counted or tokens == entry.tokens:
            return
        self._given_back(entry, 0, entry.tokens - tokens)
        self.window.change(entry, tokens)

    def advance(self) -> None:
        """Let through whose turn it is."""
        if self.waiting:
            self._advance(self._tick())

    def clear(self) -> None:
        """Forget what was sent; who waits is let through as if nothing had been."""
        self.window.clear()
        self._plan = None
        self.advance()

    def _tick(self) -> float:
        self.now = max(self.now, self._limiter.monotonic())
        return self.now

    def _too_late(self, waiter: _Waiter, now: float, *, hedge: bool = False) -> RateLimitTimeout:
        wait = waiter.turn - now
        who = self._limiter.label
        if hedge:
            msg = f"{who} is used up, and a second request beside a slow one does not wait"
        elif now >= waiter.deadline:
            msg = f"the deadline passed while waiting for {who}; {self.waiting} requests wait"
        else:
            msg = f"{who} would let the request through in {wait:.3g} s, after its deadline in {waiter.deadline - now:.3g} s"
        error = RateLimitTimeout(msg)
        error.retry_after = max(wait, 0.0)
        return error
