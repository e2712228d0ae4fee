"""Which model to ask, and how to reach it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

from llmflow.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from llmflow.messages import Reply, Request
    from llmflow.prices import Price

    Handler: TypeAlias = Callable[[Request], Awaitable[Reply | str]]

__all__ = ["Model", "Params", "Secret", "as_model"]


DEFAULT_MAX_TOKENS = 4096
"""How long an answer may be where neither the step nor the price table says it, so that the worst case is always known."""


class Params(TypedDict, total=False):
    """Sampling parameters that mean the same for every provider.

    Each provider translates them; one that a model does not have is left out with one warning.
    """

    temperature: float
    top_p: float
    max_tokens: int
    """Upper limit of the answer in tokens; every request carries one, 4096 unless said otherwise."""
    stop: str | list[str]
    seed: int
    reasoning: Literal["minimal", "low", "medium", "high"]


class Secret:
    """A value that never shows itself: `repr`, `str` and formatting give `**********`.

    Call `reveal()` at the one place that needs it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('**********')"

    def __str__(self) -> str:
        return "**********"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> str:
        msg = "a Secret cannot be pickled"
        raise TypeError(msg)


class Model:
    """A model with its connection, accepted wherever a string `"provider/name"` is.

    Args:
        name: `"provider/name"`, such as `"openai/gpt-5-mini"`. With `handler` the provider part is free.
        base_url: Address of an OpenAI-compatible (or the provider's own) service.
        api_key: The key; without it the provider's usual environment variable is read at the first call.
        account: What separates two keys of one provider in limits and caches; without it each key is its own.
        client: An existing instructor, openai or anthropic client. Its own retries are not used.
        handler: Any in-process `async (Request) -> Reply | str`: a fake, a local engine, a company gateway.
        price: Dollars per million tokens, instead of the price table.
        **options: Sent to this provider alone, in the body of each request; `mode` chooses how the schema is sent.

    Raises:
        DefinitionError: For a name without a provider, or options that exclude each other.
    """

    __slots__ = (
        "__weakref__",
        "account",
        "api_key",
        "base_url",
        "client",
        "handler",
        "model",
        "name",
        "options",
        "price",
        "provider",
    )

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None = None,
        api_key: str | Secret | None = None,
        account: str | None = None,
        client: object | None = None,
        handler: Handler | None = None,
        price: Price | None = None,
        **options: object,
    ) -> None:
        provider, slash, model = name.partition("/")
        if not slash and handler is not None:
            provider, model = "handler", name
        if not provider or not model:
            msg = f"model {name!r} does not name its provider; write it as 'provider/name', such as 'openai/{name.strip('/') or 'gpt-5-mini'}'"
            raise DefinitionError(msg)
        if client is not None and handler is not None:
            msg = f"model {name!r} has both client= and handler=; give one of them"
            raise DefinitionError(msg)
        if handler is not None and not callable(handler):
            msg = f"model {name!r}: handler= is {type(handler).__name__}, expected an async function (Request) -> Reply | str"
            raise DefinitionError(msg)
        if price is not None and not hasattr(price, "max_output"):  # `Price` is in a layer of its own, not below this
            msg = f"model {name!r}: price is {price!r}, expected Price(input=..., output=...)"
            raise DefinitionError(msg)
        self.name = f"{provider}/{model}"
        self.provider = provider
        self.model = model
        self.base_url = base_url.rstrip("/") if base_url else None
        self.api_key = Secret(api_key) if isinstance(api_key, str) else api_key
        self.account = account
        self.client = client
        self.handler = handler
        self.price = price
        self.options: Mapping[str, object] = options

    def key(self, *variables: str) -> Secret | None:
        """Return the key to use: `api_key`, else the first of the environment variables that is set."""
        if self.api_key is not None:
            return self.api_key
        return next((Secret(value) for name in variables if (value := os.environ.get(name))), None)

    @property
    def connection(self) -> tuple[object, ...]:
        """What limits, breakers and clients are counted per: provider, address and account."""
        if self.handler is not None or self.client is not None:
            return (self.provider, id(self.handler or self.client), self.account)
        return (self.provider, self.base_url, self.account if self.account is not None else self.api_key)

    def is_meant_by(self, asked: Model | str | None, /) -> bool:
        """Whether it is the one that was asked for: by name, by name and connection, or any."""
        if asked is None or isinstance(asked, str):
            return asked is None or asked == self.name
        return (asked.name, asked.connection) == (self.name, self.connection)

    def __repr__(self) -> str:
        extra = "".join(
            f", {name}={value!r}"
            for name, value in (("base_url", self.base_url), ("account", self.account), *self.options.items())
            if value is not None
        )
        return f"Model({self.name!r}{extra})"


def as_model(model: Model | str, /) -> Model:
    """Return `model` as a `Model`, taking a string for its name."""
    if isinstance(model, Model):
        return model
    if isinstance(model, str):
        return Model(model)
    msg = f"expected a model as 'provider/name' or Model(...), got {type(model).__name__}"
    raise DefinitionError(msg)
