"""The pots of one budget: which of them a request pays from, by period and key."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from llmflow.context import caller
from llmflow.errors import BudgetExceeded, DefinitionError
from llmflow.policies._pot import UNLIMITED, Pot, Terms
from llmflow.policy import State
from llmflow.prices import dollars

if TYPE_CHECKING:
    from llmflow.context import Run
    from llmflow.messages import Request
    from llmflow.policies._purse import Purse

__all__ = ["MOST_KEYS", "Fund", "Key", "period_of_day", "period_of_month"]

Key: TypeAlias = "Callable[[Request], str]"

DAY = 86_400.0
MOST_KEYS = 100_000
"""Keys with a pot of their own at a time; one more is refused, as to forget one would be to let it spend again."""
_FIRST_SWEEP = 1_000


def period_of_day(now: float) -> tuple[float, float]:
    """Return when the day of `now` begins and ends, in UTC."""
    start = now // DAY * DAY
    return start, start + DAY


def period_of_month(now: float) -> tuple[float, float]:
    """Return when the month of `now` begins and ends, in UTC."""
    start = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (start + timedelta(days=32)).replace(day=1)
    return start.timestamp(), following.timestamp()


class Fund:
    """One budget of a runtime: its caps and its pots.

    The pot of a call or run lives with that call or run, those of days, months and `total` live here.
    """

    __slots__ = ("_declared", "_key", "_lock", "_make", "_pots", "_purse", "_sweep_at", "_time", "only", "terms")

    def __init__(
        self, terms: Terms, key: str | Key | None, purse: Purse, time: Callable[[], float], *, declared: str = ""
    ) -> None:
        self.terms = terms
        self._declared = declared
        self._key = key
        self._purse = purse
        self._time = time
        self._make = partial(Pot, terms)
        self._pots: dict[str | None, Pot] = {}
        self.only = Pot(terms, now=time()) if key is None and terms.per not in ("call", "run") else None
        """The pot that every request pays from, None when that depends on the request."""
        self._sweep_at = _FIRST_SWEEP
        self._lock = threading.Lock()

    def pot(self, request: Request) -> Pot:
        """Return the pot that a request pays from."""
        if self.only is not None:
            return self.only
        per, call = self.terms.per, request.call
        if per in ("call", "run"):
            owner = call if per == "call" or call.run is None else call.run
            key = None if self._key is None else self._key_of(request)
            make = self._make if key is None else partial(self._make, key)
            if per == "run" and call.run is not None and call.run.spent:
                make = partial(self._taken_up, call.run, make)
            return owner.shared(self if self._key is None else (self, key), make)
        key = self._key_of(request)
        return self._pots.get(key) or self._add(key)

    def _taken_up(self, run: Run, make: Callable[[], Pot]) -> Pot:
        """Return the pot of a run that is taken up again: what its earlier tries have spent is spent.

        Which requests of them paid from this budget is known only where it stands on a step. Anywhere else all are
        counted, which is too many where it stands on a flow inside, and never too few.
        """
        pot = make()
        step = self._declared.removeprefix("step:") if self._declared.startswith("step:") else None
        for name, (usd, tokens, calls) in run.spent.items():
            if step in (None, name):
                pot.usd, pot.tokens, pot.calls = pot.usd + usd, pot.tokens + tokens, pot.calls + calls
        return pot

    def _key_of(self, request: Request) -> str | None:
        if self._key == "tenant":
            return caller.get().tenant
        assert callable(self._key)
        key = self._key(request)
        if not isinstance(key, str):
            msg = f"Budget {self.terms.name!r}: key returned {key!r} for step {request.call.step!r}, expected a str"
            raise DefinitionError(msg)
        return key

    def _add(self, key: str | None) -> Pot:
        with self._lock:
            if len(self._pots) >= self._sweep_at and self.terms.per != "total":
                self._sweep()
            if key not in self._pots:
                if len(self._pots) >= MOST_KEYS:
                    raise self._crowded(key)
                self._pots[key] = self._make(key, self._time())
            return self._pots[key]

    def _sweep(self) -> None:
        """Forget the pots of periods that are over: those for a day, as another thread may just have looked one up."""
        now = self._time()
        kept = {key: pot for key, pot in self._pots.items() if not pot.idle or now < pot.until + DAY}
        self._pots = kept
        self._sweep_at = max(_FIRST_SWEEP, min(2 * len(kept), MOST_KEYS))

    def _crowded(self, key: str | None) -> BudgetExceeded:
        error = BudgetExceeded(
            f"budget {self.terms.name!r} keeps {MOST_KEYS:,} keys already, and {key!r} would be one more"
        )
        error.budget = self.terms.name
        return error

    def state(self) -> State | None:
        """Return caps and sums of the pots that live here; those of calls and runs go with them."""
        terms = self.terms
        if terms.per in ("call", "run"):
            return None
        pots = [*self._pots.values()] if self.only is None else [self.only]
        sums = self._purse.sums(pots)
        values: dict[str, object] = {"per": terms.per, "waiting": sums["waiting"]}
        if self._key is not None:
            values["keys"] = len(pots)
        for unit, cap in (("usd", terms.usd), ("tokens", terms.tokens), ("calls", terms.calls)):
            if cap != UNLIMITED:
                convert = dollars if unit == "usd" else int
                values[unit] = convert(cap)
                values[f"{unit}_settled"] = convert(sums[unit])
                values[f"{unit}_reserved"] = convert(sums[f"held_{unit}"])
        return State(kind="budget", name=terms.name, values=values)
