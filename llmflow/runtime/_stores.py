"""The stores of a runtime: found by their addresses when it is made, opened when they are used."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from llmflow.errors import DefinitionError
from llmflow.plugins import shown
from llmflow.stores import MemoryStore

if TYPE_CHECKING:
    from llmflow.plugins import Registry
    from llmflow.policy import State
    from llmflow.ports import CacheStore, Clock, Journal

__all__ = ["Stores"]

_MEMORY = "memory://"

Port: TypeAlias = Literal["cache", "journal"]
_METHODS: dict[Port, tuple[str, ...]] = {
    "cache": ("get", "put", "aclose"),
    "journal": ("claim", "write", "settled", "aclose"),
}


class Stores:
    """Where the caches, journals and shared state of one runtime live.

    A store offers a port by having its methods, or the object that has them as its attribute `cache` or `journal`.

    Raises:
        DefinitionError: For an address that no plugin knows, or whose store does not offer what it is asked for.
    """

    def __init__(
        self,
        registry: Registry,
        clock: Clock,
        *,
        store: str,
        cache: str | None,
        journal: str | None,
        shared: str | None,
    ) -> None:
        for option, url in (("store", store), ("cache", cache), ("journal", journal), ("shared", shared)):
            if url is not None and not isinstance(url, str):
                msg = f"Runtime({option}={url!r}): expected an address, 'memory://' or 'sqlite:///path'"
                raise DefinitionError(msg)
        if shared not in (None, _MEMORY):
            msg = f"Runtime(shared={shown(shared)!r}): no plugin supplies this store; built in is {_MEMORY!r}"
            raise DefinitionError(msg)
        self._registry = registry
        self._found: dict[str, Any] = {_MEMORY: MemoryStore(clock)}
        self._opened: dict[Port, Any] = {}
        self._lock = threading.RLock()
        self._urls: dict[Port, tuple[str, str]] = {
            "cache": ("store", store) if cache is None else ("cache", cache),
            "journal": ("store", store) if journal is None else ("journal", journal),
        }
        if cache is not None and journal is not None:
            self._store(store, "store")
        for port, (option, url) in self._urls.items():
            # A store of a third party may be wrong in many ways, and says so here; the parts are made when they are used.
            if not _offers(self._store(url, option), port):
                raise _missing(option, url, port)

    def _store(self, url: str, option: str) -> Any:
        if url not in self._found:
            self._found[url] = self._registry.store(url, option)
        return self._found[url]

    def _open(self, port: Port) -> Any:
        with self._lock:
            if port not in self._opened:
                option, url = self._urls[port]
                store = self._store(url, option)
                self._opened[port] = store if _has_methods(store, port) else getattr(store, port)
            return self._opened[port]

    @property
    def cache(self) -> CacheStore:
        """Where accepted answers are kept."""
        return self._open("cache")  # type: ignore[no-any-return]

    @property
    def journal(self) -> Journal:
        """Where runs are recorded."""
        return self._open("journal")  # type: ignore[no-any-return]

    def state(self) -> State | None:
        """Say what the cache holds, if it is one that can tell without looking it up."""
        said = getattr(self._opened.get("cache"), "state", None)
        return None if said is None else said()

    def _all_opened(self) -> Iterator[Any]:
        """Yield what is open, each once."""
        return iter({id(one): one for one in self._opened.values()}.values())

    def close(self) -> None:
        """Write what waits to be written; for code that is not async, so only where a store can do that."""
        for one in self._all_opened():
            if (close := getattr(one, "close", None)) is not None:
                close()

    async def aclose(self) -> None:
        """Write what waits to be written, and close what is open."""
        for one in self._all_opened():
            await one.aclose()


def _has_methods(store: object, port: Port) -> bool:
    return all(callable(getattr(store, name, None)) for name in _METHODS[port])


def _offers(store: object, port: Port) -> bool:
    return hasattr(type(store), port) or port in getattr(store, "__dict__", {}) or _has_methods(store, port)


def _missing(option: str, url: str, port: Port) -> DefinitionError:
    keeps = "answers" if port == "cache" else "runs"
    error = DefinitionError(f"Runtime({option}={shown(url)!r}): this store keeps no {keeps}")
    error.add_note(f"Say where they are kept: {port}='memory://' or 'sqlite:///path'.")
    return error
