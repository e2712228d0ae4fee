"""What a policy is, and what it is given when it is wrapped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from random import Random

    from llmflow.messages import Answer, Ask, Reply, Request
    from llmflow.models import Model, Params
    from llmflow.policy._bands import Band
    from llmflow.ports import CacheStore, Clock
    from llmflow.prices import Price

__all__ = ["CallLayer", "Off", "Options", "Policy", "RequestLayer", "Site", "State"]

S = TypeVar("S")

CallLayer: TypeAlias = "Callable[[Ask], Awaitable[Answer]]"
"""What a call policy wraps and returns: `async (Ask) -> Answer`."""
RequestLayer: TypeAlias = "Callable[[Request], Awaitable[Reply]]"
"""What a request policy wraps and returns: `async (Request) -> Reply`."""


@runtime_checkable
class Policy(Protocol):
    """Something that stands between a step and its provider.

    `wrap` is called once, when a step is bound, and returns the function that every call goes through. In the bands
    up to `Band.REPAIR` it wraps `async (Ask) -> Answer`, from `Band.RETRY` on `async (Request) -> Reply`.
    """

    band: ClassVar[Band]

    def wrap(self, proceed: Any, site: Site, /) -> Any:
        """Return a function like `proceed` that does more."""
        ...


class Site(Protocol):
    """Where a policy is being wrapped: what it may know and use."""

    @property
    def step(self) -> str:
        """Name of the step, or of the task."""
        ...

    @property
    def flow(self) -> str | None:
        """Name of the flow the step is bound in, None for a bare step."""
        ...

    @property
    def model(self) -> Model:
        """The model this chain is for. Above `Band.FALLBACK` it is the first one."""
        ...

    @property
    def models(self) -> tuple[Model, ...]:
        """Every model the step may use, in order."""
        ...

    @property
    def policies(self) -> tuple[Any, ...]:
        """Every policy that acts on the step, outermost first."""
        ...

    @property
    def params(self) -> Params:
        """The sampling parameters that every request to this model carries."""
        ...

    @property
    def price(self) -> Price | None:
        """What this model costs, None when nobody knows."""
        ...

    def identity(self) -> str:
        """Return what tells this model's connection from others in a cache, also in another process.

        It is made of the address and the account, or a hash of the key; looked up at the first request, as a key may
        come into the environment after the step was bound.
        """
        ...

    def parse(self, text: str, ask: Ask, /) -> tuple[Any, bool]:
        """Validate a text as an answer to `ask`, checks included; return the value and whether it had to be mended.

        Raises:
            InvalidOutput: When it does not fit.
        """
        ...

    @property
    def cache_store(self) -> CacheStore:
        """Where the runtime keeps accepted answers."""
        ...

    @property
    def declared(self) -> str:
        """Where the policy was declared: `step:triage`, `flow:support`, `runtime`, `plugin:llmflow-redact`, `default`."""
        ...

    @property
    def runtime(self) -> object:
        """The runtime the step is bound to."""
        ...

    @property
    def clock(self) -> Clock:
        """Where time comes from; a policy asks no other."""
        ...

    @property
    def random(self) -> Random:
        """Where chance comes from; a policy asks no other."""
        ...

    def emit(self, event: object, /) -> None:
        """Tell every listener what happened; costs nothing when nobody listens."""
        ...

    def listens(self, kind: type, /) -> bool:
        """Whether anybody listens to this class of event, so that it need not be built."""
        ...

    def shared(self, key: Hashable, make: Callable[[], S], /) -> S:
        """Return the one object of this runtime under `key`, made by `make` at the first call.

        State that several steps share, such as a limiter's window, lives here and never in a policy's options. An
        object with a method `state() -> State | None` is listed in `runtime.stats().states`.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a policy holds at the moment, as `runtime.stats()` shows it.

    Attributes:
        kind: `budget`, `rate_limit`, `breaker`, `bulkhead`, `retries`, `cache`, or a plugin's own word.
        name: Which one: the policy's name, or the model whose connection it guards.
        values: Numbers and texts by name, such as `{"state": "open", "failures": 10}`.
    """

    kind: str
    name: str
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Off:
    """Takes a policy out where it would otherwise be inherited; written as `Retry.off`."""

    policy: type[Any]

    def __repr__(self) -> str:
        return f"{self.policy.__name__}.off"


class _OffAttribute:
    """Gives every policy class its own `off`, also when `dataclass(slots=True)` makes the class anew."""

    def __get__(self, instance: object, owner: type[Any]) -> Off:
        return Off(owner)


class Options:
    """Base of llmflow's own policies; a policy need not inherit from it."""

    __slots__ = ()

    band: ClassVar[Band]
    stacking: ClassVar[Literal["nearest", "all"]] = "nearest"
    """`nearest`: a setting, the declaration closest to the step wins. `all`: a limit, every declaration applies."""
    off: ClassVar[_OffAttribute] = _OffAttribute()
