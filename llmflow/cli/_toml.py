"""Writing TOML that is pleasant to review: long texts stand as they are, in lines of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

__all__ = ["header", "key", "text", "value"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def header(*path: str, many: bool = False) -> str:
    """Return the line that begins a table, or one table of a list."""
    names = ".".join(key(one) for one in path)
    return f"[[{names}]]" if many else f"[{names}]"


def key(name: str) -> str:
    """Return a key, in quotes where it needs them."""
    return name if _BARE.fullmatch(name) else _quoted(name)


def text(value: str) -> str:
    """Return a text: in one line if it is one, else line by line between marks; without escapes where that can be."""
    if "\n" not in value:
        plain = not _CONTROL.search(value) and "'" not in value and ('"' in value or "\\" in value)
        return f"'{value}'" if plain and value.isprintable() else _quoted(value)
    if "'''" in value or value.endswith("'") or _CONTROL.search(value):
        lines = (_quoted(line)[1:-1] for line in value.split("\n"))
        return '"""\n' + "\n".join(lines) + '"""'
    return f"'''\n{value}'''"


def value(given: Any) -> str:
    """Return a value: text, number, truth, or a list or table of them."""
    if isinstance(given, str):
        return _quoted(given)
    if isinstance(given, list | tuple):
        return f"[{', '.join(value(one) for one in cast('list[object]', given))}]"
    if isinstance(given, Mapping):
        pairs = cast("Mapping[str, object]", given).items()
        return f"{{ {', '.join(f'{key(name)} = {value(one)}' for name, one in pairs)} }}"
    return json.dumps(given)


def _quoted(given: str) -> str:
    """Return a text in quotes; JSON's escapes are TOML's, but for one character that JSON does not escape."""
    clean = given.encode("utf-8", "replace").decode()
    return json.dumps(clean, ensure_ascii=False).replace("\x7f", "\\u007f")
