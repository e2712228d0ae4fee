"""The text of a prompt file: TOML between two lines of `+++`, then the template."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, cast

from llmflow.errors import DefinitionError
from llmflow.prompts import Wording

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmflow.models import Params

__all__ = ["read_wording"]

_FENCE = "+++"
_KINDS: Mapping[str, tuple[type[Any], str]] = {
    "description": (str, "a text"),
    "params": (dict, "a table"),
    "system": (str, "a text"),
}


def read_wording(data: bytes, origin: str) -> Wording:
    """Return the prompt that a file holds.

    Args:
        data: The file's bytes, UTF-8.
        origin: What to call the file in messages.

    Raises:
        DefinitionError: For what is no prompt file, naming it and the line.
    """
    lines = _text(data, origin).split("\n")
    first = next((n for n, line in enumerate(lines) if line.strip()), 0)
    opening = lines[first].rstrip()
    if opening == "---":
        msg = f"{origin} opens with '---', the sign of YAML; its front matter is TOML between two lines of '{_FENCE}'"
        raise DefinitionError(msg)
    if opening != _FENCE:
        return Wording("\n".join(lines), origin=origin)
    end = next((n for n in range(first + 1, len(lines)) if lines[n].rstrip() == _FENCE), None)
    if end is None:
        msg = f"{origin}: the front matter that line {first + 1} opens is never closed by a line '{_FENCE}'"
        raise DefinitionError(msg)
    # Lines before the front matter stand for themselves, so that TOML counts as the file does.
    said = _front_matter("\n" * (first + 1) + "\n".join(lines[first + 1 : end]) + "\n", origin)
    params = cast("Params | None", said.pop("params", None))
    return Wording("\n".join(lines[end + 1 :]), params=params, origin=origin, line=end + 2, **said)


def _text(data: bytes, origin: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data[: exc.start].count(b"\n") + 1
        msg = f"{origin} is not UTF-8: line {line} has the byte 0x{data[exc.start]:02x}"
        raise DefinitionError(msg) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _front_matter(text: str, origin: str) -> dict[str, Any]:
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        msg = f"{origin}: its front matter is no TOML: {exc}"
        raise DefinitionError(msg) from None
    for name, value in said.items():
        if name not in _KINDS:
            msg = f"{origin}: unknown key {name!r} in its front matter; known are {', '.join(_KINDS)}"
            raise DefinitionError(msg)
        kind, expected = _KINDS[name]
        if not isinstance(value, kind):
            msg = f"{origin}: {name} is {value!r}, expected {expected}"
            raise DefinitionError(msg)
    return said
