"""What is shown of a structured answer while it is being written."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Annotated, Any, Generic, Literal, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from llmflow.schema import OutputSchema, Partial

T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    REDDISH = "reddish"


class Item(BaseModel):
    name: str
    count: int = 1


class Order(BaseModel):
    buyer: str
    first: Item | None = None
    items: list[Item] = []
    due: date | None = None
    colour: Colour | None = None
    tags: dict[str, int] = {}
    note: str | None = Field(default=None, validation_alias="remark")


class Tree(BaseModel):
    label: str
    children: list[Tree] = []


class Page(BaseModel, Generic[T]):
    rows: list[T]


class Card(BaseModel):
    kind: Literal["card"]
    number: str


class Cash(BaseModel):
    kind: Literal["cash"]


class Payment(BaseModel):
    by: Card | Cash
    amount: int | float


@dataclass
class Point:
    x: int
    label: str


class Entry(TypedDict):
    word: str
    sense: str


def shown(annotation: Any, text: str) -> Any:
    view = OutputSchema.of(annotation, step="s").view
    assert view is not None
    value = view(text)
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Partial):
        return {name: _plain(getattr(value, name)) for name in value.model_fields_set}
    return [_plain(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("Here it is: ", None),
        ("{", {}),
        ('{"bu', {}),
        ('{"buyer": ', {}),
        ('{"buyer": "An', {"buyer": "An"}),
        ('{"buyer": "Ann", "first": {"name": "pe', {"buyer": "Ann", "first": {"name": "pe"}}),
        ('{"first": {"name": "pen", "count": 1', {"first": {"name": "pen"}}),
        ('{"first": {"name": "pen", "count": 12}', {"first": {"name": "pen", "count": 12}}),
        ('{"first": null', {"first": None}),
        ('{"items": [{"name": "a"}, {"na', {"items": [{"name": "a"}, {}]}),
        ('{"due": "2026-01-0', {}),
        ('{"due": "2026-01-02"', {"due": date(2026, 1, 2)}),
        ('{"colour": "red', {}),
        ('{"colour": "red"', {"colour": Colour.RED}),
        ('{"tags": {"a": 1, "b": 2', {"tags": {"a": 1}}),
        ('{"remark": "as', {"note": "as"}),
        ('{"unknown": 1, "buyer": "A', {"buyer": "A"}),
        ('{"buyer": 5', {}),
        ('{"buyer": 5}', {}),
        ('Sure:\n```json\n{"buyer": "A', {"buyer": "A"}),
        ('{"buyer" "A', None),
        ('{"first": 5, "buyer": "A"}', {"buyer": "A"}),
        ('{"items": 5}', {}),
    ],
)
def test_a_model_shows_what_has_come(text, expected):
    """Text grows; every other value comes when it is complete, converted to its type; what does not fit is left out."""
    assert expected == shown(Order, text)


@pytest.mark.parametrize(
    ("annotation", "text", "expected"),
    [
        (list[Item], '{"content": [{"name": "a"}, {"name": "b', [{"name": "a"}, {"name": "b"}]),
        (list[Item], '[{"name": "a', [{"name": "a"}]),
        (list[str], '{"content": ["a", "b', ["a", "b"]),
        (list[int], '{"content": [1, 2', [1]),
        (list, '{"content": [1, 2', [1]),
        (list[int], '{"con', None),
        (tuple[int, ...], '{"content": [1, 2, 3]}', [1, 2, 3]),
        (Point, '{"content": {"x": 1, "label": "ab', {"x": 1, "label": "ab"}),
        (Entry, '{"content": {"word": "tea", "sense": "a dr', {"word": "tea", "sense": "a dr"}),
        (Page[Item], '{"rows": [{"name": "a', {"rows": [{"name": "a"}]}),
        (Annotated[list[str], Field(min_length=3)], '["a', ["a"]),
        (Payment, '{"by": {"kind": "card", "number": "4', {"by": {"kind": "card", "number": "4"}}),
        (Payment, '{"by": {"kind": "card"}, "amount": 1.5}', {"by": {"kind": "card"}, "amount": 1.5}),
        (Tree, '{"label": "a", "children": [{"label": "b', {"label": "a", "children": [{"label": "b"}]}),
        (Item | None, '{"content": {"name": "a', {"name": "a"}),
        (str | None, '{"content": "ab', "ab"),
        (Item | Card, '{"content": {"name": "a', {"name": "a"}),
    ],
)
def test_every_type_with_parts_has_a_view(annotation, text, expected):
    """Lists, dataclasses, typed dictionaries, generic and recursive models and unions show their parts."""
    assert expected == shown(annotation, text)


@pytest.mark.parametrize(
    "annotation", [int, float, bool, Literal["a", "b"], Colour, date, dict[str, int], int | None, tuple[int, str]]
)
def test_a_type_without_parts_has_none(annotation):
    """Half a number is no number."""
    assert OutputSchema.of(annotation, step="s").view is None


def test_names_of_a_function_are_shown_as_they_come():
    """A dataclass may refer to classes that only a function knows."""

    class Local(BaseModel):
        word: str

    @dataclass
    class Holder:
        local: Local

    schema = OutputSchema.of(Holder, step="s", namespace=locals())
    assert schema.view is not None

    assert {"word": "a"} == schema.view('{"content": {"local": {"word": "a"').local


def test_a_partial_says_what_it_has():
    """Fields that have not come are absent, and asking for them says so."""
    partial: Partial[Item] = OutputSchema.of(Item, step="s").view('{"name": "pen"')

    assert {"name"} == partial.model_fields_set
    assert "name" in dir(partial)
    assert "pen" == partial.name
    assert 7 == getattr(partial, "count", 7)
    with pytest.raises(AttributeError, match=r"Partial\[Item\]\(name='pen'\) has no 'count' yet"):
        _ = partial.count


def test_a_partial_cannot_be_changed():
    """It only says what has come."""
    partial = Partial({"name": "pen"})

    with pytest.raises(AttributeError, match="cannot be set"):
        partial.name = "cup"
    with pytest.raises(TypeError):
        hash(partial)


def test_partials_are_compared_by_what_they_have():
    """Two that show the same are equal."""
    assert Partial({"a": [1]}) == Partial({"a": [1]})
    assert Partial({"a": [1]}) != Partial({"a": [2]})
    assert Partial({}) != {}


def test_a_partial_can_be_dumped():
    """As plain data, for sending it on."""
    partial = OutputSchema.of(Order, step="s").view('{"buyer": "A", "items": [{"name": "b"}], "first": {"name": "c"}')

    expected = {"buyer": "A", "items": [{"name": "b"}], "first": {"name": "c"}}
    assert expected == partial.model_dump()
    assert expected == json.loads(partial.model_dump_json())


def test_a_partial_can_be_copied():
    """As any value: by `copy`, by `pickle`, between processes."""
    partial = OutputSchema.of(Item, step="s").view('{"name": "pen"')

    assert partial == copy.deepcopy(partial) == copy.copy(partial)
    assert "Partial[Item](name='pen')" == repr(copy.copy(partial))
    with pytest.raises(AttributeError):
        _ = Partial.__new__(Partial)._fields


TREES = st.recursive(
    st.builds(Tree, label=st.text(max_size=5)),
    lambda inner: st.builds(Tree, label=st.text(max_size=5), children=st.lists(inner, max_size=3)),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(tree=TREES, escaped=st.booleans())
def test_what_has_come_only_grows(tree, escaped):
    """Cut anywhere, the view is a prefix of the whole: no field goes away, no text is taken back; at the end it is all."""
    text = json.dumps(tree.model_dump(), ensure_ascii=escaped)
    view = OutputSchema.of(Tree, step="s").view
    assert view is not None
    before: Any = Partial({})

    for end in range(1, len(text) + 1):
        now = view(text[:end])
        assert _is_prefix(before, now)
        before = now

    assert tree.model_dump() == before.model_dump()


def _is_prefix(before: Any, now: Any) -> bool:
    if isinstance(before, Partial):
        return all(_is_prefix(getattr(before, name), getattr(now, name)) for name in before.model_fields_set)
    if isinstance(before, list):
        return all(_is_prefix(one, other) for one, other in zip(before, now, strict=False)) and len(before) <= len(now)
    return now.startswith(before)
