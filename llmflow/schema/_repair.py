"""Finding the JSON in an answer that is nearly JSON, in linear time.

Which of several values is taken: the first complete one, inside the first fenced block that holds one if there are
fences, else in the whole text. An object that begins and does not end well stops the search, because a fragment from
the inside of a broken answer could pass for the answer.
"""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["repair_json"]

_MOST_LAYERS = 3
"""How often JSON may be encoded as a string of JSON."""
_MOST_ATTEMPTS = 100
"""How many brackets of a prose text are tried; each try may read the text once."""
_MOST_BLOCKS = 20
_MOST_MENDED = 1_000_000
"""Longer answers are not mended inside: commas and control characters stay as they are."""

_BLANK = " \t\r\n\f\v\ufeff\u00a0\u200b\u200c\u200d\u2060\u202f\u3000"
_FENCE = "```"

# Possessive quantifiers (*+) never give back what they took, so none of these can backtrack.
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_OBJECT = rf"\{{\s*+(?:\}}|{_STRING}\s*+:)"
_OBJECT_OR_OBJECTS = re.compile(rf"{_OBJECT}|\[\s*+[\[{{]", re.DOTALL)
_ANY_VALUE = re.compile(rf'{_OBJECT}|\[\s*+[\[{{\]"\-0-9tfn]', re.DOTALL)
_INFO_WORD = re.compile(r"[A-Za-z0-9_+.\-]*+[ \t\r]*+\n")
_MENDABLE = re.compile(rf"{_STRING}|,(?=\s*+[}}\]])|[\u00a0\u200b\u2060\u202f\u3000\ufeff]", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f]")

# Numbers stay text: nothing is computed from them here, and a 5,000-digit integer would be an error.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)
_LENIENT = json.JSONDecoder(parse_int=str, parse_float=str, strict=False)


def repair_json(text: str, *, object_expected: bool) -> str | None:
    """Return the JSON text inside `text`, or None when it is plain JSON already or holds none.

    Args:
        text: The answer of a model.
        object_expected: The answer should be an object, so `[1]` in the prose around it is a footnote.
    """
    candidate = text
    for _ in range(_MOST_LAYERS):
        found = _found(candidate.strip(_BLANK), _OBJECT_OR_OBJECTS if object_expected else _ANY_VALUE)
        if found is None:
            return None
        decoded = _decoded_string(found)
        if decoded is None:
            return found if found != text else None
        candidate = decoded
    return None


def _found(text: str, starts: re.Pattern[str]) -> str | None:
    if _is_json(text):
        return text
    if text.startswith(("{\\", "[\\", "[{\\")) and _decoded_string(f'"{text}"') is not None:
        return f'"{text}"'
    for block in islice(_fenced_blocks(text), _MOST_BLOCKS):
        if _is_json(block):
            return block
        if (value := _first_value(block, starts) or _mended_value(block, starts)) is not None:
            return value
    return _first_value(text, starts) or _mended_value(text, starts)


def _is_json(text: str) -> bool:
    return _read(text, 0) == (True, len(text))


def _read(text: str, start: int) -> tuple[bool, int]:
    """Read one JSON value; return whether it is complete, and where it ends or breaks off."""
    try:
        return True, _DECODER.raw_decode(text, start)[1]
    except json.JSONDecodeError as error:
        return False, error.pos
    except RecursionError:
        return False, len(text)


def _decoded_string(found: str) -> str | None:
    """Return what a JSON string says when that may be JSON itself, else None."""
    if not found.startswith('"'):
        return None
    try:
        decoded: Any = _LENIENT.decode(found)
    except (ValueError, RecursionError):
        return None
    return decoded if isinstance(decoded, str) and any(mark in decoded for mark in '{["') else None


def _fenced_blocks(text: str) -> Iterator[str]:
    """Yield what is between fences that stand at the start of a line; inside a JSON string no line can start."""
    fences = iter(_fences(text))
    for opening in fences:
        closing = next(fences, len(text))
        block = text[opening + len(_FENCE) : closing]
        info = _INFO_WORD.match(block)
        yield (block[info.end() :] if info else block).strip(_BLANK)


def _fences(text: str) -> Iterator[int]:
    position = text.find(_FENCE)
    while position >= 0:
        line = text.rfind("\n", 0, position) + 1
        if not text[line:position].strip(_BLANK):
            yield position
        end_of_line = text.find("\n", position)
        position = text.find(_FENCE, end_of_line) if end_of_line >= 0 else -1


def _first_value(text: str, starts: re.Pattern[str]) -> str | None:
    position = 0
    for _ in range(_MOST_ATTEMPTS):
        start = starts.search(text, position)
        if start is None:
            return None
        complete, end = _read(text, start.start())
        if complete:
            return text[start.start() : end]
        if not _is_prose(text, start, end):
            return None
        position = max(start.end(), end)
    return None


def _is_prose(text: str, start: re.Match[str], end: int) -> bool:
    """Tell `[1 of 2]`, which is prose, from an array or object that breaks off at `end`."""
    return start.group()[-1] in '"-0123456789tfn' and "," not in text[start.start() : end]


def _mended_value(text: str, starts: re.Pattern[str]) -> str | None:
    if len(text) > _MOST_MENDED:
        return None
    start = starts.search(text)
    if start is None:
        return None
    return _first_value(_MENDABLE.sub(_mend, text[start.start() :]), starts)


def _mend(match: re.Match[str]) -> str:
    """Escape control characters inside a string; drop a trailing comma; write an exotic blank as a space."""
    found = match.group()
    if found.startswith('"'):
        return _CONTROL.sub(lambda control: f"\\u{ord(control.group()):04x}", found)
    return "" if found == "," else " "
