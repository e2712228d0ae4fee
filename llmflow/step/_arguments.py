"""Arguments of a call, as a run keeps them: a hash that guards what is recorded, and JSON for people and for replay."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, cast

from pydantic_core import PydanticSerializationError, to_json

from llmflow.canonical import canonical

__all__ = ["KEY_DIGITS", "UNKNOWN_ITEM", "content_key", "input_hash", "inputs_as_json"]

KEY_DIGITS = 12
"""How much of a hash is in the key of a node that no graph knows."""
_DIGITS = 32


def input_hash(inputs: Mapping[str, object]) -> str:
    """Return a hash of arguments that is the same in every process.

    What has no text of its own, such as a client, counts by its type.
    """
    parts = [f"{name}={_text(value)}" for name, value in inputs.items()]
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def content_key(item: object) -> str:
    """Return what tells an item of a map from others by its content; `_NO_CONTENT` for what has no text of its own."""
    text = _text(item)
    if text.startswith("?"):
        return _NO_CONTENT
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]


_NO_CONTENT = "?"
UNKNOWN_ITEM = f"[{_NO_CONTENT}]"
"""Ends the key of an item that nothing tells from others: what is recorded of it may be another one's."""


def _text(value: object) -> str:
    try:
        return canonical(value)
    except RecursionError:
        return f"?{type(value).__qualname__}"
    except TypeError:
        return _text_of_parts(value)


def _text_of_parts(value: Any) -> str:
    """Return the text of what has parts of which some have none, such as a tuple of a client and an address."""
    kind = type(value).__qualname__
    if isinstance(value, Mapping):
        parts = sorted(f"{_text(key)}:{_text(one)}" for key, one in cast("Mapping[object, object]", value).items())
    elif isinstance(value, list | tuple):
        parts = [_text(one) for one in cast("Sequence[object]", value)]
    elif is_dataclass(value) or hasattr(value, "__pydantic_fields__"):
        known: Mapping[str, object] = getattr(cast("object", type(value)), "__pydantic_fields__", {})
        names = [one.name for one in fields(value)] if is_dataclass(value) else [*known]
        parts = [f"{name}:{_text(getattr(cast('object', value), name, None))}" for name in names]
    else:
        return f"?{kind}"
    return f"{kind}({','.join(parts)})"


def inputs_as_json(inputs: Mapping[str, object]) -> bytes | None:
    """Return arguments by name as JSON; what JSON cannot hold is replaced by the name of its type."""
    try:
        return to_json(dict(inputs), round_trip=True, inf_nan_mode="strings", bytes_mode="base64", fallback=_unknown)
    except (PydanticSerializationError, UnicodeEncodeError, RecursionError, ValueError):
        return None


def _unknown(value: object) -> object:
    return {"?": type(value).__qualname__}
