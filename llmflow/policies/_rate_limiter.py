"""One rate limit on one connection and model: its pots, and what the provider says about its own limits."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from llmflow.errors import ProviderError, RateLimited, RateLimitTimeout, StepError
from llmflow.policies._rate_line import Pot
from llmflow.policies._rate_signals import Remaining, Signals, remaining_in, reset_in
from llmflow.policy import State

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from llmflow.models import Model
    from llmflow.policies._rate_window import Entry
    from llmflow.ports import Clock

__all__ = ["Limiter"]

_ALL = float("inf")
_SWEPT_FROM = 64


class Limiter:
    """The pots of one limit, one for each key. They share a lock, as they share what the provider says."""

    def __init__(
        self,
        *,
        name: str | None,
        model: Model,
        requests: int | None,
        tokens: int | None,
        per: float,
        clock: Clock,
        margin: float = 0.0,
    ) -> None:
        # The model is kept because its connection may be known by the id of a function, which must not be given anew.
        self._model = model
        self._clock = clock
        self._name = name
        self.monotonic = clock.monotonic
        self._counts_requests = requests is not None
        self._counts_tokens = tokens is not None
        self.max_requests = _ALL if requests is None else requests
        self.max_tokens = _ALL if tokens is None else tokens
        self.per = per
        self.window = per + margin
        """How long a request counts. What is sent a window apart may arrive closer together than that."""
        self.lock = threading.Lock()
        self.signals = Signals()
        self._pots: dict[Hashable, Pot] = {}
        self._sweep_at = _SWEPT_FROM
        limits = [f"{n} {unit}" for n, unit in ((requests, "requests"), (tokens, "tokens")) if n is not None]
        called = f" {name!r}" if name else ""
        self.label = f"the rate limit{called} of {' and '.join(limits)} in {per:g} s at {model.name}"

    def pot(self, key: Hashable, now: float) -> Pot:
        """Return the pot of one key."""
        with self.lock:
            pot = self._pots.get(key)
            if pot is None:
                if len(self._pots) >= self._sweep_at:
                    self._sweep(now)
                pot = self._pots[key] = Pot(self)
            pot.now = max(pot.now, now)
            return pot

    def _sweep(self, now: float) -> None:
        """Drop the pots that nobody used for a whole window: there may be a key for each customer."""
        kept = {key: pot for key, pot in self._pots.items() if pot.waiting or pot.now + self.window > now}
        self._pots = kept
        self._sweep_at = max(_SWEPT_FROM, 2 * len(kept))

    def never(self, tokens: int, prompt: int, limit: object) -> RateLimitTimeout:
        """Return the error for a request that is larger than the whole limit."""
        error = RateLimitTimeout(
            f"{self.label} can never let a request of up to {tokens} tokens through: "
            f"about {prompt} of the prompt and max_tokens={limit}"
        )
        error.add_note('Ask for a shorter answer, such as params={"max_tokens": 500}, or shorten the prompt.')
        return error

    # -- what became of a request --------------------------------------------------------------------------------------

    def answered(self, pot: Pot, entry: Entry, tokens: int | None, headers: Mapping[str, str] | None) -> None:
        """Take note of a reply: what it used, and what its headers say."""
        said = remaining_in(headers) if headers else None
        if said is not None and not self._is_less(pot, entry, said):
            said = None
        if tokens is None and said is None and not self.signals.is_on_guard:
            return
        with self.lock:
            if tokens is not None:
                pot.used(entry, tokens)
            self.signals.went_well(entry)
            if said is not None and headers:
                self._hear(pot, entry, said, headers)
            elif pot.waiting:
                pot.advance()

    def _is_less(self, pot: Pot, entry: Entry, said: Remaining) -> bool:
        """Whether the provider has less left than is thought here, or something is believed already.

        Nearly always it is not, so this is asked without the lock; what changes meanwhile the next reply tells again.
        """
        signals, window = self.signals, pot.window
        if pot.now < signals.until:
            return True
        requests, _, tokens, _ = said
        if requests is not None and self._counts_requests:
            left = requests - signals.admitted + entry.number
            if left < window.max_requests - window.requests:
                return True
        if tokens is not None and self._counts_tokens:
            left = tokens - signals.reserved + entry.reserved
            return left < window.max_tokens - window.tokens
        return False

    def failed(self, pot: Pot, entry: Entry, error: BaseException, *, was_sent: bool) -> None:
        """Take note of a failure: what was not sent is given back, what was refused used no tokens.

        Of anything else, a cancelled request or a broken connection, nobody knows what the provider has counted; it
        stays as it was estimated until it leaves the window.
        """
        known = error if isinstance(error, StepError) else None
        with self.lock:
            if not was_sent or (known is not None and not known.sent):
                pot.never_sent(entry)
            elif known is not None and known.status is not None:
                pot.used(entry, 0)
            if isinstance(error, ProviderError):
                self._refused(pot, entry, error)
            else:
                pot.advance()

    def _refused(self, pot: Pot, entry: Entry, error: ProviderError) -> None:
        """Close the door for everybody when the provider asks to wait: one request tells all."""
        asked = error.retry_after
        if asked is not None and not 0 <= asked < _ALL:  # a model that is a function may say anything
            asked = None
        if isinstance(error, RateLimited) or (asked is not None and error.retryable):
            self.signals.close(entry, self.monotonic(), asked)
            self._refuse_hopeless()
        self._hear(pot, entry, remaining_in(error.headers or {}), error.headers or {})

    def _hear(self, pot: Pot, entry: Entry, said: Remaining, headers: Mapping[str, str]) -> None:
        """Believe the provider until the point it names."""
        signals, now = self.signals, self.monotonic()
        if signals.is_news(entry):
            requests, requests_reset, tokens, tokens_reset = said
            was_open = signals.is_open(now)
            # What was sent after this request the provider had not counted yet.
            if requests is not None and self._counts_requests:
                left = requests - signals.admitted + entry.number
                if left < self.max_requests - pot.window.requests or now < signals.requests_until:
                    signals.hear_requests(left, now + self._until(headers, requests_reset))
            if tokens is not None and self._counts_tokens:
                left = tokens - signals.reserved + entry.reserved
                if left < self.max_tokens - pot.window.tokens or now < signals.tokens_until:
                    signals.hear_tokens(left, now + self._until(headers, tokens_reset))
            if was_open and not signals.is_open(now):
                self._refuse_hopeless()
        for one in self._pots.values():
            one.advance()

    def _until(self, headers: Mapping[str, str], reset: str) -> float:
        seconds = reset_in(headers.get(reset), self._clock.time())
        return self.per if seconds is None else seconds

    def _refuse_hopeless(self) -> None:
        now = self.monotonic()
        for pot in self._pots.values():
            if pot.waiting:
                pot.refuse_hopeless(now)

    # -- being watched -------------------------------------------------------------------------------------------------

    def guards(self, model: Model | str | None) -> bool:
        """Whether it is one of this model: by name, by name and connection, or any."""
        return self._model.is_meant_by(model)

    def reset(self) -> None:
        """Forget what was sent and what the provider said."""
        with self.lock:
            self.signals.forget()
            for pot in self._pots.values():
                pot.clear()

    def state(self) -> State:
        """Say what is used, how many wait, and for how long nothing is sent."""
        with self.lock:
            now = self.monotonic()
            pots = tuple(self._pots.values())
            held = [pot.window.held(now) for pot in pots]
            values: dict[str, object] = {"waiting": sum(pot.waiting for pot in pots)}
            if self._counts_requests:
                values |= {"requests": sum(requests for requests, _ in held), "requests_limit": self.max_requests}
            if self._counts_tokens:
                values |= {"tokens": sum(tokens for _, tokens in held), "tokens_limit": self.max_tokens}
            values |= {"per_s": self.per, "closed_for_s": round(max(self.signals.closed_until - now, 0.0), 3)}
            if set(self._pots) - {None}:
                values["keys"] = len(pots)
        return State(kind="rate_limit", name=self._name or self._model.name, values=values)
