"""The built-in stores as a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmflow.hookspecs import hookimpl
from llmflow.stores._both import FileStore

if TYPE_CHECKING:
    from llmflow.ports import Clock

__all__ = ["StorePlugin"]


class StorePlugin:
    """Opens `sqlite:///path` on the clock of the runtime it is made for; `memory://` needs no plugin."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    @hookimpl(trylast=True)
    def llmflow_store(self, url: str) -> FileStore | None:
        """Return the store; its modules are imported when they are used, no file is made before something is kept."""
        return FileStore(url, self._clock) if url.partition("://")[0] == "sqlite" else None
