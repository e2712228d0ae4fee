"""What tells the connection of one model from that of another in a cache, in this process and in others."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmflow.context import new_id
from llmflow.providers._keys import hashed

if TYPE_CHECKING:
    from llmflow.models import Model
    from llmflow.ports import Provider

__all__ = ["identity"]


def identity(model: Model, provider: Callable[[], Provider]) -> str:
    """Return what tells a model's connection from others: address and account where it has them; keys as hashes only.

    An object of this process only, such as a handler that is a method, gets a name that no other object of any process
    ever had. It is never made of the object's address, which the next object may get.

    Raises:
        AuthenticationFailed: When the provider needs a key and there is none.
    """
    if model.handler is not None:
        return f"handler {_account(model)}{_of_function(model.handler)}"
    if model.client is not None:
        return f"client {_account(model)}{_of_client(model.client)}"
    asked: Callable[[Model], str] | None = getattr(provider(), "identity", None)
    if asked is not None:
        return f"{model.provider} {asked(model)}"
    key = None if model.api_key is None or model.account is not None else hashed(model.api_key.reveal())
    return f"{model.provider} {_account(model)}{model.base_url!r} {key}"


def _account(model: Model) -> str:
    return "" if model.account is None else f"{model.account!r} "


def _of_function(handler: Any) -> str:
    module, name = getattr(handler, "__module__", None), getattr(handler, "__qualname__", "")
    if module in sys.modules and getattr(sys.modules[module], name, None) is handler:
        # `__main__` is another module in each program.
        place = getattr(sys.modules[module], "__file__", None) if module == "__main__" else module
        if place is not None:
            return f"{place}:{name}"
    owner = getattr(handler, "__self__", None)
    return _names.of(handler) if owner is None else f"{_names.of(owner)}.{name}"


def _of_client(client: Any) -> str:
    inner = getattr(client, "client", None) or client  # instructor's has the SDK's inside
    address, key = getattr(inner, "base_url", None), getattr(inner, "api_key", None)
    if address is None or not isinstance(key, str) or not key:
        return _names.of(client)
    account = (getattr(inner, "organization", None), getattr(inner, "project", None))
    return f"{type(inner).__qualname__} {address} {account!r} {hashed(key)}"


class _Names:
    """Names for objects, as long as they live; they belong to the process, as the objects do."""

    def __init__(self) -> None:
        self._names: dict[int, tuple[Callable[[], object], str]] = {}
        self._lock = threading.RLock()

    def of(self, thing: object) -> str:
        """Return the name of an object."""
        at = id(thing)
        with self._lock:
            known = self._names.get(at)
            if known is not None and known[0]() is thing:
                return known[1]
            name = new_id()
            self._names[at] = (self._reference(thing, at), name)
            return name

    def _reference(self, thing: object, at: int) -> Callable[[], object]:
        try:
            return weakref.ref(thing, lambda _: self._names.pop(at, None))
        except TypeError:  # it cannot be watched, so it is kept: its address stays its own
            return lambda: thing


_names = _Names()
