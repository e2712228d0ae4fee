"""Strings of users and providers on their way to a terminal, which obeys some characters instead of showing them."""

from __future__ import annotations

import re

__all__ = ["escaped", "printable"]

_OBEYED = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, marks that turn the direction of writing, and halves of characters."""
_IN_JSON = re.compile(r"[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Those that JSON lets stand."""


def printable(text: str) -> str:
    """Return a text on one line, whatever a terminal would obey written in the way of Python."""
    return _OBEYED.sub(_escape, text)


def escaped(document: str) -> str:
    """Return a JSON document that means the same, whatever a terminal would obey written as JSON can."""
    return _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def _escape(found: re.Match[str]) -> str:
    letter = found[0]
    if letter in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[letter]
    number = ord(letter)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"  # noqa: PLR2004  # what one byte holds
