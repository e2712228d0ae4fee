"""What a prompt is made of beside its own text, and what of that cannot be seen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

__all__ = ["DIGITS", "Piece", "digest_of"]

DIGITS = 12


def digest_of(text: str) -> str:
    """Return the first 12 hex digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


@dataclass(frozen=True, slots=True)
class Piece:
    """A function, class or constant of the author's own that a prompt depends on.

    Attributes:
        name: Where it is, for people: `texts.INTRO`.
        kind: What it is.
        digest: A hash over it alone, without what it uses itself.
        source: Its lines in the file, None when they cannot be read.
    """

    name: str
    kind: Literal["function", "class", "constant"]
    digest: str
    source: str | None = None
