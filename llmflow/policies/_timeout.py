"""Timeout: the wall-clock limit of one attempt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from llmflow.backend import Alarms, alarm
from llmflow.errors import DefinitionError, ProviderTimeout
from llmflow.policy import Band, Duration, Options, RequestLayer, Site, check_seconds

if TYPE_CHECKING:
    from llmflow.messages import Chunk, Reply, Request, Sink
    from llmflow.ports import Clock

__all__ = ["Timeout"]


@dataclass(frozen=True, slots=True)
class Timeout(Options):
    """Ends one attempt after so many seconds of wall clock, however the provider spends them.

    A reply that drips in byte by byte is ended like one that never comes. Waiting in a limiter or a queue is not
    counted, it counts against the `Deadline`. Where the deadline leaves less than the timeout, the attempt is cut
    there; that is recorded as `cut` and not held against the provider.

    While an answer is streamed, the clock stands still for as long as its reader keeps the provider waiting; the
    deadline goes on.

    Args:
        seconds: Of one attempt: seconds, a timedelta, or text such as `"30s"`.
        first_token: Until the first piece of a streamed answer; not longer than `seconds`. Without `.stream()` it has
            no effect.
    """

    seconds: Duration = 60.0
    first_token: Duration | None = None

    band: ClassVar[Band] = Band.TIMEOUT

    def __post_init__(self) -> None:
        whole = check_seconds(self.seconds, name="Timeout: seconds")
        object.__setattr__(self, "seconds", whole)
        if self.first_token is None:
            return
        first = check_seconds(self.first_token, name="Timeout: first_token")
        if first > whole:
            msg = f"Timeout: first_token is {first:g} s, longer than the {whole:g} s of the whole attempt"
            raise DefinitionError(msg)
        object.__setattr__(self, "first_token", first)

    def wrap(self, proceed: RequestLayer, site: Site, /) -> RequestLayer:
        """Return `proceed` with a timer round it."""
        clock, model = site.clock, site.model
        limit = float(self.seconds)  # type: ignore[arg-type]  # seconds, since __post_init__
        first_token = limit if self.first_token is None else float(self.first_token)  # type: ignore[arg-type]  # same

        alarms = Alarms(limit)

        async def timeout(request: Request) -> Reply:
            if request.sink is not None:
                return await streamed(request, request.sink)
            left = request.deadline - clock.monotonic()
            if left >= limit:
                with alarms.start():
                    return await proceed(request)
                raise _too_late(model.name, model.provider, limit, cut=False)
            with alarm(left):
                return await proceed(request)
            raise _too_late(model.name, model.provider, left, cut=True)

        async def streamed(request: Request, sink: Sink) -> Reply:
            pace = _Pace(sink, clock, request.deadline, limit, first_token)
            with pace.bell:
                return await proceed(replace(request, sink=pace.put))
            raise pace.error(model.name, model.provider)

        return timeout


class _Pace:
    """The clock of one streamed attempt, which runs while the provider is waited for."""

    __slots__ = ("_clock", "_deadline", "_limit", "_patience", "_sink", "_spent", "_started", "bell")

    def __init__(self, sink: Sink, clock: Clock, deadline: float, limit: float, first_token: float) -> None:
        self._sink = sink
        self._clock = clock
        self._deadline = deadline
        self._limit = limit
        self._patience = first_token
        """Seconds that may be spent up to the next piece: those to the first one, then those of the whole attempt."""
        self._spent = 0.0
        self._started = clock.monotonic()
        self.bell = alarm(min(first_token, deadline - self._started))

    async def put(self, chunk: Chunk) -> None:
        """Pass a piece on, with the clock stopped; the deadline's stays."""
        now = self._clock.monotonic()
        self._spent += now - self._started
        self._patience = self._limit
        self.bell.move(self._deadline - now)
        try:
            await self._sink(chunk)
        finally:
            now = self._started = self._clock.monotonic()
            self.bell.move(min(self._limit - self._spent, self._deadline - now))

    def error(self, model: str, provider: str) -> ProviderTimeout:
        """Return what to raise once the bell has rung."""
        now = self._clock.monotonic()
        spent = self._spent + now - self._started
        if now >= self._deadline and spent < self._patience:
            return _too_late(model, provider, spent, cut=True)
        if self._patience < self._limit:
            msg = f"no first token from {model} within {self._patience:.3g} s"
            return ProviderTimeout(msg, provider=provider, model=model)
        return _too_late(model, provider, self._limit, cut=False)


def _too_late(model: str, provider: str, seconds: float, *, cut: bool) -> ProviderTimeout:
    if provider == "task":
        msg = f"not done within {seconds:.3g} s"
    elif cut:
        msg = f"no reply from {model} within the {seconds:.3g} s that its deadline left"
    else:
        msg = f"no reply from {model} within {seconds:.3g} s"
    return ProviderTimeout(msg, cut=cut, provider=provider, model=model)
