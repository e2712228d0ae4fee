"""What races have in common on both backends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from llmflow.errors import Rejected
from llmflow.messages import Sent
from llmflow.policies._delays import Delays

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from llmflow.messages import Reply, Request

__all__ = ["Racing", "Rules", "mention"]

Contest: TypeAlias = "Callable[[Request], Coroutine[Any, Any, Reply] | None]"


class Rules:
    """What is the same for all races of one step and model.

    Attributes:
        limit: How many others may start.
        contest: Called when it is time for one more request; returns None when there is to be none.
        delays: The timers.
    """

    __slots__ = ("contest", "delays", "limit")

    def __init__(self, limit: int, contest: Contest) -> None:
        self.limit = limit
        self.contest = contest
        self.delays = Delays()


class Racing(Sent):
    """A first request that others may join; it is that request's `Sent`, as the time counts from when it is sent.

    Attributes:
        failed: Whether the first request failed, whoever answered then.
    """

    __slots__ = ("_delay", "_request", "_rules", "failed")

    def __init__(self, request: Request, delay: float, rules: Rules) -> None:
        self.at: float | None = None
        self._request = request
        self._delay = delay
        self._rules = rules
        self.failed = False

    def mark(self, now: float) -> None:
        """Begin to count the time after which another one starts."""
        outer = self._request.sent
        if outer is not None and outer.at is None:  # a policy further out wants to know it too
            outer.mark(now)
        if self.at is None:
            self.at = now
            self._begin()

    def _begin(self) -> None:
        raise NotImplementedError

    async def run(self, first: Awaitable[Reply], /) -> Reply:
        """Return the first answer of all; when nobody has one, raise the failure of `first`.

        Whoever still runs is cancelled and has ended when this returns or raises.
        """
        raise NotImplementedError


def mention(error: Exception, failures: Iterable[BaseException | None]) -> None:
    """Say in the failure of the first that others failed too; that one was refused is no news."""
    for other in failures:
        if other is not None and not isinstance(other, Rejected):
            error.add_note(f"Another request beside it failed too, with {type(other).__name__}: {other}")
