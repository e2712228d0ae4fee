"""Every error llmflow raises, in one tree.

```text
LLMFlowError
├── DefinitionError                 (also ValueError) wrong authoring, raised before any request
│   └── PluginDefinitionError       (also PluginError)
├── PluginError
│   ├── PluginDefinitionError       a plugin could not be loaded or registered
│   └── PluginCallError             (also StepError) a plugin's policy or provider broke a call
└── StepError                       a step could not give its answer
    ├── ProviderError               the provider, or the way to it, failed
    │   ├── RateLimited             429, with `retry_after`
    │   ├── ProviderTimeout         (also TimeoutError) one attempt took longer than its Timeout
    │   ├── ProviderUnavailable     no connection, a broken reply, 5xx
    │   ├── AuthenticationFailed    401, 403
    │   ├── ContextTooLong          the prompt does not fit the model
    │   ├── QuotaExceeded           the account has no credit left
    │   └── BadRequest              any other 4xx
    ├── InvalidOutput               the answer does not fit the step's return type
    │   ├── Truncated               the answer was cut at `max_tokens`
    │   ├── Refused                 the model declined
    │   └── ContentFiltered         the provider withheld the answer
    ├── Rejected                    llmflow itself refused to send
    │   ├── BudgetExceeded
    │   ├── CircuitOpen
    │   ├── RateLimitTimeout        (also TimeoutError)
    │   └── QueueFull
    ├── DeadlineExceeded            (also TimeoutError) the whole call took longer than its Deadline
    ├── FallbackExhausted           every model failed; `causes` holds each failure
    ├── RunConflict                 a run id was used again with other inputs, or what it recorded has changed
    └── JournalUnavailable          a run with an id cannot be recorded
```

What the policies do with an error is said by its class, in four attributes: `retryable` (Retry sends again),
`reaskable` (Repair asks again), `falls_back` (Fallback takes the next model) and `trips_breaker` (the circuit
breaker counts it). An instance may override `retryable`, as a provider does that answers `x-should-retry: false`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from llmflow.messages import Attempt, Reply

__all__ = [
    "AuthenticationFailed",
    "BadRequest",
    "BudgetExceeded",
    "CircuitOpen",
    "ContentFiltered",
    "ContextTooLong",
    "DeadlineExceeded",
    "DefinitionError",
    "FallbackExhausted",
    "InvalidOutput",
    "JournalUnavailable",
    "LLMFlowError",
    "PluginCallError",
    "PluginDefinitionError",
    "PluginError",
    "ProviderError",
    "ProviderTimeout",
    "ProviderUnavailable",
    "QueueFull",
    "QuotaExceeded",
    "RateLimitTimeout",
    "RateLimited",
    "Refused",
    "Rejected",
    "RunConflict",
    "StepError",
    "Truncated",
]


class LLMFlowError(Exception):
    """Base of every error llmflow raises."""


class DefinitionError(LLMFlowError, ValueError):
    """A step, flow, policy or runtime is written wrongly; fix the code, no request was sent."""


class PluginError(LLMFlowError):
    """A plugin misbehaved; `plugin` names its distribution."""

    plugin: str = ""


class PluginDefinitionError(PluginError, DefinitionError):
    """A plugin could not be loaded or registered."""

    def __init__(self, message: str, *, plugin: str = "") -> None:
        super().__init__(message)
        self.plugin = plugin


class StepError(LLMFlowError):
    """A step could not give its answer; catch this to handle any failure of a call.

    Attributes:
        message: What went wrong, without the step's name that `str()` puts before it.
        step: Name of the step that failed, None before the call knew it.
        run_id: The run it belonged to.
        attempts: Every physical request of the call, in order.
        cost_usd: What the call cost although it failed, None when unknown.
        status: HTTP status of the last reply, None without one.
        retryable: Whether sending the same request again may help.
        others: Failures of sibling branches that came after this one.
    """

    retryable: bool = False
    reaskable: bool = False
    falls_back: bool = False
    trips_breaker: bool = False
    sent: bool = True
    """False when it is certain that no request reached the provider, so that nothing can have been billed."""

    def __init__(self, message: str, *, status: int | None = None, retryable: bool | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.step: str | None = None
        self.run_id: str | None = None
        self.attempts: Sequence[Attempt] = ()
        self.cost_usd: Decimal | None = None
        self.status = status
        self.others: Sequence[BaseException] = ()
        if retryable is not None:
            self.retryable = retryable

    @property
    def kind(self) -> str:
        """The class name, as it is counted in statistics."""
        return type(self).__name__


class PluginCallError(PluginError, StepError):
    """A plugin's policy or provider raised something that is not an llmflow error."""

    def __init__(self, message: str, *, plugin: str = "") -> None:
        StepError.__init__(self, message)
        self.plugin = plugin


