"""The stores of a runtime: found by their addresses when it is made, opened when they are used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmflow.errors import DefinitionError
from llmflow.plugins import shown

if TYPE_CHECKING:
    from llmflow.plugins import Registry
    from llmflow.policy import State
    from llmflow.ports import CacheStore

__all__ = ["Stores"]

_MEMORY = "memory://"


class Stores:
    """Where the caches, journals and shared state of one runtime live.

    Raises:
        DefinitionError: For an address that no plugin knows, naming it.
    """

    def __init__(
        self, registry: Registry, *, store: str, cache: str | None, journal: str | None, shared: str | None
    ) -> None:
        for option, url in (("store", store), ("cache", cache), ("journal", journal), ("shared", shared)):
            if url is not None and not isinstance(url, str):
                msg = f"Runtime({option}={url!r}): expected an address, 'memory://' or 'sqlite:///path'"
                raise DefinitionError(msg)
        for option, url in (("journal", journal), ("shared", shared)):
            if url not in (None, _MEMORY):
                msg = f"Runtime({option}={shown(url)!r}): no plugin supplies this store; built in is {_MEMORY!r}"
                raise DefinitionError(msg)
        option, url = ("store", store) if cache is None else ("cache", cache)
        if cache is not None and store != _MEMORY:
            registry.store(store, "store")
        # A store of a third party may be wrong in many ways, and says so here; that in memory is made when it is used.
        made = None if url == _MEMORY else registry.store(url, option)
        self._cache: Callable[[], CacheStore] = (lambda: registry.store(url, option)) if made is None else lambda: made
        self._opened: Any = None
        self._lock = threading.Lock()

    @property
    def cache(self) -> CacheStore:
        """Where accepted answers are kept."""
        with self._lock:
            if self._opened is None:
                self._opened = self._cache()
            return self._opened  # type: ignore[no-any-return]

    def state(self) -> State | None:
        """Say what the cache holds, if it is one that can tell without looking it up."""
        said = getattr(self._opened, "state", None)
        return None if said is None else said()

    def close(self) -> None:
        """Write what waits to be written; for code that is not async, so only where a store can do that."""
        close = getattr(self._opened, "close", None)
        if close is not None:
            close()

    async def aclose(self) -> None:
        """Write what waits to be written, and close what is open."""
        if self._opened is not None:
            await self._opened.aclose()
