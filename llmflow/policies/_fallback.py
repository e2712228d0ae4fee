"""Fallback: the next model when one fails for good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from llmflow.errors import DeadlineExceeded, DefinitionError, FallbackExhausted, StepError
from llmflow.events import FallbackTaken
from llmflow.models import Model, as_model
from llmflow.policies._retry import On, check_on, matches
from llmflow.policies._timeout import Timeout
from llmflow.policy import Band, CallLayer, Options, Site

if TYPE_CHECKING:
    from llmflow.messages import Answer, Ask

__all__ = ["Fallback"]


@dataclass(frozen=True, slots=True, init=False)
class Fallback(Options):
    """Asks the next model when one has failed for good, in the order they are named.

    A model that is out of quota, not authorised, rate limited for long or behind an open breaker is left at once;
    one that fails transiently after its retries; one whose answer stays invalid after its re-asks. A request that is
    itself wrong (`BadRequest`) fails with every model and is not passed on. While others are left, a model may use
    the call's deadline only up to a share that leaves them time.

    Args:
        *models: What to ask after the step's own model: names or `Model(...)`.
        on: Further failures to fall back on, as exception types or a function of the exception.

    Raises:
        FallbackExhausted: When every model failed, with each failure in `causes`.
    """

    models: tuple[Model, ...]
    on: On | None = None

    band: ClassVar[Band] = Band.FALLBACK

    def __init__(self, *models: Model | str, on: On | None = None) -> None:
        if not models:
            msg = "Fallback() names no model; write Fallback('provider/name')"
            raise DefinitionError(msg)
        check_on(on, "Fallback")
        object.__setattr__(self, "models", tuple(as_model(model) for model in models))
        object.__setattr__(self, "on", on)

    def wrap(self, proceed: CallLayer, site: Site, /) -> CallLayer:
        """Return `proceed` for one model after the other."""
        models, clock = site.models, site.clock
        reserve = _attempt_seconds(site)

        async def fallback(ask: Ask) -> Answer:
            causes: list[StepError] = []
            for left, model in zip(range(len(models) - 1, -1, -1), models, strict=True):
                route = ask.until(_share(ask.deadline, clock.monotonic(), left, reserve), model)
                try:
                    return await proceed(route)
                except Exception as error:
                    if not self._goes_on(error):
                        _mention(error, causes)
                        raise
                    causes.append(error)  # type: ignore[arg-type]  # a user's error that `on` names is a cause too
                    if left and clock.monotonic() >= ask.deadline:
                        msg = f"the deadline passed before {models[-left].name} could be asked"
                        raise DeadlineExceeded(msg) from error
                    if left:
                        _announce(site, ask, model, models[-left], error)
            raise _exhausted(causes) from causes[-1]

        return fallback

    def _goes_on(self, error: Exception) -> bool:
        return (isinstance(error, StepError) and error.falls_back) or matches(self.on, error)


def _mention(error: Exception, causes: list[StepError]) -> None:
    """Say in an error that is not passed on which models had failed before."""
    for cause in causes:
        error.add_note(f"Asked as a fallback, after {type(cause).__name__}: {cause}")


def _attempt_seconds(site: Site) -> float:
    """Return how long one attempt of the step may take at most."""
    timeout = next((one for one in site.policies if isinstance(one, Timeout)), None)
    return float(timeout.seconds) if timeout is not None else float("inf")  # type: ignore[arg-type]  # seconds


def _share(deadline: float, now: float, left: int, attempt_seconds: float) -> float:
    """Return until when a model may be asked, so that each of the `left` others keeps time for one attempt."""
    if left == 0 or deadline == float("inf"):
        return deadline
    remaining = deadline - now
    return now + remaining - left * min(attempt_seconds, remaining / (left + 1))


def _exhausted(causes: list[StepError]) -> FallbackExhausted:
    listed = "; ".join(f"{type(cause).__name__}: {cause}" for cause in causes)
    last = causes[-1]
    error = FallbackExhausted(f"every model failed: {listed}", causes=causes)
    error.status = getattr(last, "status", None)
    return error


def _announce(site: Site, ask: Ask, failed: Model, following: Model, error: Exception) -> None:
    if not site.listens(FallbackTaken):
        return
    call = ask.call
    site.emit(
        FallbackTaken(
            run_id=call.run_id,
            call_id=call.call_id,
            step=call.step,
            from_model=failed.name,
            to_model=following.name,
            error=error,
        )
    )
