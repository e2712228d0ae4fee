"""What is known of a structured answer while it is still being written."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from pydantic import AliasChoices, BaseModel, RootModel, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic_core import SchemaError, ValidationError, from_json, to_json

from llmflow.schema._annotations import unwrap

__all__ = ["Partial", "View", "view_of"]

T_co = TypeVar("T_co", covariant=True)

_NUMBER = "0123456789+-.eE"


class Partial(Generic[T_co]):
    """A `T` that is still being written: it has the fields that have come, and no others.

    `hasattr(snapshot, "category")` says whether a field has come. Text fields grow while they are written; every other
    field is there once it is complete, converted to its type. Fields that are models are partial too. Nothing has been
    validated as a whole: only the stream's `final()` is.
    """

    __slots__ = ("_fields", "_name")

    _fields: dict[str, Any]
    _name: str

    def __init__(self, fields: Mapping[str, Any], name: str = "") -> None:
        object.__setattr__(self, "_fields", dict(fields))
        object.__setattr__(self, "_name", name)

    @property
    def model_fields_set(self) -> set[str]:
        """Names of the fields that have come."""
        return set(self._fields)

    def model_dump(self) -> dict[str, Any]:
        """Return the fields that have come as plain data."""
        return {name: _plain(value) for name, value in self._fields.items()}

    def model_dump_json(self) -> str:
        """Return the fields that have come as JSON."""
        return to_json(self.model_dump()).decode()

    def __getattr__(self, name: str) -> Any:
        if name in self.__slots__:  # asked for by who copies an object before it has any
            raise AttributeError(name)
        try:
            return self._fields[name]
        except KeyError:
            msg = f"{self!r} has no {name!r} yet"
            raise AttributeError(msg) from None

    def __setattr__(self, name: str, value: object) -> None:
        msg = f"{name!r} cannot be set: a partial answer only says what has come"
        raise AttributeError(msg)

    def __dir__(self) -> Iterator[str]:
        return iter([*super().__dir__(), *self._fields])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Partial) and other._fields == self._fields

    def __reduce__(self) -> tuple[Any, ...]:
        return Partial, (self._fields, self._name)

    __hash__ = None  # type: ignore[assignment]  # equal by content, which may hold lists

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self._fields.items())
        return f"Partial[{self._name}]({fields})"


def _plain(value: Any) -> Any:
    if isinstance(value, Partial):
        return value.model_dump()  # pyright: ignore[reportUnknownVariableType]  # narrowed from Any, which has no argument
    return [_plain(one) for one in value] if isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType]


class _Missing:
    """Stands for what has not come."""


_MISSING: Any = _Missing()

Read: TypeAlias = Callable[[Any, Any], Any]
"""Takes a value as it is in the text so far, and as it is without what is still open at the text's end."""
View: TypeAlias = Callable[[str], Any]
"""Makes a snapshot from the text so far, None when there is nothing to show."""


def view_of(annotation: Any, *, wrapped: bool) -> View | None:
    """Return what shows an unfinished answer of this type, None for a type that has no parts to show.

    Args:
        annotation: The return annotation of a step.
        wrapped: Whether the answer is asked for inside an object with the one field `content`.
    """
    read = _Readers().of(annotation)
    if isinstance(read, _Leaf):
        return None

    def view(text: str) -> Any:
        start = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=-1)
        if start < 0:
            return None
        try:
            # Text that is open at the end is text; any other value there might go on.
            shown = from_json(text[start:], allow_partial="trailing-strings")
            closed = from_json(text[start:].rstrip(_NUMBER), allow_partial=True)
        except ValueError:
            return None
        if wrapped and isinstance(shown, dict):
            shown, closed = _item(shown, "content"), _item(closed, "content")
        value = _MISSING if shown is _MISSING else read(shown, closed)
        return None if value is _MISSING else value

    return view


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]


def _item(owner: Any, key: str) -> Any:
    return cast("dict[str, Any]", owner).get(key, _MISSING) if isinstance(owner, dict) else _MISSING


