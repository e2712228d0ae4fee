"""Timeout: the wall-clock limit of one attempt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from llmflow.backend import Alarms, alarm
from llmflow.errors import ProviderTimeout
from llmflow.policy import Band, Duration, Options, RequestLayer, Site, check_seconds

if TYPE_CHECKING:
    from llmflow.messages import Reply, Request

__all__ = ["Timeout"]


@dataclass(frozen=True, slots=True)
class Timeout(Options):
    """Ends one attempt after so many seconds of wall clock, however the provider spends them.

    A reply that drips in byte by byte is ended like one that never comes. Waiting in a limiter or a queue is not
    counted, it counts against the `Deadline`. Where the deadline leaves less than the timeout, the attempt is cut
    there; that is recorded as `cut` and not held against the provider.

    Args:
        seconds: Of one attempt: seconds, a timedelta, or text such as `"30s"`.
    """

    seconds: Duration = 60.0

    band: ClassVar[Band] = Band.TIMEOUT

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", check_seconds(self.seconds, name="Timeout: seconds"))

    def wrap(self, proceed: RequestLayer, site: Site, /) -> RequestLayer:
        """Return `proceed` with a timer round it."""
        clock, model = site.clock, site.model
        limit = float(self.seconds)  # type: ignore[arg-type]  # seconds, since __post_init__

        alarms = Alarms(limit)

        async def timeout(request: Request) -> Reply:
            left = request.deadline - clock.monotonic()
            if left >= limit:
                with alarms.start():
                    return await proceed(request)
                raise _too_late(model.name, model.provider, limit, cut=False)
            with alarm(left):
                return await proceed(request)
            raise _too_late(model.name, model.provider, left, cut=True)

        return timeout


def _too_late(model: str, provider: str, seconds: float, *, cut: bool) -> ProviderTimeout:
    if provider == "task":
        msg = f"not done within {seconds:.3g} s"
    elif cut:
        msg = f"no reply from {model} within the {seconds:.3g} s that its deadline left"
    else:
        msg = f"no reply from {model} within {seconds:.3g} s"
    return ProviderTimeout(msg, cut=cut, provider=provider, model=model)
