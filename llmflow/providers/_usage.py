"""Token counts as providers report them, taken only where they make sense."""

from __future__ import annotations

from typing import Any

from llmflow.messages import Usage
from llmflow.providers._json import as_mapping

__all__ = ["count", "field_of", "usage_of"]

_MOST = 10**12


def usage_of(
    input_tokens: object, output_tokens: object, cached: object = None, reasoning: object = None
) -> Usage | None:
    """Return the usage; what is missing, junk or contradictory counts as unknown, so that no cost can be negative."""
    total_in, total_out, part_in, part_out = count(input_tokens), count(output_tokens), count(cached), count(reasoning)
    if total_in is None and total_out is None:
        return None
    return Usage(
        input_tokens=total_in,
        output_tokens=total_out,
        cached_tokens=part_in if _fits(part_in, total_in) else None,
        reasoning_tokens=part_out if _fits(part_out, total_out) else None,
    )


def count(value: object) -> int | None:
    """Return `value` when it is a number of tokens that can be."""
    return value if type(value) is int and 0 <= value <= _MOST else None


def field_of(owner: object, *names: str) -> Any:
    """Follow a path of keys or attributes, to None where it ends."""
    for name in names:
        inner = as_mapping(owner)
        owner = inner.get(name) if inner else getattr(owner, name, None)
    return owner


def _fits(part: int | None, total: int | None) -> bool:
    return part is not None and total is not None and part <= total
