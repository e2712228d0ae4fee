"""Decodes the outer JSON of replies, however odd."""

from __future__ import annotations

import json
from typing import Any, cast

from pydantic_core import from_json, to_json

__all__ = [
    "as_list",
    "as_mapping",
    "decode_json",
    "decode_object",
    "encodable",
    "encodable_data",
    "encode_json",
    "mappings_in",
]


def decode_json(content: bytes) -> Any:
    """Decode a body.

    Raises:
        ValueError: When it is not JSON, or JSON that no program should be asked to hold.
    """
    try:
        return from_json(content)
    except ValueError:
        # Slower and more patient: takes a byte order mark, and lone surrogates, which are replaced further on.
        try:
            return json.loads(content)
        except RecursionError as exc:
            msg = "nested too deeply"
            raise ValueError(msg) from exc


def decode_object(content: bytes) -> dict[str, Any]:
    """Decode a body that must be an object.

    Raises:
        ValueError: When it is anything else.
    """
    data = decode_json(content)
    if not isinstance(data, dict):
        msg = f"expected an object, got {type(data).__name__}"
        raise ValueError(msg)  # noqa: TRY004 - for the caller it is one more way of being malformed
    return cast(dict[str, Any], data)


def as_mapping(value: object) -> dict[str, Any]:
    """Return `value` when it is a JSON object, else an empty one."""
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """Return `value` when it is a JSON array, else an empty one."""
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]


def mappings_in(value: object) -> list[dict[str, Any]]:
    """Return the objects of a JSON array, without whatever else is in it."""
    return [item for item in as_list(value) if isinstance(item, dict)]


def encodable(text: str) -> str:
    """Return `text` without lone surrogates, which no encoder takes."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def encodable_data(value: Any) -> Any:
    """Return `value`, which was decoded from JSON, without lone surrogates anywhere in it."""
    try:
        to_json(value)
    except ValueError:
        return json.loads(encodable(json.dumps(value, ensure_ascii=False)))
    return value


def encode_json(value: object) -> str:
    """Return `value`, which was decoded from JSON, as JSON again."""
    try:
        return to_json(value).decode()
    except ValueError:  # a lone surrogate, which the escapes of the slower encoder carry
        return json.dumps(value)
