"""The built-in stores as a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmflow.hookspecs import hookimpl

if TYPE_CHECKING:
    from llmflow.ports import Clock
    from llmflow.stores._both import FileStore, MemoryStore

__all__ = ["StorePlugin"]


class StorePlugin:
    """Opens `memory://` and `sqlite:///path`, on the clock of the runtime it is made for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    @hookimpl(trylast=True)
    def llmflow_store(self, url: str) -> FileStore | MemoryStore | None:
        """Return the store, importing its modules only when they are used; no file is made before something is kept."""
        from llmflow.stores._both import FileStore, MemoryStore  # a few lines, which import the rest when asked

        scheme = url.partition("://")[0]
        if scheme == "memory":
            return MemoryStore(self._clock)
        return FileStore(url, self._clock) if scheme == "sqlite" else None
