"""A store that offers both ports, each made when it is asked for."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from llmflow.errors import DefinitionError

if TYPE_CHECKING:
    from llmflow.ports import Clock
    from llmflow.stores._journal import SqliteJournal
    from llmflow.stores._journal_memory import MemoryJournal
    from llmflow.stores._memory import MemoryCache
    from llmflow.stores._sqlite import SqliteCache

__all__ = ["FileStore", "MemoryStore", "path_of"]


def path_of(url: str) -> Path:
    """Return the file that an address names.

    Raises:
        DefinitionError: When it names none.
    """
    name = url.removeprefix("sqlite:///")
    if name in ("", url) or name.startswith(":") or "?" in name or "\0" in name or name.endswith("/"):
        msg = f"the store {url!r} names no file; write 'sqlite:///relative.db' or 'sqlite:////absolute/path.db'"
        raise DefinitionError(msg)
    return Path(name).absolute()


class FileStore:
    """`sqlite:///path`: one file for the cache and the journal."""

    def __init__(self, url: str, clock: Clock) -> None:
        self.path = path_of(url)
        self._clock = clock

    @cached_property
    def cache(self) -> SqliteCache:
        """Where answers are kept."""
        from llmflow.stores._sqlite import SqliteCache

        return SqliteCache(self.path, self._clock)

    @cached_property
    def journal(self) -> SqliteJournal:
        """Where runs are recorded."""
        from llmflow.stores._journal import SqliteJournal

        return SqliteJournal(self.path, self._clock)


class MemoryStore:
    """`memory://`: what lasts as long as the runtime."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    @cached_property
    def cache(self) -> MemoryCache:
        """Where answers are kept."""
        from llmflow.stores._memory import MemoryCache

        return MemoryCache(self._clock.monotonic)

    @cached_property
    def journal(self) -> MemoryJournal:
        """Where runs are recorded."""
        from llmflow.stores._journal_memory import MemoryJournal

        return MemoryJournal(self._clock)
