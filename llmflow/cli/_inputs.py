"""Arguments of a call from JSON, validated against the annotations."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from llmflow.cli._failures import UsageError, in_own_words
from llmflow.step import Unit

__all__ = ["InputReader", "read_source"]

_MOST_PROBLEMS = 5
_SAMPLES: tuple[tuple[type, object], ...] = (
    (int, 1),
    (float, 1.5),
    (bool, True),
    (list, ["..."]),
    (dict, {"...": "..."}),
)


def read_source(source: str) -> str:
    """Return the text that `--input` stands for: itself, `@file`, or `-` for what is on stdin.

    Raises:
        UsageError: When the file cannot be read.
    """
    if source == "-":
        return sys.stdin.read()
    if not source.startswith("@"):
        return source
    try:
        return Path(source[1:]).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        hint = "For a text that begins with @, write it as a JSON string in quotes."
        raise UsageError(f"--input {source}: cannot read the file: {reason}", hint) from exc


class InputReader:
    """Turns JSON into the arguments of one step, task or flow.

    An object whose keys are parameters gives them by name. For a target of one parameter anything else is its argument,
    and plain text need not be quoted when that parameter is a `str`.

    Args:
        unit: What will be called.
    """

    def __init__(self, unit: Unit[..., Any]) -> None:
        self._unit = unit
        self._names = unit.signature.names
        self._required = unit.signature.required
        self._hints = unit.signature.hints
        self._only = self._single()

    def _single(self) -> str | None:
        """Return the parameter that a bare value is for, None when it could be for several."""
        if len(self._required) == 1:
            return self._required[0]
        return self._names[0] if len(self._names) == 1 else None

    @property
    def example(self) -> str:
        """An `--input` as this target wants it."""
        shown = {name: _sample(self._hints.get(name)) for name in self._required or self._names}
        return f"--input '{json.dumps(shown)}'"

    def nothing(self) -> dict[str, object]:
        """Return the arguments of a call without input.

        Raises:
            UsageError: When the target has parameters that need a value.
        """
        if self._required:
            wanted = ", ".join(f"{name}: {self._type(name)}" for name in self._required)
            raise UsageError(f"{self._unit.kind} {self._unit.name!r} needs {wanted}", f"Give it with {self.example}.")
        return {}

    def read(self, text: str, *, plain: bool = True) -> dict[str, object]:
        """Return the arguments that a text stands for.

        Args:
            text: JSON.
            plain: Take what is no JSON for a text, where a text is what the target wants.

        Raises:
            UsageError: Naming the parameter and what is wrong with it.
        """
        text = text.strip()
        takes_text = plain and self._only is not None and self._hints.get(self._only) is str
        try:
            value: object = json.loads(text, parse_constant=_no_constant)
        except ValueError as exc:
            if takes_text and text and text[0] not in '{["':
                return {self._only or "": text}
            raise UsageError(f"the input is not JSON: {_problem(exc)}", *self._quoting(takes_text=takes_text)) from exc
        bare = isinstance(value, int | float | None)
        return self.arguments(text if takes_text and bare else value)  # 42 or true may be meant as text

    def _quoting(self, *, takes_text: bool) -> tuple[str, ...]:
        if takes_text:
            return ('A text that begins with {, [ or " must be a JSON string in quotes.',)
        return (f"Write it as {self.example}.",) if self._names else ()

    def arguments(self, value: object) -> dict[str, object]:
        """Return the arguments that a JSON value stands for.

        Raises:
            UsageError: Naming the parameter and what is wrong with it.
        """
        given = self._by_name(value)
        problems = [f"{name} is missing" for name in self._required if name not in given]
        validated: dict[str, object] = {}
        for name, one in given.items():
            try:
                validated[name] = _validated(self._hints.get(name, Any), one)
            except ValidationError as exc:
                problems += _said(name, exc)
            except PydanticUserError as exc:
                problems.append(f"{name}: {self._type(name)} cannot be made from JSON ({exc.message.splitlines()[0]})")
        if problems:
            told = "; ".join(problems[:_MOST_PROBLEMS]) + ("; ..." if len(problems) > _MOST_PROBLEMS else "")
            raise UsageError(
                f"the input does not fit {self._unit.kind} {self._unit.name!r}: {told}", f"It takes {self._shape()}."
            )
        return validated

    def _by_name(self, value: object) -> Mapping[str, object]:
        named = _as_object(value)
        if named is not None and named.keys() <= set(self._names):
            return named
        if self._only is not None and (named is None or self._may_be(self._only, named)):
            return {self._only: value}
        if named is None:
            raise UsageError(
                f"the input is {_json_type(value)}, but {self._unit.kind} {self._unit.name!r} takes {self._shape()}",
                f"Write it as {self.example}.",
            )
        unknown = next(name for name in named if name not in self._names)
        raise UsageError(
            f"{self._unit.kind} {self._unit.name!r} has no parameter {unknown!r}", f"It takes {self._shape()}."
        )

    def _may_be(self, name: str, named: Mapping[str, object]) -> bool:
        """Whether an object may be the argument itself, rather than arguments by wrong names."""
        return name not in named and self._hints.get(name) not in (str, int, float, bool)

    def _shape(self) -> str:
        if not self._names:
            return "no arguments"
        return ", ".join(
            f"{name}: {self._type(name)}" + ("" if name in self._required else " (optional)") for name in self._names
        )

    def _type(self, name: str) -> str:
        hint = self._hints.get(name, Any)
        return (
            hint.__name__
            if isinstance(hint, type) and not hasattr(hint, "__args__")
            else str(hint).replace("typing.", "")
        )


def _sample(hint: object) -> object:
    """Return a value of roughly the right kind, to show where it goes."""
    kind = getattr(hint, "__origin__", hint)
    if isinstance(kind, type) and hasattr(kind, "model_fields"):
        return {"...": "..."}
    return next((sample for known, sample in _SAMPLES if kind is known), "...")


def _no_constant(name: str) -> object:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def _problem(exc: ValueError) -> str:
    if isinstance(exc, json.JSONDecodeError):
        return f"{exc.msg} at line {exc.lineno}, column {exc.colno}"
    return str(exc)


def _validated(hint: Any, value: object) -> object:
    return _adapter(hint).validate_json(json.dumps(value))


@cache
def _cached_adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)


def _adapter(hint: Any) -> TypeAdapter[Any]:
    try:
        return _cached_adapter(hint)
    except TypeError:  # an annotation that cannot be hashed, such as Annotated[int, {...}]
        return TypeAdapter(hint)


def _said(name: str, exc: ValidationError) -> list[str]:
    lines: list[str] = []
    for error in exc.errors(include_url=False, include_context=False, include_input=False):
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
        lines.append(f"{name}{place}: {in_own_words(error['msg'])}")
    return lines


def _as_object(value: object) -> dict[str, object] | None:
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def _json_type(value: object) -> str:
    names: dict[type, str] = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        type(None): "null",
    }
    return names.get(type(value), "an object")
