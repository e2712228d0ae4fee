"""The ports: what the core needs from outside, each of one to three methods."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from llmflow.journal import Claimed, RunOpened
    from llmflow.messages import OutputFormat, Reply, Request
    from llmflow.models import Model

__all__ = ["CacheStore", "Clock", "Journal", "Kept", "Provider", "Send", "Store"]

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


class Store(Protocol):
    """A store that offers several ports, each made when it is asked for; it may have one of the two attributes only."""

    @property
    def cache(self) -> CacheStore:
        """Where accepted answers are kept."""
        ...

    @property
    def journal(self) -> Journal:
        """Where runs are recorded."""
        ...


class Journal(Protocol):
    """Where runs are recorded, so that they can be read, taken up again and played again.

    What it is given is kept in order. What belongs to one node is kept as a whole or not at all: the requests and the
    call that ended with a `NodeClosed` of their node, and that `NodeClosed`.
    """

    async def claim(self, run: RunOpened, /) -> Claimed:
        """Begin a run that has an id of its own, or take up what there is of it, unless somebody else runs it.

        Of several that claim one run at a time, in any process, one gets it. Requests of it that were in flight when its
        process died become `uncertain`.

        Raises:
            StepError: When the journal cannot be read or written.
        """
        ...

    def write(self, note: object, /) -> None:
        """Take note, without waiting; a note is one of `llmflow.journal`, or an event of `llmflow.events`."""
        ...

    async def settled(self) -> None:
        """Return when everything that was written so far survives the end of the process.

        Raises:
            StepError: When it could not be written.
        """
        ...

    async def aclose(self) -> None:
        """Write what is waiting to be written, and close what is open."""
        ...
