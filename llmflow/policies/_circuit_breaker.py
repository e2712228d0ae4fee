"""CircuitBreaker: leave a provider alone that is down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

from llmflow.errors import DefinitionError, StepError
from llmflow.policies._breaker import Breaker
from llmflow.policies._retry import On, check_on, matches
from llmflow.policy import Band, Duration, Options, RequestLayer, Site, check_count, check_seconds

if TYPE_CHECKING:
    from llmflow.messages import Reply, Request

__all__ = ["CircuitBreaker"]


@dataclass(frozen=True, slots=True)
class CircuitBreaker(Options):
    """Stops sending to a model that fails, so that calls fall back or fail at once instead of waiting for it.

    It is closed while things go well. When at least `min_calls` requests ended within the last `window` seconds and
    at least `failure_ratio` of them failed, it opens: requests are refused with `CircuitOpen`, and nothing is sent.
    After `open_for` seconds it is half open: exactly one request, the probe, is let through. Its answer closes the
    breaker, its failure opens it again, and any other end leaves the trial to the next caller.

    What counts as a failure is a provider that cannot be reached, does not answer in time, or answers 408 or 5xx.
    What the caller did (other 4xx, an answer that does not fit, a budget, a cancellation) and rate limits count neither
    way. Each retry and each hedge is a request of its own.

    All steps that ask one model over one connection with the same options share one breaker.

    Args:
        failure_ratio: Which share of the requests must fail, above 0 and at most 1.
        window: For how long an outcome counts.
        min_calls: How many outcomes it takes at least.
        open_for: For how long nothing is sent.
        on: Further failures to count, as exception types or a function of the exception; for tasks, and for models
            that are functions.
    """

    failure_ratio: float = 0.5
    window: Duration = 30.0
    min_calls: int = 10
    open_for: Duration = 30.0
    on: On | None = None

    band: ClassVar[Band] = Band.BREAKER

    def __post_init__(self) -> None:
        ratio: object = self.failure_ratio
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 1:
            msg = f"CircuitBreaker: failure_ratio is {ratio!r}, expected a share above 0 and at most 1"
            raise DefinitionError(msg)
        check_count(self.min_calls, name="CircuitBreaker: min_calls")
        for name in ("window", "open_for"):
            object.__setattr__(self, name, check_seconds(getattr(self, name), name=f"CircuitBreaker: {name}"))
        check_on(self.on, "CircuitBreaker")

    def wrap(self, proceed: RequestLayer, site: Site, /) -> RequestLayer:
        """Return `proceed` behind the breaker of its connection and model."""
        breaker = site.shared(("breaker", site.model.connection, site.model.name, self), lambda: self._make(site))
        succeeded, monotonic = breaker.succeeded, site.clock.monotonic

        async def circuit_breaker(request: Request) -> Reply:
            ticket = breaker.epoch
            if not breaker.closed:
                ticket = breaker.admit(monotonic(), request.deadline, hedge=request.hedge)
            try:
                reply = await proceed(request)
            except BaseException as error:  # a probe comes back whatever ends it, a thrown-away coroutine included
                if isinstance(error, Exception) and self._counts(error):
                    breaker.failed(ticket)
                else:
                    breaker.ended(ticket)
                raise
            succeeded(ticket)
            return reply

        return circuit_breaker

    def _make(self, site: Site) -> Breaker:
        return Breaker(
            site.model,
            failure_ratio=self.failure_ratio,
            window=cast("float", self.window),  # since __post_init__
            min_calls=self.min_calls,
            open_for=cast("float", self.open_for),
            now=site.clock.monotonic,
            emit=site.emit,
        )

    def _counts(self, error: Exception) -> bool:
        """Whether a failure is the provider's."""
        if isinstance(error, StepError):
            return error.trips_breaker or matches(self.on, error)
        # From a task or a model that is a function: what llmflow's own providers translate to errors that count.
        return isinstance(error, ConnectionError | TimeoutError) or matches(self.on, error)
