"""How many retries a connection may still have: what keeps a dead provider from being asked three times as often."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from llmflow.policy import State

if TYPE_CHECKING:
    from llmflow.models import Model

__all__ = ["RetryBucket"]

CAPACITY = 40.0
"""So many callers that fail in the same moment are all retried: a provider that hiccups once is not a dead one."""
DEPOSIT = 0.2
"""What each answer adds. In the long run there is one retry for five answers, and none for a provider that is dead."""


class RetryBucket:
    """A bucket of retries: each answer puts a fifth of one in, each retry takes one out.

    It needs no clock: what a provider can bear is a share of what it is asked, not a number by the minute.
    """

    __slots__ = ("_lock", "_model", "_tokens", "throttled")

    def __init__(self, model: Model) -> None:
        # The model is kept because its connection may be known by the id of a function, which must not be given anew.
        self._model = model
        self._tokens = CAPACITY
        self._lock = threading.Lock()
        self.throttled = 0
        """How many retries were not made."""

    def deposit(self) -> None:
        """Take note of an answer."""
        if self._tokens >= CAPACITY:  # as it is nearly always
            return
        with self._lock:
            self._tokens = min(CAPACITY, self._tokens + DEPOSIT)

    def take(self) -> bool:
        """Pay for a retry; False when there is nothing left to pay with."""
        with self._lock:
            if self._tokens >= 1.0:
                self._tokens -= 1.0
                return True
            self.throttled += 1
            return False

    def guards(self, model: Model | str | None) -> bool:
        """Whether it is one of this model: by name, by name and connection, or any."""
        return self._model.is_meant_by(model)

    def reset(self) -> None:
        """Fill it again."""
        with self._lock:
            self._tokens = CAPACITY

    def state(self) -> State | None:
        """Say how many retries are left, once some were used."""
        left = self._tokens
        if left >= CAPACITY and not self.throttled:
            return None
        return State(
            kind="retries", name=self._model.name, values={"left": round(left, 1), "throttled": self.throttled}
        )
