"""Following the names of a function to everything of the same program that it depends on."""

from __future__ import annotations

import inspect
import sys
from collections import deque
from dataclasses import dataclass
from types import FunctionType, MemberDescriptorType
from typing import Any, Literal, TypeAlias, cast

from llmflow.versions._fallback import compiled_form, compiled_reads
from llmflow.versions._home import Home, top_of
from llmflow.versions._lookup import NOTHING, Found, Place, origin_of, place_of, place_of_class
from llmflow.versions._normal import normal_form
from llmflow.versions._pieces import Piece, digest_of
from llmflow.versions._refer import Objects, has_a_home, label
from llmflow.versions._scopes import Chain, Reads, reads_of
from llmflow.versions._source import class_node, function_node, module_source, source_text
from llmflow.versions._values import Unseen, Writer

__all__ = ["Closure"]

Followed: TypeAlias = FunctionType | type[Any]


@dataclass(frozen=True, slots=True)
class _Code:
    """A function or class as it is read."""

    form: str
    reads: Reads
    source: str | None


class Closure:
    """Everything that some functions depend on, each thing once, in an order that only the code decides.

    Functions and classes are numbered as they are met, and stand for each other by their numbers: where they are and
    what their modules are called does not matter, and two of the same name stay two. Constants are written out.

    Attributes:
        pieces: What was found, by name.
        missing: What cannot be seen, with the reason.
    """

    def __init__(self, home: Home) -> None:
        self.pieces: dict[str, Piece] = {}
        self.missing: dict[str, str] = {}
        self._home = home
        self._numbers: dict[int, int] = {}
        self._kept: list[Followed] = []
        self._names: list[str] = []
        self._waiting: deque[Followed] = deque()
        self._texts: list[str] = []
        self._objects = Objects(home, self._number, self.missing)
        self._namer = Writer(_name_of, home.relative, _pass_over)

    def add(self, value: Any, name: str) -> str:
        """Return what stands for a function or any other value, and remember to follow it."""
        return self._objects.add(value, name)

    def note(self, name: str, reason: str) -> None:
        """Note what cannot be seen."""
        self.missing.setdefault(name, reason)

    def name_of(self, value: Any) -> str | None:
        """Return what a function that was added is called among the pieces."""
        number = self._numbers.get(id(value))
        return None if number is None else self._names[number]

    def text(self) -> str:
        """Return the text of everything that was added, and of what that depends on."""
        while self._waiting:
            what = self._waiting.popleft()
            try:
                self._follow(what)
            except Exception as exc:  # noqa: BLE001  # the code is anybody's, and a version must not fail a call
                self.note(self._names[self._numbers[id(what)]], f"it cannot be read: {type(exc).__name__}")
        return "\n".join(self._texts)

    def _number(self, what: Followed, name: str) -> str:
        number = self._numbers.get(id(what))
        if number is None:
            number = self._numbers[id(what)] = len(self._kept)
            self._kept.append(what)  # so that its id stays its own
            same = sum(one.partition("#")[0] == name for one in self._names)
            self._names.append(f"{name}#{same + 1}" if same else name)
            self._waiting.append(what)
        return f"#{number}"

    # -- one function or class -----------------------------------------------------------------------------------------

    def _follow(self, what: Followed) -> None:
        name = self._names[self._numbers[id(what)]]
        code = self._read(what, name)
        place = place_of(what) if isinstance(what, FunctionType) else place_of_class(what)
        kind: Literal["function", "class"] = "function" if isinstance(what, FunctionType) else "class"
        self.pieces[name] = Piece(name, kind, digest_of(code.form), code.source)
        uses: dict[str, str] = {}
        for chain in sorted(code.reads.free):
            self._use(chain, code.reads, place, uses)
        if place.owner is not None:
            self._use_object(place.owner, code.reads, place, uses)
        if "__doc__" in code.reads.attributes:
            self.note(f"{name}: .__doc__", "a docstring, which is no part of what code does")
        self._texts.append(f"{code.form}|{';'.join(f'{written}={text}' for written, text in uses.items())}")

    def _read(self, what: Followed, name: str) -> _Code:
        """Return the normal form, the names taken from outside, and the source if there is one."""
        found = function_node(what) if isinstance(what, FunctionType) else class_node(what)
        if found is not None:
            try:
                return _Code(normal_form(found[0]), reads_of(found[0]), source_text(*found))
            except RecursionError:  # an expression of hundreds of parts
                pass
        self.note(name, "there is no source to read")
        if isinstance(what, FunctionType):
            return _Code(compiled_form(what), compiled_reads(what), None)
        fields = cast("tuple[str, ...]", getattr(what, "_fields", ()))
        return _Code(f"class {what.__qualname__}({','.join(fields)})", Reads(), None)

    # -- one name ------------------------------------------------------------------------------------------------------

    def _use(self, chain: Chain, reads: Reads, place: Place, uses: dict[str, str]) -> None:
        """Note what a name stands for, unless it needs no listing."""
        try:
            found = place.find(chain, reads, self._home)
            text = self._text_of(found)
        except Unseen as exc:
            self.note(".".join(chain[:2]), str(exc))
        except Exception as exc:  # noqa: BLE001  # the objects are anybody's, and a version must not fail a call
            self.note(".".join(chain[:2]), f"it cannot be looked at: {type(exc).__name__}")
        else:
            if text is not None:
                uses[found.written] = text

    def _use_object(self, owner: type[Any], reads: Reads, place: Place, uses: dict[str, str]) -> None:
        """Note what a method reads from its object and finds in the class; the rest comes with the call."""
        for name in sorted(reads.bound):
            written = f"self.{name}"
            value = inspect.getattr_static(owner, name, None)
            if name.startswith("__"):
                continue
            if value is None or isinstance(value, MemberDescriptorType):
                self.note(written, "of the object, so it is an input")
                continue
            try:
                text = self._text_of(Found(value, written, f"{owner.__qualname__}.{name}", place.module))
            except Unseen as exc:
                self.note(written, str(exc))
            else:
                uses[written] = text or ""

    def _text_of(self, found: Found) -> str | None:
        """Return what stands for an object, None for what is of Python or llmflow."""
        value = found.value
        if value is NOTHING or (has_a_home(value) and self._objects.is_known(value)):
            return None
        if has_a_home(value):
            return self._objects.write(value, found.written)
        name, origin = origin_of(found.name, found.module, self._home)
        standing = "own" if origin is None else self._home.standing(origin)
        if standing == "known":
            return None
        if standing == "foreign":
            msg = f"of another package, {top_of(str(origin))}"
            raise Unseen(msg)
        text = self._objects.write(value, found.written)
        if top_of(type(value).__module__) != "llmflow" and text != "Logger":
            self._note_constant(value, name, origin)
        return text

    def _note_constant(self, value: Any, name: str, module: str | None) -> None:
        around = None if module is None else sys.modules.get(module)
        source = None if around is None else module_source(around)
        statement = None if source is None else source.assigned.get(name)
        lines = None if statement is None or source is None else source_text(statement, source)
        shown = f"{label(module)}{name}"
        self.pieces[shown] = Piece(shown, "constant", digest_of(self._namer.write(value)), lines)


def _pass_over(part: Any, reason: str) -> None:
    """Say nothing of a part that cannot be seen: it has been said."""


def _name_of(value: Any) -> str:
    """Return a name for what is no data inside a constant; the thing itself is a piece of its own."""
    return str(getattr(value, "__qualname__", type(value).__qualname__))
