"""A JSON schema in words, a line for each field: short enough to read in a review."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias, cast

__all__ = ["schema_lines"]

Schema: TypeAlias = Mapping[str, Any]

_LIMITS = (
    ("minimum", ">= {}"),
    ("exclusiveMinimum", "> {}"),
    ("maximum", "<= {}"),
    ("exclusiveMaximum", "< {}"),
    ("multipleOf", "a multiple of {}"),
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} items"),
    ("maxItems", "at most {} items"),
    ("pattern", "matches {}"),
    ("format", "format {}"),
)


def schema_lines(schema: Schema) -> list[str]:
    """Return `path: what stands there` for the whole and for each field inside, in the schema's order."""
    definitions = cast("Mapping[str, Schema]", schema.get("$defs", {}))
    return [*_Reader(definitions).fields(schema, "", frozenset())]


class _Reader:
    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions

    def fields(self, schema: Schema, path: str, inside: frozenset[str]) -> Iterator[str]:
        """Yield the lines of what has fields; a model that holds itself is shown once."""
        name = _reference(schema)
        if name in inside:
            return
        if name:
            inside |= {name}
            schema = self._definitions.get(name, {})
        required = schema.get("required", ())
        for field, one in cast("Mapping[str, Schema]", schema.get("properties", {})).items():
            where = f"{path}.{field}" if path else field
            yield f"{where}{'' if field in required else '?'}: {self._said(one)}"
            yield from self.fields(one, where, inside)
        if isinstance(items := schema.get("items"), Mapping):
            yield from self.fields(cast("Schema", items), f"{path}[]", inside)
        if isinstance(extra := schema.get("additionalProperties"), Mapping):
            yield from self.fields(cast("Schema", extra), f"{path}{{}}", inside)
        for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("prefixItems", ())):
            yield from self.fields(one, path, inside)

    def _said(self, schema: Schema) -> str:
        default = f" = {json.dumps(schema['default'], ensure_ascii=False)}" if "default" in schema else ""
        description = f"  # {' '.join(str(schema['description']).split())}" if "description" in schema else ""
        return f"{self._kind(schema)}{_limits(schema)}{default}{description}"

    def _kind(self, schema: Schema) -> str:
        if name := _reference(schema):
            found = self._definitions.get(name, {})
            return self._kind(found) if "enum" in found or "const" in found else name
        if "const" in schema:
            return json.dumps(schema["const"], ensure_ascii=False)
        if "enum" in schema:
            return " | ".join(json.dumps(one, ensure_ascii=False) for one in schema["enum"])
        if members := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
            return " | ".join(f"{self._kind(one)}{_limits(one)}" for one in members)
        return self._plain(schema)

    def _plain(self, schema: Schema) -> str:
        kind = str(schema.get("type", "anything"))
        if parts := schema.get("prefixItems"):
            return f"[{', '.join(map(self._kind, parts))}]"
        if kind == "array":
            return f"list of {self._kind(schema.get('items') or {})}"
        if kind == "object" and isinstance(extra := schema.get("additionalProperties"), Mapping):
            return f"mapping to {self._kind(cast('Schema', extra))}"
        return kind


def _reference(schema: Schema) -> str:
    return str(schema.get("$ref", "")).removeprefix("#/$defs/")


def _limits(schema: Schema) -> str:
    said = [words.format(schema[name]) for name, words in _LIMITS if name in schema]
    return f" ({', '.join(said)})" if said else ""
