"""The one place of a runtime where something is taken out of the pots of budgets, or put back."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from llmflow.backend import Wakeup, alarm
from llmflow.policies._pot import Short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from llmflow.policies._pot import Pot

__all__ = ["Claim", "Purse"]


class Claim:
    """One request's claim on its pots, while it waits for them.

    Attributes:
        held: Whether it was granted.
        short: Why it never will be.
    """

    __slots__ = ("held", "pots", "short", "tokens", "usd", "wakeup")

    def __init__(self, pots: Sequence[Pot], usd: int, tokens: int) -> None:
        self.pots, self.usd, self.tokens = pots, usd, tokens
        self.wakeup = Wakeup()
        self.held = False
        self.short: Short | None = None

    def missing(self, *, held: bool) -> Short | None:
        """Return what the first pot that cannot pay lacks."""
        for pot in self.pots:
            if (short := pot.short(self.usd, self.tokens, held=held)) is not None:
                return short
        return None

    def hold(self) -> None:
        """Reserve on every pot."""
        self.held = True
        for pot in self.pots:
            pot.hold(self.usd, self.tokens)

    def give_up(self) -> None:
        """Give back what was reserved, or leave the lines."""
        for pot in self.pots:
            if self.held:
                pot.give_back(self.usd, self.tokens)
            else:
                pot.line.pop(self, None)
        self.held = False


class Purse:
    """Reserves on all pots of a request or on none, in one critical section, and settles what was spent.

    Each pot has a line. A claim stands in the lines of all its pots, and is served when it is the first in all of them:
    so requests that share a pot are served in the order they came, others do not wait for each other, and as everybody
    holds either all or nothing no two can wait for each other. One lock for all pots of a runtime: what happens under it
    takes a microsecond.

    Args:
        time: Returns seconds since the epoch, for pots with periods.
    """

    __slots__ = ("_abandoned", "_lock", "_time")

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._lock = threading.Lock()
        self._abandoned: deque[Callable[[], list[Claim] | None]] = deque()

    def take(self, pots: Sequence[Pot], usd: int, tokens: int) -> bool:
        """Reserve the worst case of one request if it fits into every pot and nobody waits there."""
        with self._lock:
            for pot in pots:
                if (
                    pot.usd + pot.held_usd + usd > pot.cap_usd
                    or pot.tokens + pot.held_tokens + tokens > pot.cap_tokens
                    or pot.calls + pot.held_calls >= pot.cap_calls
                    or pot.line
                    or (pot.timed and not pot.since <= self._time() < pot.until)
                ):
                    return False
            for pot in pots:
                pot.held_usd += usd
                pot.held_tokens += tokens
                pot.held_calls += 1
            return True

    def settle(self, pots: Sequence[Pot], usd: int, tokens: int, spent: tuple[int, int, int]) -> None:
        """Give a reservation back and charge what was spent; whoever can be served then, or never will be, is woken."""
        with self._lock:
            woken = self._settle(pots, usd, tokens, spent)
        if woken:
            self._wake(woken)

    def _settle(self, pots: Sequence[Pot], usd: int, tokens: int, spent: tuple[int, int, int]) -> list[Claim] | None:
        waited_for = False
        spent_usd, spent_tokens, spent_calls = spent
        for pot in pots:
            if pot.timed:
                pot.turn(self._time())
            pot.held_usd -= usd  # inline, not `give_back`: every request comes through here
            pot.held_tokens -= tokens
            pot.held_calls -= 1
            pot.usd += spent_usd
            pot.tokens += spent_tokens
            pot.calls += spent_calls
            if pot.line:
                waited_for = True
        return self._serve(pots) if waited_for else None

    def settle_abandoned(self, pots: Sequence[Pot], usd: int, tokens: int, spent: tuple[int, int, int]) -> None:
        """Settle a request whose coroutine is being thrown away, now or at the next chance."""
        self._later(lambda: self._settle(pots, usd, tokens, spent))

    def _later(self, work: Callable[[], list[Claim] | None]) -> None:
        """Do what needs the lock without waiting for it.

        The garbage collector may throw a coroutine away in the middle of what this very thread does under the lock.
        """
        self._abandoned.append(work)
        if self._lock.acquire(blocking=False):
            try:
                woken = self._catch_up()
            finally:
                self._lock.release()
            self._wake(woken)

    def _catch_up(self) -> list[Claim]:
        woken: list[Claim] = []
        while self._abandoned:
            woken += self._abandoned.popleft()() or ()
        return woken

    def line_up(self, claim: Claim, *, patient: bool) -> Short | None:
        """Reserve, or stand in line: `claim.held` says which. What cannot be paid for is returned.

        Args:
            claim: What is asked for.
            patient: Whether it may wait for what others hold; else it is short of that too.
        """
        with self._lock:
            woken = self._catch_up() + self._serve(claim.pots)
            short = claim.missing(held=False)
            if short is None:
                crowded = next((pot for pot in claim.pots if pot.line), None)
                short = claim.missing(held=True) or (Short(crowded, None) if crowded else None)
                if short is None:
                    claim.hold()
                elif patient:
                    short = None
                    for pot in claim.pots:
                        pot.join(claim)
        self._wake(woken)
        return short

    async def wait(self, claim: Claim, seconds: float) -> bool:
        """Wait until the claim is granted or refused; False when that took more than `seconds`."""
        with alarm(seconds):
            try:
                await claim.wakeup.wait()
            except GeneratorExit:
                self._later(lambda: self._drop(claim))
                raise
            except BaseException:
                self._leave(claim)
                raise
            return True
        return False

    def _leave(self, claim: Claim) -> None:
        """Stop waiting; what was granted in the same instant is given back."""
        with self._lock:
            woken = self._drop(claim)
        self._wake(woken)

    def _drop(self, claim: Claim) -> list[Claim]:
        claim.give_up()
        return self._serve(claim.pots)

    def _serve(self, pots: Iterable[Pot]) -> list[Claim]:
        """Take out of the lines of these pots whoever can be served or never will be, and whom that lets through."""
        woken: list[Claim] = []
        changed = deque(pots)
        while changed:
            pot = changed.popleft()
            pot.turn(self._time() if pot.timed else 0.0)
            while pot.line:
                claim = next(iter(pot.line))
                claim.short = claim.missing(held=False)
                if claim.short is None and (
                    any(next(iter(one.line)) is not claim for one in claim.pots) or claim.missing(held=True)
                ):
                    break
                claim.give_up()  # its places in the lines
                if claim.short is None:
                    claim.hold()
                changed.extend(one for one in claim.pots if one is not pot)
                woken.append(claim)
        return woken

    def _wake(self, woken: list[Claim]) -> None:
        """Tell them, outside of the lock; what was granted to a loop that has ended goes to the next."""
        while woken:
            lost = [claim for claim in woken if not claim.wakeup.set() and claim.held]
            woken = []
            if lost:
                with self._lock:
                    for claim in lost:
                        woken += self._drop(claim)

    def sums(self, pots: Iterable[Pot]) -> dict[str, int]:
        """Return what is settled, held and waited for in all these pots together."""
        names = ("usd", "tokens", "calls", "held_usd", "held_tokens", "held_calls")
        pots = list(pots)
        with self._lock:
            woken = self._catch_up() + self._serve(pots)
            found = {name: sum(getattr(pot, name) for pot in pots) for name in names}
            found["waiting"] = sum(len(pot.line) for pot in pots)
        self._wake(woken)
        return found
