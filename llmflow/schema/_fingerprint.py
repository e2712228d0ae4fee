"""A fingerprint of a JSON schema that stays the same when only its writing changes."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["fingerprint"]

_NAMED = frozenset({"properties", "$defs", "patternProperties", "dependentSchemas"})
"""Keywords whose keys are the author's names, `title` among them perhaps."""
_DATA = frozenset({"default", "const", "enum", "examples", "required"})
_DECIMAL = "^(?!^[-+.]*$)"


def fingerprint(schema: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the schema, its keys sorted and left out what only some pydantic versions write."""
    canonical = json.dumps(_normal(schema), sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _normal(node: object) -> object:
    if isinstance(node, list):
        return [_normal(item) for item in cast("list[object]", node)]
    if not isinstance(node, dict):
        return int(node) if isinstance(node, float) and node.is_integer() else node  # 2.10 writes a limit of 0 as 0.0
    return {
        key: value if key in _DATA else _named(value) if key in _NAMED else _normal(value)
        for key, value in cast("dict[str, object]", node).items()
        if not _is_noise(key, value)
    }


def _is_noise(key: str, value: object) -> bool:
    """Tell what differs between versions: made-up titles, open or closed objects, the pattern of a Decimal."""
    return (
        key == "title"
        or (key == "additionalProperties" and isinstance(value, bool))
        or (key == "pattern" and isinstance(value, str) and value.startswith(_DECIMAL))
    )


def _named(schemas: object) -> object:
    return {name: _normal(schema) for name, schema in cast("dict[str, object]", schemas).items()}
