"""Retry: ask again when the failure is one that passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, TypeAlias, cast

from llmflow.errors import DefinitionError, StepError
from llmflow.events import RetryScheduled
from llmflow.policies._retry_bucket import RetryBucket
from llmflow.policy import Band, Duration, Options, RequestLayer, Site, check_count, check_seconds

if TYPE_CHECKING:
    from random import Random

    from llmflow.messages import Reply, Request

__all__ = ["On", "Retry", "check_on", "matches"]

On: TypeAlias = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]
"""Which failures: an exception class, several, or a function that says so."""

_DOUBLINGS = 64
"""More than any wait needs; without a limit the power of two overflows at attempt 1,025."""


@dataclass(frozen=True, slots=True)
class Retry(Options):
    """Sends a request again after a transient failure: no connection, a time-out, 408, 429, 5xx.

    The wait before try n is drawn from 0 to `min(wait_max, wait_initial * 2**(n-1))` ("full jitter",
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), so that callers who failed together
    do not come back together. What the provider asks for with Retry-After is waited at least. There is no wait after
    the last try, and none that would outlast the deadline: then the failure leaves at once.

    A provider that is down is not asked three times as often: all steps that ask one model over one connection share a
    bucket of 40 retries, each answer puts a fifth of one back, and when it is empty a failure leaves at once.

    Args:
        attempts: Tries of one ask in all, the first one included.
        wait_initial: Upper end of the first wait, in seconds or as text such as `"500ms"`.
        wait_max: Upper end of any wait.
        retry_after_max: The longest Retry-After that is waited for; a longer one ends the tries.
        on: Further failures to retry, as exception types or a function of the exception. Required on a task.
        throttle: Whether retries count against the bucket of their connection. Those of a task never do.
    """

    attempts: int = 3
    wait_initial: Duration = 0.5
    wait_max: Duration = 20.0
    retry_after_max: Duration = 60.0
    on: On | None = None
    throttle: bool = True

    band: ClassVar[Band] = Band.RETRY

    def __post_init__(self) -> None:
        check_count(self.attempts, name="Retry: attempts")
        for name in ("wait_initial", "wait_max", "retry_after_max"):
            object.__setattr__(self, name, check_seconds(getattr(self, name), name=f"Retry: {name}", zero=True))
        check_on(self.on, "Retry")
        if not isinstance(self.throttle, bool):
            msg = f"Retry: throttle is {self.throttle!r}, expected True or False"
            raise DefinitionError(msg)

    def wrap(self, proceed: RequestLayer, site: Site, /) -> RequestLayer:
        """Return `proceed` with retries round it."""
        clock, random = site.clock, site.random
        last = self.attempts
        bucket = self._bucket(site)

        async def retry(request: Request) -> Reply:
            while True:
                try:
                    reply = await proceed(request)
                except Exception as error:
                    if request.attempt >= last or not self._passes(error):
                        raise
                    wait = self._wait(error, request.attempt, random)
                    if wait is None or clock.monotonic() + wait >= request.deadline:
                        raise
                    if bucket is not None and not bucket.take():
                        _throttled(request, error)
                        raise
                    _announce(site, request, wait, error)
                else:
                    if bucket is not None:
                        bucket.deposit()
                    return reply
                await clock.sleep(wait)
                request = replace(request, attempt=request.attempt + 1)

        return retry

    def _bucket(self, site: Site) -> RetryBucket | None:
        """Return what pays for retries; tasks have none, as what they reach is not known to be one and the same."""
        model = site.model
        if not self.throttle or self.attempts == 1 or model.provider == "task":
            return None
        return site.shared(("retries", model.connection, model.name), lambda: RetryBucket(model))

    def _passes(self, error: Exception) -> bool:
        """Whether trying again may help."""
        return (isinstance(error, StepError) and error.retryable) or matches(self.on, error)

    def _wait(self, error: Exception, attempt: int, random: Random) -> float | None:
        """Return the seconds to wait, None when the provider asks for more than anybody would."""
        asked: float | None = getattr(error, "retry_after", None)
        if asked is None or not 0.0 <= asked < float("inf"):  # a model that is a function may say anything
            longest, first = cast("float", self.wait_max), cast("float", self.wait_initial)  # since __post_init__
            return random.uniform(0.0, min(longest, first * 2.0 ** min(attempt - 1, _DOUBLINGS)))
        if asked > cast("float", self.retry_after_max):
            return None
        # A floor, with enough spread that callers who were told the same do not all come back in the same instant.
        return asked + random.uniform(0.0, min(0.25 * asked + 0.25, 5.0))


def _throttled(request: Request, error: Exception) -> None:
    request.call.throttled += 1
    error.add_note(
        f"Not retried: too many of the requests to {request.model.name} were retries already. "
        f"Retry(throttle=False) lifts that limit."
    )


def _announce(site: Site, request: Request, wait: float, error: Exception) -> None:
    if not site.listens(RetryScheduled):
        return
    call = request.call
    site.emit(
        RetryScheduled(
            run_id=call.run_id,
            call_id=call.call_id,
            step=call.step,
            model=request.model.name,
            attempt=request.attempt,
            wait_s=wait,
            error=error,
        )
    )


def check_on(on: object, policy: str) -> None:
    """Refuse an `on=` that is neither exception types nor a function."""
    kinds = cast("tuple[object, ...]", on) if isinstance(on, tuple) else (on,)
    if on is None or all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        return
    if isinstance(on, tuple | type) or not callable(on):
        msg = f"{policy}: on is {on!r}, expected exception types or a function of the exception"
        raise DefinitionError(msg)


def matches(on: On | None, error: BaseException) -> bool:
    """Whether `error` is one that `on` names."""
    if on is None:
        return False
    if isinstance(on, type | tuple):
        return isinstance(error, on)
    return bool(on(error))
