"""What a call took, and whose failure it was."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from llmflow.errors import DeadlineExceeded, FallbackExhausted, LLMFlowError, ProviderTimeout, StepError
from llmflow.messages import Attempt, CallScope, Usage
from llmflow.prices import total

__all__ = ["annotate", "explained", "say_where", "total_cost", "total_usage"]

_NOTHING = Decimal(0)


def total_usage(attempts: Sequence[Attempt]) -> Usage | None:
    """Add up what the attempts used, None when none of them said."""
    if len(attempts) == 1:
        return attempts[0].usage
    known = [one.usage for one in attempts if one.usage is not None]
    return sum(known[1:], known[0]) if known else None


def total_cost(attempts: Sequence[Attempt]) -> Decimal | None:
    """Add up what the attempts cost, None as soon as one is unknown; where nothing was sent, nothing was paid."""
    if len(attempts) == 1:
        return attempts[0].cost_usd
    if not attempts:
        return _NOTHING
    return total(one.cost_usd for one in attempts)


def annotate(error: StepError, step: str, run_id: str, attempts: Sequence[Attempt], *, again: bool = False) -> None:
    """Tell a failure which call it ended, unless a call further in has done so.

    Args:
        error: The failure.
        step: Name of the step.
        run_id: The run.
        attempts: What was sent.
        again: Whether this call is the innermost for certain: a model that is a function may raise one object twice.
    """
    if error.step is not None and not again:
        return
    error.step = step
    error.run_id = run_id
    error.attempts = tuple(attempts)
    error.cost_usd = total_cost(attempts)
    error.args = (f"step {step!r}: {error.message}", *error.args[1:])
    for cause in error.causes if isinstance(error, FallbackExhausted) else ():
        cause.step, cause.run_id = step, run_id


def explained(exc: BaseException, call: CallScope, latency: float) -> BaseException:
    """Return what to raise for what ended a call, saying which call it was."""
    if isinstance(exc, StepError):
        failure = _overdue(exc, latency)
        annotate(failure, call.step, call.run_id, call.attempts, again=True)
        return failure
    if isinstance(exc, Exception) and not isinstance(exc, LLMFlowError):
        say_where(exc, f"raised in a call of step {call.step!r}")
    return exc


def _overdue(error: StepError, latency: float) -> StepError:
    """Return what to raise: a request that was cut because the call's time was up is the deadline's failure."""
    last = error.causes[-1] if isinstance(error, FallbackExhausted) and error.causes else error
    if isinstance(last, ProviderTimeout) and last.cut:
        return DeadlineExceeded(f"no answer after {latency:.3g} s, when its deadline passed")
    return error


def say_where(exc: Exception, note: str) -> None:
    if note not in getattr(exc, "__notes__", ()):
        exc.add_note(note)
