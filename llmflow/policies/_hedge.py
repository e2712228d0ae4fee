"""Hedge: a second request beside one that is slow."""

from __future__ import annotations

import re
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from llmflow.errors import DefinitionError
from llmflow.messages import Sent
from llmflow.policies._pace import Pace
from llmflow.policies._race import start_race
from llmflow.policies._racing import Rules
from llmflow.policy import Band, Duration, Options, RequestLayer, Site, check_count, check_seconds

if TYPE_CHECKING:
    from llmflow.messages import Reply, Request

__all__ = ["Hedge"]

_PERCENTILE = re.compile(r"p([5-9]\d)")


@dataclass(frozen=True, slots=True)
class Hedge(Options):
    """Sends a request a second time when the first one is slow, and takes whichever answers first.

    The time counts from when the request was sent: waiting for a budget, a rate limit or a place does not make it slow.
    The other one is cancelled and waited for. A failure is no answer: the other request is waited for, and when none
    answers the failure of the first one leaves.

    A second request is sent only where budgets, limits and the circuit breaker admit it without waiting, for at most one
    in ten requests (ten may be saved up), and not while more than half of the latest 20 were slow. Requests that are
    streamed are not doubled.

    Args:
        after: When a request is slow: `"p50"` to `"p99"`, a percentile of the latest 256 latencies of this step and model,
            which is known after 20 of them; or a duration.
        max: How many more requests there may be, each after the same time again.
    """

    after: Duration = "p95"
    max: int = 1

    band: ClassVar[Band] = Band.HEDGE

    def __post_init__(self) -> None:
        check_count(self.max, name="Hedge: max")
        after: object = self.after
        if isinstance(after, str) and after.strip().startswith("p"):
            if not _PERCENTILE.fullmatch(after):
                msg = (
                    f"Hedge: after is {after!r}, expected a percentile from 'p50' to 'p99', or a duration such as '2s'"
                )
                raise DefinitionError(msg)
        else:
            object.__setattr__(self, "after", check_seconds(self.after, name="Hedge: after"))

    def wrap(self, proceed: RequestLayer, site: Site, /) -> RequestLayer:
        """Return `proceed` with a second request beside it when it is slow."""
        model, monotonic = site.model, site.clock.monotonic
        pace = site.shared(("hedge", site.step, model.connection, model.name, self), lambda: self._pace(site))

        def contest(request: Request) -> Coroutine[Any, Any, Reply] | None:
            return another(request) if monotonic() < request.deadline and pace.take() else None

        rules = Rules(self.max, contest)

        async def hedge(request: Request) -> Reply:
            delay = pace.delay
            race = None
            if delay is not None and request.sink is None:
                race = start_race(request, delay, rules)
            if race is None:
                return await unhedged(request)
            reply = await race.run(proceed(request.marked(race)))
            # One that was overtaken took at least so long. Left out, the slow ones would be missing from the percentile,
            # which would fall and make ever more of them slow.
            if race.at is not None and not race.failed:
                pace.note(monotonic() - race.at)
            return reply

        async def unhedged(request: Request) -> Reply:
            attempts = request.call.attempts
            before = len(attempts)
            reply = await proceed(request)
            if request.sink is None and len(attempts) > before:
                pace.note(attempts[-1].latency_s)
            return reply

        async def another(request: Request) -> Reply:
            sent = Sent()
            try:
                return await proceed(request.marked(sent, hedge=True))
            finally:
                if sent.at is None:
                    pace.give_back()

        return hedge

    def _pace(self, site: Site) -> Pace:
        after = self.after
        if isinstance(after, str):
            return Pace(site.model.name, site.step, percent=int(after[1:]))
        return Pace(site.model.name, site.step, seconds=cast("float", after))  # since __post_init__
