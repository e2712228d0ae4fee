"""Regular expressions, cut down to what the engine can hold an answer to.

The engine's own reaction to a pattern it cannot use is a warning on stderr and no constraint. A pattern is therefore
rewritten, or left out. Nothing is lost: pydantic checks every answer against the author's pattern anyway.
"""

from __future__ import annotations

import re

__all__ = ["portable_pattern"]

_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?(?:P<\w+>|<?[=!]|:)|\{\d*,?\d*\}|.", re.DOTALL)
_CLASS_PART = re.compile(r"\\.|.", re.DOTALL)
_SETS = {r"\d": "0-9", r"\w": "A-Za-z0-9_", r"\s": " "}
"""A blank for `\\s`: fewer strings than the author allows, but a raw line break is not valid inside a JSON string."""
_LITERAL = frozenset("^$.|?*+()[]{}\\-")
"""Characters that keep their backslash; before others that are no letters it is dropped."""
_LOOK_AROUND = frozenset({"(?=", "(?!", "(?<=", "(?<!"})


class _NotPortableError(Exception):
    pass


def portable_pattern(pattern: str) -> str | None:
    """Return a pattern the engine understands, None when there is no such pattern.

    Look-arounds are dropped, which allows more than the author's pattern; white space is a blank, which allows less.
    """
    # The engine works on bytes outside of ASCII, and writes quotes and control characters without escaping them.
    if not (pattern.isascii() and pattern.isprintable()) or '"' in pattern:
        return None
    tokens = _TOKEN.findall(pattern)
    if tokens[:1] != ["^"] or tokens[-1:] != ["$"]:
        return None
    try:
        return f"^{_rewritten(tokens[1:-1])}$"
    except _NotPortableError:
        return None


def _rewritten(tokens: list[str]) -> str:
    written: list[str] = []
    depth = 0
    skipped_from: int | None = None  # the depth at which a look-around began
    for token in tokens:
        if token.startswith("("):
            depth += 1
            if token in _LOOK_AROUND and skipped_from is None:
                skipped_from = depth
        if skipped_from is None:
            written.append(_portable(token))
        if token == ")":  # noqa: S105  # a token of a regular expression
            if skipped_from == depth:
                skipped_from = None
            depth -= 1
    return "".join(written)


def _portable(token: str) -> str:
    if token in _SETS:
        return f"[{_SETS[token]}]"
    if token.startswith("\\"):
        return _escaped(token)
    if token.startswith("[") and len(token) > 1:
        return _class(token)
    if token.startswith("(?"):
        return "(?:"
    if token in {"^", "$", "[", "{", "}"}:  # an anchor inside, or a bracket that the engine would take for a repetition
        raise _NotPortableError
    return token


def _escaped(token: str) -> str:
    """Return an escaped character; escaped letters and digits mean what the engine has no way to say."""
    character = token[-1]
    if character.isalnum():
        raise _NotPortableError
    return token if character in _LITERAL else character


def _class(token: str) -> str:
    parts = [_SETS.get(part) or _class_part(part) for part in _CLASS_PART.findall(token[1:-1])]
    return f"[{''.join(parts)}]"


def _class_part(part: str) -> str:
    if not part.startswith("\\"):
        return part
    if part[-1].isalnum():
        raise _NotPortableError
    return part if part[-1] in "]\\-^" else part[-1]
