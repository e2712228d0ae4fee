"""Arguments of a call, as a run keeps them: a hash that guards what is recorded, and JSON for people and for replay."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, cast

from pydantic_core import PydanticSerializationError, to_json

from llmflow.canonical import canonical

__all__ = ["Fingerprint", "fingerprint", "input_hash", "inputs_as_json", "item_fingerprint", "own_of"]

_DIGITS = 32
_KEY_DIGITS = 12


class Fingerprint(NamedTuple):
    """What tells arguments from others, in every process.

    Attributes:
        digest: A hash of their texts, in which what has no text of its own, such as a client, counts by its type.
        is_whole: Whether every part of them has a text of its own; else others may have the same hash.
    """

    digest: str
    is_whole: bool

    @property
    def key(self) -> str:
        """How much of the hash is in the key of a node that no graph knows."""
        return self.digest[:_KEY_DIGITS]


def input_hash(inputs: Mapping[str, object]) -> str:
    """Return a hash of arguments that is the same in every process.

    What has no text of its own, such as a client, counts by its type.
    """
    return fingerprint(inputs).digest


def fingerprint(inputs: Mapping[str, object], own: Container[int] = ()) -> Fingerprint:
    """Return what tells arguments from others.

    Args:
        inputs: The arguments by name.
        own: Ids of objects that count as whole although they have no text of their own; see `own_of`.
    """
    parts, is_whole = list[str](), True
    for name, value in inputs.items():
        text, known = _told(value, own)
        parts.append(f"{name}={text}")
        is_whole = is_whole and known
    return Fingerprint(_hash("\n".join(parts)), is_whole)


def item_fingerprint(item: object) -> Fingerprint:
    """Return what tells an item of a map from others."""
    text, is_whole = _told(item, ())
    return Fingerprint(_hash(text), is_whole)


def own_of(inputs: Mapping[str, object]) -> frozenset[int]:
    """Return the ids of a run's arguments that have no text of their own, unless two of them look the same.

    Inside of the run each is known by its name: the id of the run stands for this one, whatever it is.
    """
    told = {id(value): _told(value, ()) for value in inputs.values()}
    seen = Counter(text for text, _ in told.values())
    return frozenset(one for one, (text, is_whole) in told.items() if not is_whole and seen[text] == 1)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def _told(value: object, own: Container[int]) -> tuple[str, bool]:
    """Return the text of a value, and whether that is all of it."""
    try:
        return canonical(value), True
    except RecursionError:
        return f"?{type(value).__qualname__}", id(value) in own
    except TypeError:
        text, is_whole = _told_by_parts(value, own)
        return text, is_whole or id(value) in own


def _told_by_parts(value: Any, own: Container[int]) -> tuple[str, bool]:
    """Return the text of what has parts of which some have none, such as a tuple of a client and an address."""
    kind, is_whole = type(value).__qualname__, True
    if isinstance(value, Mapping):
        pairs = [(_told(key, own), _told(one, own)) for key, one in cast("Mapping[object, object]", value).items()]
        parts = sorted((f"{key}:{one}", known and also) for (key, known), (one, also) in pairs)
    elif isinstance(value, list | tuple):
        parts = [_told(one, own) for one in cast("Sequence[object]", value)]
    elif is_dataclass(value) or hasattr(value, "__pydantic_fields__"):
        known_fields: Mapping[str, object] = getattr(cast("object", type(value)), "__pydantic_fields__", {})
        names = [one.name for one in fields(value)] if is_dataclass(value) else [*known_fields]
        told = [(name, *_told(getattr(cast("object", value), name, None), own)) for name in names]
        parts = [(f"{name}:{text}", known) for name, text, known in told]
        is_whole = is_dataclass(value) and not isinstance(value, type)  # a model may have more than its fields
    else:
        return f"?{kind}", False
    text = f"{kind}({','.join(text for text, _ in parts)})"
    return text, is_whole and all(known for _, known in parts)


def inputs_as_json(inputs: Mapping[str, object]) -> bytes | None:
    """Return arguments by name as JSON; what JSON cannot hold is replaced by the name of its type."""
    try:
        return to_json(dict(inputs), round_trip=True, inf_nan_mode="strings", bytes_mode="base64", fallback=_unknown)
    except (PydanticSerializationError, UnicodeEncodeError, RecursionError, ValueError):
        return None


def _unknown(value: object) -> object:
    return {"?": type(value).__qualname__}