class ProviderError(StepError):
    """The provider, or the way to it, failed.

    Attributes:
        provider: The provider's name, such as `openai`.
        model: The model that was asked.
        headers: What the reply's headers say about rate limits, names in lower case; None without any.
    """

    falls_back = True
    headers: Mapping[str, str] | None = None

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        model: str | None = None,
        status: int | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status=status, retryable=retryable)
        self.provider = provider
        self.model = model
        self.retry_after = retry_after
        """Seconds the provider asked to wait, None when it did not say or said nonsense."""


class RateLimited(ProviderError):
    """The provider answered 429; `retry_after` says how long it asked to wait."""

    retryable = True


class ProviderTimeout(ProviderError, TimeoutError):
    """One attempt took longer than its `Timeout`, or was cut so that a fallback still has time (`cut`)."""

    retryable = True
    trips_breaker = True

    def __init__(
        self, message: str, *, cut: bool = False, provider: str | None = None, model: str | None = None
    ) -> None:
        super().__init__(message, provider=provider, model=model)
        self.cut = cut
        if cut:
            # Not the provider's fault: the call's deadline left it less than its Timeout.
            self.trips_breaker = False


class ProviderUnavailable(ProviderError):
    """No connection, a reply that is not a reply, or a 5xx."""

    retryable = True
    trips_breaker = True


class AuthenticationFailed(ProviderError):
    """The provider refused the credentials (401, 403)."""


class ContextTooLong(ProviderError):
    """The prompt and the answer do not fit into the model's context window."""


class QuotaExceeded(ProviderError):
    """The account's credit or quota is used up; waiting does not help."""


class BadRequest(ProviderError):
    """The provider refused the request itself (4xx); another model would too."""

    falls_back = False


class InvalidOutput(StepError):
    """The answer does not fit the step's return type or one of its checks.

    Attributes:
        text: The answer as the model gave it, or as much of it as arrived. It is never part of the message.
        problems: What is wrong with it, one line each, without the values.
        reply: The reply it came in, None when the value did not come from a model.
    """

    reaskable = True
    falls_back = True

    def __init__(self, message: str, *, text: str | None = None, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.text = text
        self.problems = tuple(problems)
        self.reply: Reply | None = None


class Truncated(InvalidOutput):
    """The answer was cut at the token limit; raise `max_tokens` in `params`."""

    reaskable = False


class Refused(InvalidOutput):
    """The model declined to answer; `text` holds what it said."""

    reaskable = False


class ContentFiltered(InvalidOutput):
    """The provider withheld the answer for its content."""

    reaskable = False


class Rejected(StepError):
    """llmflow itself refused to send the request; nothing was spent."""

    falls_back = True
    sent = False


class BudgetExceeded(Rejected):
    """A budget cannot pay for the request.

    Attributes:
        budget: Name of the budget, None before a budget said it.
        unit: What it counts: `usd`, `tokens` or `calls`.
        asked: The worst case of the request, in that unit.
        left: What the budget has left, in that unit.
    """

    budget: str | None = None
    unit: str | None = None
    asked: Decimal | None = None
    left: Decimal | None = None


class CircuitOpen(Rejected):
    """The provider failed too often and is being left alone for a while."""

    retry_after: float | None = None
    """Seconds until it is tried again, None when a trial is under way."""


class RateLimitTimeout(Rejected, TimeoutError):
    """The request's turn in a rate limit would come after its deadline."""

    retry_after: float | None = None
    """Seconds until its turn would have come, None when it can never come."""


class QueueFull(Rejected):
    """Too many requests wait for the same connection."""


class DeadlineExceeded(StepError, TimeoutError):
    """The whole call, retries and waits included, took longer than its `Deadline`."""


class FallbackExhausted(StepError):
    """Every model of the step failed; `causes` holds one error for each, in the order they were asked."""

    def __init__(self, message: str, *, causes: Sequence[StepError] = ()) -> None:
        super().__init__(message)
        self.causes = tuple(causes)


class RunConflict(StepError):
    """A run cannot be taken up: its id was used with other inputs, or what it recorded is not what would be asked now."""

    sent = False


class JournalUnavailable(StepError):
    """A run with an id was not begun, or not gone on with, as the journal cannot be read or written."""

    sent = False