class _Readers:
    """Makes the readers of one annotation; a recursive model's is made once."""

    def __init__(self) -> None:
        self._made: dict[Any, Read] = {}
        self._roots: dict[Any, Read] = {}

    def of(self, annotation: Any) -> Read:
        """Return what reads values of a type."""
        annotation = unwrap(annotation)
        if isinstance(annotation, types.GenericAlias | type) or get_origin(annotation) is not None:
            origin = get_origin(annotation) or annotation
            if origin in (Union, types.UnionType):
                return self._of_union(get_args(annotation))
            if origin in (list, tuple):
                return self._of_items(annotation, origin)
            if _is_root(origin):
                return self._of_root(annotation)
            if _has_fields(origin):
                return self._of_fields(annotation, origin)
        return _Leaf(annotation)

    def _of_union(self, members: tuple[Any, ...]) -> Read:
        others = [one for one in members if one is not type(None)]
        if len(others) > 1:  # which member it will be is known only at the end
            return _untyped if any(_has_fields(get_origin(one) or one) for one in others) else _Leaf(Union[members])  # noqa: UP007  # members are data
        read = self.of(others[0])
        if isinstance(read, _Leaf) and not read.is_text:
            return _Leaf(Union[members])  # noqa: UP007
        return lambda shown, closed: closed if shown is None else read(shown, closed)

    def _of_items(self, annotation: Any, origin: Any) -> Read:
        inner = get_args(annotation)
        if origin is tuple and not (len(inner) == 2 and inner[1] is Ellipsis):  # noqa: PLR2004  # tuple[X, ...]
            return _Leaf(annotation)
        read = self.of(inner[0]) if inner else _Leaf(Any)

        def items(shown: Any, closed: Any) -> Any:
            if not isinstance(shown, list):
                return _MISSING
            came, ready = _items(shown), _items(closed)
            values = [read(one, ready[index] if index < len(ready) else _MISSING) for index, one in enumerate(came)]
            return [one for one in values if one is not _MISSING]

        return items

    def _of_root(self, model: Any) -> Read:
        """A model whose one field is not written: its answer is what stands in it."""

        def read(shown: Any, closed: Any) -> Any:
            if model not in self._roots:  # not before: the model may have itself inside
                self._roots[model] = self.of(model.model_fields["root"].annotation)
            root = self._roots[model](shown, closed)
            return _MISSING if root is _MISSING else Partial[Any]({"root": root}, model.__name__)

        return read

    def _of_fields(self, annotation: Any, origin: Any) -> Read:
        if annotation in self._made:
            return self._made[annotation]
        fields: dict[str, tuple[str, Read]] | None = None

        def read(shown: Any, closed: Any) -> Any:
            nonlocal fields
            if not isinstance(shown, dict):
                return _MISSING
            if fields is None:  # not before: a model may have itself among its fields
                fields = {key: (name, self.of(kind)) for key, name, kind in _fields_of(origin)}
            found: dict[str, Any] = {}
            for key, value in cast("dict[str, Any]", shown).items():
                if key in fields:
                    name, read_field = fields[key]
                    if (part := read_field(value, _item(closed, key))) is not _MISSING:
                        found[name] = part
            return Partial[Any](found, origin.__name__)

        self._made[annotation] = read
        return read


class _Leaf:
    """Reads a value without parts: text as far as it has come, anything else once it is complete."""

    def __init__(self, annotation: Any) -> None:
        self.is_text = annotation is str
        self._annotation = annotation
        self._adapter: TypeAdapter[Any] | None = None

    def __call__(self, shown: Any, closed: Any) -> Any:
        if self.is_text:
            return shown if isinstance(shown, str) else _MISSING
        if closed is _MISSING:
            return _MISSING
        try:
            if self._adapter is None:
                self._adapter = TypeAdapter(self._annotation)
            return self._adapter.validate_python(closed)
        except (ValidationError, SchemaError, PydanticUserError):
            return _MISSING


def _untyped(shown: Any, closed: Any) -> Any:
    """Read what may be one of several models."""
    if isinstance(shown, dict):
        pairs = ((key, _untyped(one, _item(closed, key))) for key, one in cast("dict[str, Any]", shown).items())
        return Partial[Any]({key: value for key, value in pairs if value is not _MISSING})
    return shown if isinstance(shown, str) else closed


def _has_fields(kind: Any) -> bool:
    """Whether it is a model, a dataclass or a TypedDict, also that of typing_extensions."""
    return _is_model(kind) or dataclasses.is_dataclass(kind) or hasattr(kind, "__required_keys__")


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _is_root(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, RootModel)


def _fields_of(kind: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield the key in the answer, the name and the type of each field; a field may have several keys."""
    if _is_model(kind):
        for name, field in kind.model_fields.items():
            alias = field.validation_alias or field.alias
            choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
            for key in {name, *(one for one in choices if isinstance(one, str))}:
                yield key, name, field.annotation
        return
    try:
        hints = get_type_hints(kind)
    except NameError:  # names of a function's own; shown as they come
        hints = dict.fromkeys(kind.__annotations__, Any)
    for name, annotation in hints.items():
        yield name, name, annotation
