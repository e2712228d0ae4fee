"""What somebody may have meant who wrote a name that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from llmflow.cli._printable import printable

__all__ = ["guess", "similar"]


def similar(wanted: str, known: Iterable[str]) -> str | None:
    """Return the name that is most like the wanted one, None when none is like it."""
    return next(iter(difflib.get_close_matches(wanted, list(known), n=1)), None)


def guess(wanted: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return the hint that names what was meant, nothing when the name is there or nothing is like it."""
    known = set(known)
    close = None if wanted in known else similar(wanted, sorted(known))
    return () if close is None else (f"Did you mean {printable(close)}?",)
