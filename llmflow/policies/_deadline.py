"""Deadline: one point in time for a whole call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from llmflow.backend import Alarms
from llmflow.errors import DeadlineExceeded
from llmflow.policies._timeout import Timeout
from llmflow.policy import Band, CallLayer, Duration, Options, Site, check_seconds

if TYPE_CHECKING:
    from llmflow.messages import Answer, Ask

__all__ = ["Deadline"]


@dataclass(frozen=True, slots=True)
class Deadline(Options):
    """Ends a call, with all its retries, waits, re-asks and fallbacks, after so many seconds.

    On a step it is the limit of each call, on a flow the limit of the whole run, for each item when it is mapped.
    The earliest of those that apply decides, and every wait inside is cut to what is left.

    Args:
        seconds: Of the whole call: seconds, a timedelta, or text such as `"5m"`.
    """

    seconds: Duration = 300.0

    band: ClassVar[Band] = Band.DEADLINE
    stacking: ClassVar[Literal["nearest", "all"]] = "all"

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", check_seconds(self.seconds, name="Deadline: seconds"))

    def wrap(self, proceed: CallLayer, site: Site, /) -> CallLayer:
        """Return `proceed` with the deadline round it."""
        clock = site.clock
        limit = float(self.seconds)  # type: ignore[arg-type]  # seconds, since __post_init__
        alarms = Alarms(limit)

        async def deadline(ask: Ask) -> Answer:
            ends = clock.monotonic() + limit
            if ends >= ask.deadline:  # one around this is earlier, and its alarm is set already
                return await proceed(ask)
            with alarms.start():
                return await proceed(ask.until(ends))
            msg = f"no answer within its deadline of {limit:.3g} s"
            raise DeadlineExceeded(msg)

        async def kept_inside(ask: Ask) -> Answer:
            ends = clock.monotonic() + limit
            return await proceed(ask.until(ends) if ends < ask.deadline else ask)

        return kept_inside if _all_waits_are_bounded(site) else deadline


def _all_waits_are_bounded(site: Site) -> bool:
    """Whether everything inside ends by the ask's deadline of itself, so that no alarm of its own is needed.

    llmflow's own policies cut each wait to what is left, and `Timeout` cuts the request; a policy of somebody else
    may wait for anything.
    """
    return any(isinstance(one, Timeout) for one in site.policies) and all(
        type(one).__module__.startswith("llmflow.") for one in site.policies
    )
