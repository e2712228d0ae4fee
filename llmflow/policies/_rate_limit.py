"""RateLimit: so many requests and tokens in any window of time."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, cast

from llmflow.context import caller
from llmflow.errors import DefinitionError
from llmflow.policies._rate_limiter import Limiter
from llmflow.policy import (
    Band,
    Duration,
    Options,
    RequestLayer,
    Site,
    check_count,
    check_key,
    check_name,
    check_seconds,
)
from llmflow.tokens import token_estimator

if TYPE_CHECKING:
    from llmflow.messages import Reply, Request
    from llmflow.policies._rate_line import Pot
    from llmflow.policies._rate_window import Entry
    from llmflow.tokens import TokenEstimator

    Key: TypeAlias = Literal["tenant"] | Callable[[Request], Hashable]

__all__ = ["RateLimit"]

_MARGIN = 0.05
_LONGEST_MARGIN = 0.1
"""Seconds that a request counts longer than the window: the provider counts when it arrives, some earlier, some later."""


@dataclass(frozen=True, slots=True)
class RateLimit(Options):
    """Sends at most so many requests, and so many tokens, in any window of time; the others wait their turn.

    First come first served. A request reserves the tokens it may use at most, its prompt and `max_tokens`; what it did
    not use is given back when its reply is there. A request that is larger than the whole limit, or whose turn would
    come after its deadline, is refused at once with `RateLimitTimeout`.

    The limit learns: when a reply says that less is left than is thought here (`x-ratelimit-*`), that is believed until
    the limit is reset; after a 429 nobody sends until the time in its `Retry-After` is over.

    All steps that ask one model over one connection under the same limit share it.

    Args:
        requests: How many requests in any window.
        tokens: How many tokens in any window, prompts and answers together.
        per: How long the window is.
        key: Counts apart for each `"tenant"` (see `llmflow.context`), or for each value of a function of the request.
        name: Limits of one name are one limit, and must be the same.
    """

    requests: int | None = None
    tokens: int | None = None
    per: Duration = 60.0
    key: Key | None = None
    name: str | None = None

    band: ClassVar[Band] = Band.RATE
    stacking: ClassVar[Literal["nearest", "all"]] = "all"
    per_place: ClassVar[bool] = False
    """The provider counts all requests of a connection, wherever they come from; so one declared twice is one limit."""

    def __post_init__(self) -> None:
        if self.requests is None and self.tokens is None:
            msg = "RateLimit: give requests, tokens or both, such as RateLimit(requests=500, tokens=200_000)"
            raise DefinitionError(msg)
        for name in ("requests", "tokens"):
            if (count := getattr(self, name)) is not None:
                check_count(count, name=f"RateLimit: {name}")
        object.__setattr__(self, "per", check_seconds(self.per, name="RateLimit: per"))
        check_key(self.key, policy="RateLimit")
        check_name(self.name, policy="RateLimit")

    def wrap(self, proceed: RequestLayer, site: Site, /) -> RequestLayer:
        """Return `proceed` behind the limit of its connection and model."""
        limiter, monotonic = self._limiter(site), site.clock.monotonic
        counts_tokens = self.tokens is not None
        estimator = token_estimator(site) if counts_tokens else None
        # Bound outside of any event loop, where the clock may be another one than the requests will come with.
        only = limiter.pot(None, float("-inf")) if self.key is None else None
        signals = limiter.signals

        async def rate_limit(request: Request) -> Reply:
            now = monotonic()
            tokens = 0 if estimator is None else _worst_case(request, estimator, limiter)
            pot = only or limiter.pot(self._key_of(request), now)
            entry = pot.take_nowait(now, tokens)
            if entry is None:
                entry = await _wait(pot, request, tokens, now, monotonic)
            call = request.call
            started = call.started
            try:
                reply = await proceed(request)
            except BaseException as error:  # a thrown-away coroutine included
                # Without a `Sent` nothing runs beside this request in its call, so the count says whether it was sent.
                sent = request.sent
                was_sent = call.started != started if sent is None else sent.at is not None
                limiter.failed(pot, entry, error, was_sent=was_sent)
                raise
            if counts_tokens or reply.headers or signals.is_on_guard:
                used = None if estimator is None else _used(request, reply, estimator)
                limiter.answered(pot, entry, used, reply.headers)
            return reply

        return rate_limit

    def _limiter(self, site: Site) -> Limiter:
        model = site.model
        is_task = model.provider == "task"
        if is_task and self.tokens is not None:
            msg = f"task {site.step!r}: RateLimit(tokens=...) has nothing to count, as a task uses no tokens"
            raise DefinitionError(msg)
        if self.name is not None and (first := site.shared(("rate_limit", self.name), lambda: self)) != self:
            msg = f"two rate limits are called {self.name!r} and differ: {first!r} and {self!r}"
            raise DefinitionError(msg)
        # A name is how tasks say that they reach the same service; a model says it by its connection and its name.
        place = model.connection if is_task and self.name else (model.connection, model.name)
        per = cast("float", self.per)  # since __post_init__
        return site.shared(
            ("rate_limit", self, place),
            lambda: Limiter(
                name=self.name,
                model=model,
                requests=self.requests,
                tokens=self.tokens,
                per=per,
                clock=site.clock,
                margin=min(per * _MARGIN, _LONGEST_MARGIN),
            ),
        )

    def _key_of(self, request: Request) -> Hashable:
        return caller.get().tenant if self.key == "tenant" else cast("Callable[[Request], Hashable]", self.key)(request)


async def _wait(pot: Pot, request: Request, tokens: int, since: float, monotonic: Callable[[], float]) -> Entry:
    try:
        return await pot.take(tokens, request.deadline, hedge=request.hedge)
    finally:
        request.call.waited_s += monotonic() - since


def _worst_case(request: Request, estimator: TokenEstimator, limiter: Limiter) -> int:
    prompt = estimator.estimate(request)
    tokens = prompt + request.params.get("max_tokens", 0)
    if tokens > limiter.max_tokens:
        raise limiter.never(tokens, prompt, request.params.get("max_tokens"))
    return tokens


def _used(request: Request, reply: Reply, estimator: TokenEstimator) -> int | None:
    """Return the tokens a reply was counted with, None when the provider did not say."""
    estimator.learn(request, reply.usage)
    return None if reply.usage is None else reply.usage.total_tokens
