"""Where a policy stands in the onions: one total order, printed by `plan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

__all__ = ["Band"]


@dataclass(frozen=True, slots=True, order=True)
class Band:
    """A place in the onions; a smaller band is further out.

    The call layers, outermost first, are `OBSERVE DEADLINE FALLBACK CACHE REPAIR`; then the answer is parsed; then
    come the request layers `RETRY HEDGE BREAKER BUDGET RATE BULKHEAD TIMEOUT` and the provider. `Band.before(X)` and
    `Band.after(X)` are the places just outside and just inside of X; policies in one band are ordered by the name of
    the distribution they come from.
    """

    rank: int
    offset: int = 0

    OBSERVE: ClassVar[Band]
    DEADLINE: ClassVar[Band]
    FALLBACK: ClassVar[Band]
    CACHE: ClassVar[Band]
    REPAIR: ClassVar[Band]
    RETRY: ClassVar[Band]
    HEDGE: ClassVar[Band]
    BREAKER: ClassVar[Band]
    BUDGET: ClassVar[Band]
    RATE: ClassVar[Band]
    BULKHEAD: ClassVar[Band]
    TIMEOUT: ClassVar[Band]

    @staticmethod
    def before(band: Band, /) -> Band:
        """Return the place just outside of `band`."""
        return Band(band.rank, band.offset - 1)

    @staticmethod
    def after(band: Band, /) -> Band:
        """Return the place just inside of `band`."""
        return Band(band.rank, band.offset + 1)

    @property
    def wraps_calls(self) -> bool:
        """True for the call layers, which see asks and answers; False for the request layers."""
        return self.rank <= _LAST_CALL_RANK

    @property
    def name(self) -> str:
        """`RETRY`, `before RETRY`, `after RETRY`."""
        base = _NAMES[self.rank]
        if self.offset == 0:
            return base
        return f"{'before' if self.offset < 0 else 'after'} {base}"

    def __repr__(self) -> str:
        return f"Band({self.name})"


_NAMES = (
    "OBSERVE",
    "DEADLINE",
    "FALLBACK",
    "CACHE",
    "REPAIR",
    "RETRY",
    "HEDGE",
    "BREAKER",
    "BUDGET",
    "RATE",
    "BULKHEAD",
    "TIMEOUT",
)
_LAST_CALL_RANK = _NAMES.index("REPAIR")
for _rank, _name in enumerate(_NAMES):
    setattr(Band, _name, Band(_rank))
