"""Rows of the journal as Python reads them.

A reader of a file gives bytes for text, so that nothing in it can fail to be decoded; the one in memory gives text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["NODE_COLUMNS", "as_bytes", "as_text", "as_text_or_none", "node_fields"]

NODE_COLUMNS = (
    "key",
    "name",
    "kind",
    "status",
    "model",
    "prompt_version",
    "input_hash",
    "inputs",
    "output",
    "content",
    "error",
)


def node_fields(row: Sequence[Any]) -> dict[str, Any]:
    """Return the fields of a `RecordedNode` from the values of `NODE_COLUMNS`."""
    key, name, kind, status, model, version, input_hash, inputs, output, content, error = row
    return {
        "key": as_text(key),
        "name": as_text(name),
        "kind": as_text(kind),
        "status": as_text(status),
        "model": as_text_or_none(model),
        "prompt_version": as_text_or_none(version),
        "input_hash": as_text_or_none(input_hash),
        "inputs": as_bytes(inputs),
        "output": as_bytes(output),
        "content": as_text(content),
        "error": as_text_or_none(error),
    }


def as_text(value: str | bytes) -> str:
    """Return a text; what is no UTF-8 in it is replaced."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def as_text_or_none(value: str | bytes | None) -> str | None:
    """Return a text, or that there is none."""
    return None if value is None else as_text(value)


def as_bytes(value: str | bytes | None) -> bytes | None:
    """Return JSON as bytes, or that there is none."""
    return value.encode() if isinstance(value, str) else value
