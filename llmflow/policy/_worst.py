"""How many requests, dollars and seconds something takes at worst: what a plan is computed with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Protocol, TypeVar, runtime_checkable

__all__ = ["Bounds", "SaysItsWorst"]

N = TypeVar("N", int, Decimal, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What something takes at worst; it may take less, never more.

    Attributes:
        calls: Requests to providers, None when no bound is known.
        usd: Dollars, None when no bound is known.
        seconds: Seconds spent waiting, for providers or between tries; None when no bound is known.
        notes: What was assumed, and why a bound is not known.
    """

    calls: int | None = None
    usd: Decimal | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def nothing(cls) -> Bounds:
        """Return the bounds of what sends nothing and takes no time."""
        return cls(calls=0, usd=Decimal(0), seconds=0.0)

    def times(self, number: int) -> Bounds:
        """Return the bounds of the same, so many times, one after the other."""
        return Bounds(
            calls=_times(self.calls, number),
            usd=_times(self.usd, Decimal(number)),
            seconds=_times(self.seconds, float(number)),
            notes=self.notes,
        )

    def then(self, other: Bounds) -> Bounds:
        """Return the bounds of this and then the other."""
        return Bounds(
            calls=_sum(self.calls, other.calls),
            usd=_sum(self.usd, other.usd),
            seconds=_sum(self.seconds, other.seconds),
            notes=_together(self.notes, other.notes),
        )

    def either(self, other: Bounds) -> Bounds:
        """Return the bounds of one of the two, whichever takes more, for each of the three."""
        return Bounds(
            calls=_most(self.calls, other.calls),
            usd=_most(self.usd, other.usd),
            seconds=_most(self.seconds, other.seconds),
            notes=_together(self.notes, other.notes),
        )

    def lasting(self, seconds: float | None) -> Bounds:
        """Return these bounds with other seconds, None for no known bound."""
        return replace(self, seconds=seconds)

    def at_most(self, *, calls: int | None = None, usd: Decimal | None = None, seconds: float | None = None) -> Bounds:
        """Return these bounds where something ends what goes beyond the limits that are given."""
        return Bounds(
            calls=_least(self.calls, calls),
            usd=_least(self.usd, usd),
            seconds=_least(self.seconds, seconds),
            notes=self.notes,
        )

    def because(self, *notes: str) -> Bounds:
        """Return these bounds with more notes."""
        return replace(self, notes=_together(self.notes, notes))


@runtime_checkable
class SaysItsWorst(Protocol):
    """A policy that knows how much more is sent because of it, so that a plan over it has bounds.

    One that only passes on what it is given, changed or not, need not have the method: the class attribute `sends = 1`
    says the same. `sends = 3` is one that passes on the same at most three times, and waits for nothing itself.
    """

    def worst_case(self, inner: Bounds, /) -> Bounds:
        """Return what is taken at worst with this policy, when what it wraps takes `inner` at worst."""
        ...


def _times(one: N | None, number: N) -> N | None:
    return None if one is None else one * number


def _sum(one: N | None, other: N | None) -> N | None:
    return None if one is None or other is None else one + other


def _most(one: N | None, other: N | None) -> N | None:
    return None if one is None or other is None else max(one, other)


def _least(one: N | None, limit: N | None) -> N | None:
    if one is None or limit is None:
        return limit if one is None else one
    return min(one, limit)


def _together(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*one, *other)))
