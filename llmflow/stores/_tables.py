"""The table of the cache in SQLite, and what one row of it is."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from pydantic_core import from_json

from llmflow.prices import dollars

__all__ = [
    "AGE",
    "DELETE",
    "GET",
    "LIST",
    "OLDEST",
    "PUT",
    "SCHEMA",
    "CacheEntry",
    "Row",
    "entry_of",
    "fields_of",
    "row_of",
]

SCHEMA = (
    """CREATE TABLE IF NOT EXISTS cache (
        key TEXT PRIMARY KEY NOT NULL,
        entry TEXT NOT NULL,
        size INTEGER NOT NULL,
        created REAL NOT NULL,
        expires REAL NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS cache_by_age ON cache (created, size)",
    "CREATE INDEX IF NOT EXISTS cache_by_expiry ON cache (expires)",
)
GET = "SELECT entry, created, expires FROM cache WHERE key = ?"
AGE = "UPDATE cache SET created = created - ?, expires = expires - ?"
PUT = "INSERT OR REPLACE INTO cache (key, entry, size, created, expires) VALUES (?, ?, ?, ?, ?)"

LIST = "SELECT key, entry, size, created, expires FROM cache ORDER BY created DESC"
DELETE = "DELETE FROM cache WHERE key = ?"
OLDEST = "DELETE FROM cache WHERE key IN (SELECT key FROM cache ORDER BY created LIMIT ?)"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """What is known about a kept answer, without the answer."""

    key: str
    step: str | None
    model: str | None
    size: int
    age: float
    expires_in: float
    prompt_version: str | None = None
    cost_usd: Decimal | None = None
    """What it had cost to ask for; None when that is not known."""


@dataclass(frozen=True, slots=True)
class Row:
    key: str
    entry: bytes
    created: float
    expires: float


def row_of(key: str, entry: object, created: object, expires: object) -> Row:
    """Return what the file says about an entry, refusing what no writer wrote."""
    if isinstance(entry, bytes) and isinstance(created, float) and isinstance(expires, float):
        return Row(key, entry, created, expires)
    msg = "an entry is not one"
    raise ValueError(msg)


def fields_of(entry: object) -> dict[str, Any]:
    """Return the fields of an entry, none when it is not one."""
    try:
        fields: Any = from_json(entry) if isinstance(entry, bytes) else None
    except ValueError:
        return {}
    return cast("dict[str, Any]", fields) if isinstance(fields, dict) else {}


def entry_of(key: str, entry: object, *, size: int, age: float, expires_in: float) -> CacheEntry:
    """Return what is known about a kept answer."""
    said = fields_of(entry)
    cost = said.get("cost_nano")
    return CacheEntry(
        key=key,
        step=said.get("step"),
        model=said.get("model"),
        size=size,
        age=age,
        expires_in=expires_in,
        prompt_version=said.get("prompt_version"),
        cost_usd=dollars(cost) if type(cost) is int else None,
    )
