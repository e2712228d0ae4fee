"""JSON Schema, cut down to what the engine takes without a warning, an error, or worse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from llmflow_local._pattern import portable_pattern

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["portable_schema"]

_LITERALS = frozenset({"const", "default", "enum", "examples"})
"""Keywords whose values are data, not schemas."""
_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_LARGEST_BOUND = 2**53
"""From 2**63 on, the engine writes digits until the process has no memory left."""


def portable_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema as the engine should see it; pydantic still checks the answer against the original."""
    return {key: _portable_value(key, value) for key, value in schema.items() if _is_portable(key, value)}


def _is_portable(key: str, value: object) -> bool:
    if key == "pattern" and isinstance(value, str):
        return portable_pattern(value) is not None
    if key in _BOUNDS and isinstance(value, int | float):
        return abs(value) <= _LARGEST_BOUND
    return True


def _portable_value(key: str, value: object) -> object:
    if key in _LITERALS:
        return value
    if key == "pattern" and isinstance(value, str):
        return portable_pattern(value)
    if isinstance(value, dict):
        return portable_schema(cast("dict[str, Any]", value))
    if isinstance(value, list):
        return [_portable_value("", item) for item in cast("list[object]", value)]
    return value
