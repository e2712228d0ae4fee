"""The built-in stores as a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmflow.hookspecs import hookimpl

if TYPE_CHECKING:
    from llmflow.ports import CacheStore, Clock

__all__ = ["StorePlugin"]


class StorePlugin:
    """Opens `memory://` and `sqlite:///path`, on the clock of the runtime it is made for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    @hookimpl(trylast=True)
    def llmflow_store(self, url: str) -> CacheStore | None:
        """Return the store, importing its module only now; no file is made before something is kept."""
        scheme = url.partition("://")[0]
        if scheme == "memory":
            from llmflow.stores._memory import MemoryCache

            return MemoryCache(self._clock.monotonic)
        if scheme == "sqlite":
            from llmflow.stores._sqlite import SqliteCache

            return SqliteCache.at(url, self._clock)
        return None
