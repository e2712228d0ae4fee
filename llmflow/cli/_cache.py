"""`llmflow cache`: what is kept, and dropping it."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from llmflow.cli._failures import UsageError
from llmflow.cli._report import count, seconds
from llmflow.cli._session import session
from llmflow.cli._terminal import jsonable, out_console, say, table, write_json

if TYPE_CHECKING:
    from llmflow.stores._tables import CacheEntry

__all__ = ["clear_cache", "show_cache"]


def show_cache(*, as_json: bool) -> None:
    """Write what is kept, without the answers."""
    store = _store()
    entries: list[CacheEntry] = _reading(store, lambda: list(store.entries()))
    if as_json:
        write_json({"store": _name(store), "entries": [jsonable(asdict(one)) for one in entries]})
        return
    if not entries:
        say(f"nothing is kept in {_name(store)}")
        return
    listed = table("step", "model", "age", "expires in", "bytes", right=("age", "expires in", "bytes"))
    for one in entries:
        left = seconds(one.expires_in) if one.expires_in > 0 else "over"
        listed.add_row(one.step or "?", one.model or "?", seconds(one.age), left, str(one.size))
    out_console().print(listed)
    say(f"{count(len(entries), 'answer')} in {_name(store)}", "dim")


def clear_cache(*, step: str | None) -> None:
    """Drop what is kept."""
    store = _store()
    dropped: int = _reading(store, lambda: store.clear(step))
    of_step = "" if step is None else f" of step {step!r}"
    say(f"{count(dropped, 'answer')}{of_step} dropped from {_name(store)}")


def _store() -> Any:
    """Return the store of the cache, if it is one that other processes can look into."""
    with session() as runtime:
        store = runtime.cache_store
    if not hasattr(store, "entries"):
        raise UsageError(
            "the cache is in memory, or in a store that cannot be looked into",
            "Name a file: LLMFLOW_CACHE=sqlite:///cache.db, or cache = ... in [tool.llmflow].",
        )
    return store


def _name(store: Any) -> str:
    return f"sqlite:///{store.path}"


def _reading(store: Any, read: Any) -> Any:
    try:
        return read()
    except (sqlite3.Error, OSError) as exc:
        raise UsageError(f"the cache {_name(store)} cannot be used: {exc}") from exc
