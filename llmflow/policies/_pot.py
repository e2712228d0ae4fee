"""What one budget may spend in one period for one key."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from llmflow.policies._purse import Claim

    Unit = Literal["usd", "tokens", "calls"]

__all__ = ["UNLIMITED", "Pot", "Short", "Terms"]

UNLIMITED = 1 << 100
"""A cap that no sum reaches; an integer compares faster with integers than infinity does."""
FOREVER = float("inf")
NOBODY: OrderedDict[Claim, None] = OrderedDict()
"""The line of every pot that nobody has waited for yet: most pots are those of one run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What all pots of a budget have in common; the caps are in nano-dollars, tokens and calls."""

    name: str
    per: str = "total"
    usd: int = UNLIMITED
    tokens: int = UNLIMITED
    calls: int = UNLIMITED
    period: Callable[[float], tuple[float, float]] | None = None
    """Returns when the period of a point of time begins and ends."""


class Pot:
    """What one budget may spend in one period for one key: its caps, what is settled, what is held for requests.

    Money is whole nano-dollars. The pot of a day or month is the same object all the time: when the period is over, what
    was settled is forgotten, and what is held then is settled in the new one.

    Attributes:
        line: The claims that wait for it, first come first.
        timed: Whether it has periods, which `since` and `until` bound in seconds since the epoch.
    """

    __slots__ = (
        "calls",
        "cap_calls",
        "cap_tokens",
        "cap_usd",
        "held_calls",
        "held_tokens",
        "held_usd",
        "key",
        "line",
        "since",
        "terms",
        "timed",
        "tokens",
        "until",
        "usd",
    )

    def __init__(self, terms: Terms, key: str | None = None, now: float = 0.0) -> None:
        self.terms, self.key = terms, key
        # A copy of each cap: every request compares with them.
        self.cap_usd, self.cap_tokens, self.cap_calls = terms.usd, terms.tokens, terms.calls
        self.usd = self.tokens = self.calls = 0
        self.held_usd = self.held_tokens = self.held_calls = 0
        self.line: OrderedDict[Claim, None] = NOBODY
        self.timed = terms.period is not None
        self.since, self.until = (0.0, FOREVER) if terms.period is None else terms.period(now)

    def join(self, claim: Claim) -> None:
        """Stand in line."""
        if self.line is NOBODY:
            self.line = OrderedDict()
        self.line[claim] = None

    @property
    def idle(self) -> bool:
        """Whether nothing is held in it and nobody waits for it."""
        return self.held_calls == 0 and not self.line

    def turn(self, now: float) -> None:
        """Go on to the period of `now`.

        A wall clock that was set back over the start of the period does not give anybody a second budget: both periods
        are one then. Set back further, it was wrong before, and what was settled counts in the period it went back to.
        """
        if self.terms.period is None or self.since <= now < self.until:
            return
        begin, end = self.terms.period(now)
        if now >= self.until:
            self.usd = self.tokens = self.calls = 0
        elif end == self.since:
            end = self.until
        self.since, self.until = begin, end

    def hold(self, usd: int, tokens: int) -> None:
        """Reserve the worst case of a request."""
        self.held_usd += usd
        self.held_tokens += tokens
        self.held_calls += 1

    def give_back(self, usd: int, tokens: int) -> None:
        """Take a reservation back."""
        self.held_usd -= usd
        self.held_tokens -= tokens
        self.held_calls -= 1

    def short(self, usd: int, tokens: int, *, held: bool) -> Short | None:
        """Return what is missing for a request, None when it fits; with `held=False` as if nothing were held."""
        units: tuple[tuple[Unit, int, int, int], ...] = (
            ("usd", usd, self.cap_usd - self.usd, self.held_usd),
            ("tokens", tokens, self.cap_tokens - self.tokens, self.held_tokens),
            ("calls", 1, self.cap_calls - self.calls, self.held_calls),
        )
        for unit, asked, unspent, reserved in units:
            left = unspent - reserved if held else unspent
            if asked > left:
                return Short(self, unit, asked, left)
        return None


@dataclass(frozen=True, slots=True)
class Short:
    """Which pot cannot pay for a request: what was asked and what is left, in nano-dollars for `usd`.

    Without a unit it could pay, but others wait in its line.
    """

    pot: Pot
    unit: Unit | None
    asked: int = 0
    left: int = 0
