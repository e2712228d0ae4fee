"""A model that says what the test tells it to, in the process, without a network."""

from __future__ import annotations

import inspect
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import anyio
from pydantic_core import to_json

from llmflow.backend import monotonic
from llmflow.messages import Chunk, Reply
from llmflow.models import Model

if TYPE_CHECKING:
    from llmflow.messages import Request, Usage
    from llmflow.prices import Price

__all__ = ["ScriptExhausted", "ScriptedModel", "after", "hang", "pieces", "scripted"]


class ScriptExhausted(AssertionError):
    """A scripted model was asked more often than its script has replies."""


@dataclass(frozen=True, slots=True)
class _After:
    seconds: float
    reply: object


def after(seconds: float, reply: object) -> object:
    """Give `reply` after so many seconds; write it in place of the reply itself."""
    return _After(seconds, reply)


def hang() -> object:
    """Never answer; write it in place of a reply."""
    return _After(float("inf"), None)


@dataclass(frozen=True, slots=True)
class _Pieces:
    items: tuple[object, ...]


def pieces(*items: object) -> object:
    """Stream these texts one after the other; write it in place of a reply.

    Among them, `after(seconds, text)` waits first, and an exception (or its class) ends the stream in the middle. A
    call that is not streamed gets the whole text.
    """
    return _Pieces(items)


class ScriptedModel(Model):
    """A model that answers from a script, one entry for each request, and remembers what it was asked.

    ```python
    model = scripted(ProviderUnavailable("503"), '{"category": "bug"}')

    @step(model)
    def triage(message: str) -> Ticket: ...
    ```

    An entry is the answer's text, a `Reply`, an exception (or its class) to raise, anything else that becomes JSON,
    `after(seconds, entry)`, `hang()`, `pieces("a", "b")`, or a function of the request that returns one of these; it may
    be async.

    Args:
        *replies: The script.
        name: What the model is called.
        default: The entry for every request after the script; without it one more request is a `ScriptExhausted`.
        usage: Tokens reported with answers that are not a `Reply`.
        price: Dollars per million tokens.

    Attributes:
        requests: What it was asked, in order.
        asked_at: When each request came, on the clock of the running event loop.
        in_flight: How many requests it is answering now.
        peak: How many it was answering at the same time at most.
    """

    __slots__ = ("_lock", "_script", "_total", "asked_at", "default", "in_flight", "peak", "requests", "usage")

    def __init__(
        self,
        *replies: object,
        name: str = "scripted/model",
        default: object = None,
        usage: Usage | None = None,
        price: Price | None = None,
    ) -> None:
        super().__init__(name, handler=self.answer, price=price)
        self.requests: list[Request] = []
        self.asked_at: list[float] = []
        self.in_flight = 0
        self.peak = 0
        self.default = default
        self.usage = usage
        self._script = deque(replies)
        self._total = len(replies)
        self._lock = threading.Lock()

    def enqueue(self, *replies: object) -> None:
        """Add entries to the script."""
        with self._lock:
            self._script.extend(replies)
            self._total += len(replies)

    @property
    def remaining(self) -> int:
        """How many entries of the script have not been used."""
        return len(self._script)

    async def answer(self, request: Request) -> Reply:
        """Take one request; this is the model's `handler`, and fits `Model("any/name", handler=model.answer)`."""
        entry = self._take(request)
        try:
            return await self._play(entry, request)
        finally:
            with self._lock:
                self.in_flight -= 1

    def _take(self, request: Request) -> object:
        with self._lock:
            self.requests.append(request)
            self.asked_at.append(monotonic())
            if not self._script and self.default is None:
                msg = f"{self.name}: the script has {self._total} replies, and this is request {len(self.requests)}"
                raise ScriptExhausted(msg)
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
            return self._script.popleft() if self._script else self.default

    async def _play(self, entry: object, request: Request) -> Reply:
        if isinstance(entry, _After):
            await _wait(entry.seconds)
            return await self._play(entry.reply, request)
        if isinstance(entry, _Pieces):
            return await self._play(await _tell(entry.items, request), request)
        if _is_error(entry):
            raise entry("scripted") if isinstance(entry, type) else entry
        if isinstance(entry, Reply):
            return entry
        if isinstance(entry, str):
            return Reply(text=entry, usage=self.usage, model=self.model)
        if _is_handler(entry):
            returned = entry(request)
            return await self._play(await returned if inspect.isawaitable(returned) else returned, request)
        return Reply(text=to_json(entry).decode(), usage=self.usage, model=self.model)

    def __repr__(self) -> str:
        return f"ScriptedModel({self.name!r}, requests={len(self.requests)}, remaining={self.remaining})"


async def _tell(items: tuple[object, ...], request: Request) -> str:
    """Stream texts, and return the whole."""
    told: list[str] = []
    for item in items:
        one = item
        while isinstance(one, _After):
            await _wait(one.seconds)
            one = one.reply
        if _is_error(one):
            raise one("scripted") if isinstance(one, type) else one
        told.append(str(one))
        if request.sink is not None:
            await request.sink(Chunk(told[-1], request.attempt))
    return "".join(told)


async def _wait(seconds: float) -> None:
    if seconds == float("inf"):
        await anyio.Event().wait()  # no timer, so that a loop on virtual time sees that nothing will happen
    else:
        await anyio.sleep(seconds)


def _is_error(entry: object) -> TypeGuard[BaseException | type[BaseException]]:
    kind = cast(object, entry) if isinstance(entry, type) else type(entry)
    return isinstance(kind, type) and issubclass(kind, BaseException)


def _is_handler(entry: object) -> TypeGuard[Callable[[Request], object]]:
    """Whether an entry is to be called: a function, or an object such as a partial; classes and data are JSON."""
    return callable(entry) and not isinstance(entry, type)


def scripted(*replies: object, **options: Any) -> ScriptedModel:
    """Return a model that gives these replies, one for each request; see `ScriptedModel`."""
    return ScriptedModel(*replies, **options)
