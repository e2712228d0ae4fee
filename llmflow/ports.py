"""The ports: what the core needs from outside, each of one to three methods."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from llmflow.messages import OutputFormat, Reply, Request
    from llmflow.models import Model

__all__ = ["CacheStore", "Clock", "Kept", "Provider", "Send"]

Send: TypeAlias = "Callable[[Request], Awaitable[Reply]]"
"""Sends one request and returns the reply, or raises a `ProviderError`. It never retries and never sleeps."""


class Clock(Protocol):
    """Where time comes from; inject another one to test without waiting."""

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back."""
        ...

    def time(self) -> float:
        """Seconds since the epoch, on the wall clock."""
        ...

    async def sleep(self, seconds: float, /) -> None:
        """Wait; cancellable."""
        ...


class Provider(Protocol):
    """A way to reach models: an SDK, an HTTP service, an engine in the process."""

    def connect(self, model: Model, output: OutputFormat, /) -> Send:
        """Return the function that sends this step's requests; called once for each step and model when it is bound.

        Whatever depends only on the model and the output format, such as the schema part of the body, is built here.
        Nothing is sent, and credentials are only looked up at the first request.
        """
        ...

    async def aclose(self) -> None:
        """Close what is open on the running event loop."""
        ...


class Kept(NamedTuple):
    """What a `CacheStore` holds under a key."""

    entry: bytes
    """JSON, as it was given to `put`."""
    age: float
    """Seconds since then, on the store's own clock; never less than have really passed."""


class CacheStore(Protocol):
    """Where accepted answers are kept. None of its methods raises: what cannot be read is a miss, and said once."""

    async def get(self, key: str, /) -> Kept | None:
        """Return what was kept under `key`, None when there is nothing or it cannot be read."""
        ...

    async def put(self, key: str, entry: bytes, /, *, seconds: float) -> None:
        """Keep `entry` under `key` for at most so many seconds; the entry is JSON, encoded as UTF-8."""
        ...

    async def aclose(self) -> None:
        """Write what is waiting to be written, and close what is open."""
        ...
