"""The table of DESIGN 2.3: what Retry, Repair, Fallback and the breaker do about every error, in exact requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from llmflow import Fallback, FallbackExhausted, Repair, Reply, Retry, errors, prompt, step
from llmflow.testing._scripted import scripted

AFTER_RETRIES, AFTER_REASKS, AT_ONCE, NEVER = "after retries", "after re-asks", "at once", "never"


@dataclass(frozen=True)
class Row:
    """One line of the table: the failure, and what is done about it."""

    label: str
    failure: Any
    kind: type[errors.StepError]
    falls_back: str
    trips_breaker: bool = False

    @property
    def primary_requests(self) -> int:
        """Requests the first model gets with three attempts and two re-asks."""
        return 3 if self.falls_back in (AFTER_RETRIES, AFTER_REASKS) else 1


def raising(kind: type[errors.StepError], **options: Any) -> Any:
    """Return a script entry that raises a fresh error for every request."""

    def fail(_: object) -> None:
        raise kind("scripted", **options)

    return fail


def finishing(reason: Any) -> Any:
    return Reply(text="4", finish_reason=reason)


TABLE = [
    Row(
        "no connection",
        raising(errors.ProviderUnavailable),
        errors.ProviderUnavailable,
        AFTER_RETRIES,
        trips_breaker=True,
    ),
    Row(
        "408",
        raising(errors.ProviderUnavailable, status=408),
        errors.ProviderUnavailable,
        AFTER_RETRIES,
        trips_breaker=True,
    ),
    Row(
        "500",
        raising(errors.ProviderUnavailable, status=500),
        errors.ProviderUnavailable,
        AFTER_RETRIES,
        trips_breaker=True,
    ),
    Row(
        "529",
        raising(errors.ProviderUnavailable, status=529),
        errors.ProviderUnavailable,
        AFTER_RETRIES,
        trips_breaker=True,
    ),
    Row("timeout", raising(errors.ProviderTimeout), errors.ProviderTimeout, AFTER_RETRIES, trips_breaker=True),
    Row(
        "x-should-retry: false",
        raising(errors.ProviderUnavailable, retryable=False),
        errors.ProviderUnavailable,
        AT_ONCE,
        trips_breaker=True,
    ),
    Row("429", raising(errors.RateLimited), errors.RateLimited, AFTER_RETRIES),
    Row("429 short", raising(errors.RateLimited, retry_after=1.0), errors.RateLimited, AFTER_RETRIES),
    Row("429 long", raising(errors.RateLimited, retry_after=3600.0), errors.RateLimited, AT_ONCE),
    Row(
        "503 long",
        raising(errors.ProviderUnavailable, retry_after=3600.0),
        errors.ProviderUnavailable,
        AT_ONCE,
        trips_breaker=True,
    ),
    Row("quota", raising(errors.QuotaExceeded), errors.QuotaExceeded, AT_ONCE),
    Row("open breaker", raising(errors.CircuitOpen), errors.CircuitOpen, AT_ONCE),
    Row("limiter", raising(errors.RateLimitTimeout), errors.RateLimitTimeout, AT_ONCE),
    Row("queue", raising(errors.QueueFull), errors.QueueFull, AT_ONCE),
    Row("context", raising(errors.ContextTooLong), errors.ContextTooLong, AT_ONCE),
    Row("401", raising(errors.AuthenticationFailed), errors.AuthenticationFailed, AT_ONCE),
    Row("budget", raising(errors.BudgetExceeded), errors.BudgetExceeded, AT_ONCE),
    Row("invalid", "no number", errors.InvalidOutput, AFTER_REASKS),
    Row("no answer", Reply(text=None), errors.InvalidOutput, AFTER_REASKS),
    Row("truncated", finishing("length"), errors.Truncated, AT_ONCE),
    Row("refused", finishing("refusal"), errors.Refused, AT_ONCE),
    Row("filtered", finishing("content_filter"), errors.ContentFiltered, AT_ONCE),
    Row("400", raising(errors.BadRequest), errors.BadRequest, NEVER),
    Row("deadline", raising(errors.DeadlineExceeded), errors.DeadlineExceeded, NEVER),
    Row("plugin", raising(errors.PluginCallError), errors.PluginCallError, NEVER),
    Row("run conflict", raising(errors.RunConflict), errors.RunConflict, NEVER),
    Row("no journal", raising(errors.JournalUnavailable), errors.JournalUnavailable, NEVER),
]

rows = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.label)


def answering(primary: Any, fallback: Any) -> Any:
    """Return a step that asks one model and then the other."""

    @step(primary, Fallback(fallback), Retry(3), Repair(2))
    def count(word: str) -> int:
        return prompt(f"How many letters has {word}?")

    return count


@rows
@pytest.mark.anyio
async def test_requests_of_each_model(row):
    """Each error costs exactly the requests that can help, and goes on to the next model exactly when the table says."""
    primary, fallback = scripted(default=row.failure), scripted(default="4")
    count = answering(primary, fallback)

    if row.falls_back == NEVER:
        with pytest.raises(row.kind):
            await count("word")
    else:
        assert 4 == await count("word")

    assert (row.primary_requests, int(row.falls_back != NEVER)) == (len(primary.requests), len(fallback.requests))


@rows
@pytest.mark.anyio
async def test_the_next_model_is_asked_without_a_wait(row, now):
    """Nothing is slept away before the first request of the next model, unless retries or a long answer came before."""
    primary, fallback = scripted(default=row.failure), scripted(default="4")
    started = now()

    if row.falls_back == NEVER:
        with pytest.raises(row.kind):
            await answering(primary, fallback)("word")
        assert started == now()
        return
    await answering(primary, fallback)("word")

    assert primary.asked_at[-1] == fallback.asked_at[0]
    assert (row.falls_back == AFTER_RETRIES) == (fallback.asked_at[0] > started)


@rows
@pytest.mark.anyio
async def test_without_a_fallback_the_error_leaves_as_itself(row):
    """With one model the caller gets the failure itself, complete."""
    primary = scripted(default=row.failure)

    @step(primary)
    def count(word: str) -> int:
        return prompt(f"How many letters has {word}?")

    with pytest.raises(errors.StepError) as caught:
        await count("word")

    error = caught.value
    assert row.kind is type(error)
    assert ("count", row.primary_requests) == (error.step, len(error.attempts))
    assert error.run_id


@pytest.mark.parametrize("row", [row for row in TABLE if row.falls_back != NEVER], ids=lambda row: row.label)
@pytest.mark.anyio
async def test_when_every_model_fails_one_error_holds_every_cause(row):
    """R9: all failed is one error, with a cause for each model in the order they were asked."""
    count = answering(scripted(default=row.failure), scripted(default=row.failure))

    with pytest.raises(FallbackExhausted) as caught:
        await count("word")

    assert [row.kind, row.kind] == [type(cause) for cause in caught.value.causes]
    assert caught.value.__cause__ is caught.value.causes[-1]
    assert 2 * row.primary_requests == len(caught.value.attempts)


@rows
def test_what_the_breaker_counts(row):
    """Failures of the provider are held against it; what is the caller's own or a matter of taste is not."""
    assert row.trips_breaker == row.kind.trips_breaker


def test_every_error_of_a_call_is_in_the_table():
    """A new error class has to say what the policies do about it."""
    concrete = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.StepError)}
    bases = {errors.StepError, errors.ProviderError, errors.Rejected, errors.FallbackExhausted}

    assert {row.kind for row in TABLE} == concrete - bases


def test_an_attempt_that_was_cut_is_not_held_against_the_provider():
    """A model that had less time than its timeout did not fail."""
    assert not errors.ProviderTimeout("cut", cut=True).trips_breaker
