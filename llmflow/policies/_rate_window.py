"""What was let through within the last so many seconds: an exact sliding window, and when its next place is free."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmflow.policies._rate_signals import Signals

__all__ = ["Entry", "Plan", "Window"]

_GHOSTS_KEPT = 64


class Entry:
    """One request that was let through, or waits to be.

    Attributes:
        leaves: When it leaves the window; for one that waits, when it is expected to.
        tokens: What it holds: the estimate, later what was really used.
        counted: False for one that was never sent, or that left the line.
        gone: Whether it has left the window.
        number: How many were let through up to it, in all pots of the limit.
        reserved: How many tokens they reserved.
    """

    __slots__ = ("counted", "dropped_by", "gone", "leaves", "number", "reserved", "tokens")

    leaves: float
    number: int
    reserved: int
    dropped_by: object
    """The plan in which it has left already."""

    def __init__(
        self, tokens: int
    ) -> None:  # made for every request; what is set when it is let through is not set here
        self.tokens = tokens
        self.counted = True
        self.gone = False
        self.dropped_by = None


class Window:
    """At most so many requests, and so many tokens, in any window of `per` seconds; nobody waits here."""

    __slots__ = ("_ghosts", "log", "max_requests", "max_tokens", "per", "requests", "tokens")

    def __init__(self, max_requests: float, max_tokens: float, per: float) -> None:
        self.max_requests = max_requests
        self.max_tokens = max_tokens
        self.per = per
        self.requests = 0
        self.tokens = 0
        self.log: deque[Entry] = deque()
        self._ghosts = 0

    def expire(self, now: float) -> None:
        """Drop what has left; each entry is dropped once, so this costs the same however long the window is."""
        log = self.log
        while log and log[0].leaves <= now:
            gone = log.popleft()
            gone.gone = True
            if gone.counted:
                self.requests -= 1
                self.tokens -= gone.tokens
            else:
                self._ghosts -= 1

    def change(self, entry: Entry, tokens: int) -> None:
        """Correct what a request that has not left holds."""
        self.tokens += tokens - entry.tokens
        entry.tokens = tokens

    def remove(self, entry: Entry) -> None:
        """Forget a request that has not left and was never sent."""
        entry.counted = False
        self.requests -= 1
        self.tokens -= entry.tokens
        self._ghosts += 1
        log = self.log
        while log and not log[-1].counted:
            log.pop()
            self._ghosts -= 1
        if self._ghosts > _GHOSTS_KEPT and self._ghosts * 2 > len(log):  # so that they never outnumber the rest
            self.log = deque(one for one in log if one.counted)
            self._ghosts = 0

    def clear(self) -> None:
        """Forget everything."""
        self.expire(float("inf"))

    def held(self, now: float) -> tuple[int, int]:
        """Return the requests and tokens in the window, without touching it."""
        held = [one.tokens for one in self.log if one.counted and one.leaves > now]
        return len(held), sum(held)

    def due(self, tokens: int, now: float) -> float:
        """Return when a request would fit if nobody else came."""
        requests, held, at = self.requests, self.tokens, now
        for entry in self.log:
            if requests < self.max_requests and held + tokens <= self.max_tokens:
                break
            if entry.counted:
                requests -= 1
                held -= entry.tokens
                at = max(at, entry.leaves)
        return at


class Plan:
    """The same window as it will be when everybody in line has been let through: it says when the next one's turn is.

    It shares the entries of the window and of the line, and knows which of them have left in its future, so that what
    is given back later can be taken out of its sums. The turns it has told stay as they were: a give-back makes the real
    ones earlier, never later.
    """

    __slots__ = ("_at", "_log", "_signals", "_window", "made", "requests", "requests_left", "tokens", "tokens_left")

    def __init__(self, window: Window, signals: Signals, now: float) -> None:
        self._window = window
        self._signals = signals
        self._log = window.log.copy()
        self.requests = window.requests
        self.tokens = window.tokens
        self.requests_left = signals.requests_left
        self.tokens_left = signals.tokens_left
        self._at = self.made = now

    def turn(self, tokens: int, now: float) -> float:
        """Return when a request that joins the line now would be let through."""
        window = self._window
        requests, held, at = self.requests, self.tokens, max(self._at, now)
        for entry in self._log:
            fits = requests < window.max_requests and held + tokens <= window.max_tokens
            if fits and entry.leaves > at:
                break
            if entry.counted:
                requests -= 1
                held -= entry.tokens
                at = max(at, entry.leaves)
        return self._signals.ready(at, tokens, self.requests_left, self.tokens_left)

    def place(self, entry: Entry, turn: float) -> None:
        """Put a request into line, at the turn that was told."""
        log = self._log
        while log and log[0].leaves <= turn:
            gone = log.popleft()
            gone.dropped_by = self
            if gone.counted:
                self.requests -= 1
                self.tokens -= gone.tokens
        entry.leaves = turn + self._window.per
        self._at = turn
        self.requests += 1
        self.tokens += entry.tokens
        self.requests_left -= 1
        self.tokens_left -= entry.tokens
        log.append(entry)

    def give_back(self, entry: Entry, requests: int, tokens: int) -> None:
        """Take out of the sums what an entry, or a part of it, held."""
        if entry.dropped_by is not self:
            self.requests -= requests
            self.tokens -= tokens
