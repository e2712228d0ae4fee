"""`memory://`: answers that are kept as long as the process runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeAlias

from cachetools import LRUCache

from llmflow.policy import State
from llmflow.ports import Kept

__all__ = ["MemoryCache"]

_Entry: TypeAlias = tuple[bytes, float, float]
"""An entry, when it was kept, and for how many seconds."""

_ENTRIES = 10_000
_BYTES = 64 * 1024 * 1024


class MemoryCache:
    """Keeps entries in memory, bounded in number and size; what was used longest ago goes first.

    Args:
        now: Seconds of a monotonic clock.
        entries: How many entries are kept at most.
        size: How many bytes they take together at most.
    """

    def __init__(self, now: Callable[[], float], *, entries: int = _ENTRIES, size: int = _BYTES) -> None:
        self._now = now
        self._lock = threading.Lock()
        # One bound does for both: an entry counts at least as much as leaves room for `entries` of them.
        least = max(1, size // entries)
        self._kept: LRUCache[str, _Entry] = LRUCache(size, getsizeof=lambda value: max(least, len(value[0])))
        self._size = size

    async def get(self, key: str, /) -> Kept | None:
        """Return an entry and its age."""
        now = self._now()
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            entry, kept_at, seconds = found
            # A clock that went back, as that of a new event loop on virtual time does, proves nothing about an age.
            if 0 <= now - kept_at < seconds:
                return Kept(entry, now - kept_at)
            del self._kept[key]
            return None

    async def put(self, key: str, entry: bytes, /, *, seconds: float) -> None:
        """Keep an entry, in place of others if need be; one that is larger than the whole is not kept."""
        if len(entry) > self._size:
            return
        now = self._now()
        with self._lock:
            self._kept[key] = (entry, now, seconds)

    async def aclose(self) -> None:
        """Do nothing: what is in memory is kept for the next event loop."""

    def state(self) -> State:
        """Say how much is kept."""
        with self._lock:
            return State(kind="cache", name="memory://", values={"entries": len(self._kept)})
