"""What may be read of a type, and which type fits where."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, Protocol, TypedDict, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict

from llmflow.graph._access import Unfit, field_type, item_type
from llmflow.graph._fits import fits
from llmflow.graph._types import cases, items_of, union_of

T = TypeVar("T")
Name = NewType("Name", str)


class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"


class Flags(enum.Flag):
    A = 1


class Model(BaseModel):
    name: str


class Child(Model):
    age: int


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Page(BaseModel, Generic[T]):
    items: list[T]


@dataclass
class Pair(Generic[T]):
    left: T
    right: list[T]
    label: str = ""

    @cached_property
    def both(self) -> int:
        return 2

    @staticmethod
    def helper() -> int:
        return 1


class Row(TypedDict):
    name: str
    note: NotRequired[int]


class Wide(TypedDict):
    name: str
    size: int


class Point(NamedTuple):
    x: int
    y: str


class Plain:
    known: int

    def __init__(self) -> None:
        self.known = 1
        self.other = 2


class Indexed:
    def __getitem__(self, key: str) -> int:
        return 1


class Sized(Protocol):
    size: int


FITS = [
    (int, int, True),
    (int, float, True),
    (float, int, False),
    (bool, int, True),
    (int, complex, True),
    (str, int, False),
    (Any, int, True),
    (str, Any, True),
    (str, object, True),
    (T, int, True),
    (Name, str, True),
    (Annotated[str, "x"], str, True),
    (str | None, str, False),
    (str, str | None, True),
    (None, str | None, True),
    (int | str, int | str | None, True),
    (int | str, int, False),
    (Literal["a"], str, True),
    (Literal["a"], Literal["a", "b"], True),
    (Literal["a", "c"], Literal["a", "b"], False),
    (Literal[1], Literal[True], False),
    (str, Literal["a"], False),
    (bool, Literal[True, False], True),
    (bool, Literal[True], False),
    (Child, Model, True),
    (Model, Child, False),
    (Page[bool], Page[int], True),
    (Page[str], Page[int], False),
    (Page[int], Model, False),
    (list[int], list[float], True),
    (list[int], Sequence[int], True),
    (list[str], Iterable[int], False),
    (list, list[int], True),
    (list[int], list, True),
    (list[Child], list[Model], True),
    (tuple[int, str], tuple[int, str], True),
    (tuple[int, str], tuple[int], False),
    (tuple[int, ...], tuple[int, int], False),
    (tuple[int, int], tuple[int, ...], True),
    (tuple[int, str], tuple[int, ...], False),
    (tuple[int, int], Sequence[int], True),
    (tuple[int, str], Iterable[int], False),
    (tuple[int, ...], list[int], False),
    (dict[str, int], Mapping[str, float], True),
    (dict[str, int], dict[str, str], False),
    (dict[str, int], Iterable[str], True),
    (dict[str, int], Iterable[int], False),
    (Row, Row, True),
    (Wide, Row, True),
    (Row, Wide, False),
    (Row, dict[str, Any], True),
    (Row, Mapping[str, object], True),
    (Row, Model, False),
    (dict[str, Any], Row, False),
    (Plain, Sized, True),
    (Colour, Literal[Colour.RED], False),
    (type, int, False),
]


@pytest.mark.parametrize(("source", "target", "expected"), FITS)
def test_whether_a_type_fits(source: Any, target: Any, expected: bool) -> None:
    """A certain misfit is False, everything unsure is True."""
    assert expected is fits(source, target)


FIELDS = [
    (Model, "name", str),
    (Page[int], "items", list[int]),
    (Pair[int], "left", int),
    (Pair[int], "right", list[int]),
    (Pair[int], "both", int),
    (Pair, "label", str),
    (Point, "y", str),
    (Plain, "known", int),
    (Plain, "other", Any),
    (Any, "anything", Any),
    (Colour, "name", str),
    (Colour, "value", int | str),
    (Child | Model, "name", str),
    (date, "year", Any),
    (Colour, "RED", Any),
]


@pytest.mark.parametrize(("kind", "name", "expected"), FIELDS)
def test_the_type_of_a_field(kind: Any, name: str, expected: Any) -> None:
    """Fields of every kind of class have the type that was declared."""
    assert expected == field_type(kind, name)


@pytest.mark.parametrize(
    ("kind", "name", "why"),
    [
        (Model, "nam", "did you mean 'name'"),
        (Model | None, "name", "None has no field"),
        (Model, "model_dump", "is a method"),
        (Pair[int], "helper", "is a method"),
        (Row, "name", "write \\['name'\\]"),
        (str, "upper", "is a method"),
        (int, "foo", "has no field"),
        (Open, "anything", "no declared field"),
        (list[int], "append", "is a method"),
        (Literal["a"], "upper", "is a method"),
        (Child | int, "name", "int has no field"),
        (date, "yeer", "has no field"),
    ],
)
def test_what_is_no_field(kind: Any, name: str, why: str) -> None:
    """The reason names the type and what comes close."""
    with pytest.raises(Unfit, match=why):
        field_type(kind, name)


ITEMS = [
    (list[int], 0, int),
    (list, 0, Any),
    (tuple[int, str], -1, str),
    (tuple[int, ...], 5, int),
    (tuple, 5, Any),
    (dict[str, int], "a", int),
    (dict[Literal["a"], int], "a", int),
    (dict, "a", Any),
    (Sequence[str], 1, str),
    (str, 0, str),
    (bytes, 0, int),
    (Row, "note", int),
    (Point, 0, int),
    (Indexed, "a", int),
    (Any, "a", Any),
]


@pytest.mark.parametrize(("kind", "key", "expected"), ITEMS)
def test_the_type_of_an_item(kind: Any, key: Any, expected: Any) -> None:
    """Constant indices and keys have the type of what is there."""
    assert expected == item_type(kind, key)


@pytest.mark.parametrize(
    ("kind", "key", "why"),
    [
        (list[int], "a", "whole number"),
        (list[int], True, "whole number"),
        (list[int], slice(0, 1), "slice"),
        (tuple[int, str], 2, "has 2 items"),
        (dict[str, int], 1, "keys of type str"),
        (dict[Literal["a"], int], "b", "keys of type"),
        (Row, "size", "has no key"),
        (Model, "name", "write .name"),
        (int, 0, "has no items"),
        (list[int] | None, 0, "None has no item"),
    ],
)
def test_what_is_no_item(kind: Any, key: Any, why: str) -> None:
    """The reason names the type and the key."""
    with pytest.raises(Unfit, match=why):
        item_type(kind, key)


def test_which_types_can_be_counted() -> None:
    """A switch over them needs no default."""
    assert cases(Literal["a"] | bool | None) == ("a", True, False, None)
    assert cases(Colour) == (Colour.RED, Colour.BLUE)
    assert cases(Flags) is None
    assert cases(str) is None


def test_what_iterating_gives() -> None:
    """A map checks its items against the parameter."""
    assert [int, str, Any, Any, int | str, int | str] == [
        items_of(one) for one in (list[int], dict[str, int], list, Any, tuple[int, str], list[int] | set[str])
    ]
    assert [None, None, None, None] == [items_of(one) for one in (str, Model, Row, int)]


def test_a_union_has_no_repetition() -> None:
    """Branches of one type give that type."""
    assert union_of([int, int]) is int
    assert (int | str | None) == union_of([int | str, str | None])
