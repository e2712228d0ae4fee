"""What a run keeps of its values: what is read back is the same in every part, or nothing is kept."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import math
import re
import uuid
from collections import OrderedDict
from pathlib import PurePosixPath
from typing import Any, Generic, Literal, NamedTuple, TypeVar, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, RootModel, SecretStr, field_serializer, field_validator
from typing_extensions import TypedDict

from llmflow.schema import OutputSchema, codec_of

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"


class Word(str, enum.Enum):
    YES = "yes"


class Size(enum.IntEnum):
    BIG = 3


class Ticket(BaseModel):
    category: Literal["bug", "other"]
    when: dt.datetime
    score: float = 0.5


class Aliased(BaseModel):
    number: int = Field(alias="theNumber")


class TwoAliases(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    number: int = Field(validation_alias="in", serialization_alias="out")


class Box(BaseModel, Generic[T]):
    inside: T
    more: dict[int, T] = {}


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")


class Tree(BaseModel):
    children: list[Tree] = []


class Numbers(RootModel[list[int]]):
    pass


class Secret(BaseModel):
    word: SecretStr | None = None


class Private(BaseModel):
    number: int
    _more: int = PrivateAttr(0)


class Hidden(BaseModel):
    number: int = Field(0, repr=False, exclude=True)


class Base(BaseModel):
    number: int


class Derived(Base):
    more: str = "x"


class Grows(BaseModel):
    text: str

    @field_validator("text")
    @classmethod
    def grow(cls, value):
        return value + "!"


class Breaks(BaseModel):
    text: str

    @field_validator("text")
    @classmethod
    def need_context(cls, value, info):
        return info.context.prefix + value  # AttributeError without a context


class BreaksOut(BaseModel):
    text: str

    @field_serializer("text")
    def never(self, value):
        raise KeyError(value)


@dataclasses.dataclass
class Point:
    x: float
    names: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(eq=False)
class SameByEye:
    x: int


class Row(TypedDict):
    number: int
    text: str


class Pair(NamedTuple):
    number: int
    text: str


def named(value):
    """Return what a test is called by, the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


class Angry:
    def __eq__(self, other):
        raise RuntimeError("no")

    __hash__ = object.__hash__

    def __repr__(self):  # names a test, which must be called the same in every process
        return "Angry()"


def look(value):
    """Return type and looks of a value, without those of its time zones: UTC has several objects."""
    return type(value), repr(value).replace("TzInfo(UTC)", "UTC").replace("TzInfo(0)", "UTC").replace(
        repr(dt.UTC), "UTC"
    )


NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (str, "é\n\0"),
        (int, 10**30),
        (float, math.nan),
        (float, -math.inf),
        (type(None), None),
        (bool, True),
        (bytes, b"\xff\0"),
        (dt.datetime, NOW),
        (dt.timedelta, dt.timedelta(days=1, microseconds=1)),
        (decimal.Decimal, decimal.Decimal("1.10")),
        (uuid.UUID, uuid.UUID(int=7)),
        (PurePosixPath, PurePosixPath("a/b")),
        (Color, Color.RED),
        (Word, Word.YES),
        (list[Size], [Size.BIG]),
        (set[int], {1, 2}),
        (frozenset[str], frozenset({"a"})),
        (tuple[int, str], (1, "a")),
        (dict[int, float], {1: math.nan}),
        (OrderedDict[str, int], OrderedDict(b=1, a=2)),
        (int | str, "1"),
        (str | None, None),
        (Ticket, Ticket(category="bug", when=NOW)),
        (list[Ticket], [Ticket(category="bug", when=NOW)]),
        (Aliased, Aliased(theNumber=1)),
        (TwoAliases, TwoAliases(number=1)),
        (Box[int], Box[int](inside=1, more={2: 3})),
        (Extra, Extra(a=1, b=[{}])),
        (Tree, Tree(children=[Tree()])),
        (Numbers, Numbers([1])),
        (Secret, Secret()),
        (Point, Point(1.5, {"a"})),
        (SameByEye, SameByEye(1)),
        (Row, Row(number=1, text="a")),
        (Pair, Pair(1, "a")),
        (Any, {"a": [1, 1.0, True, None, "x"]}),
    ],
    ids=named,
)
def test_what_is_kept_comes_back(annotation, value):
    """The same value, of the same class, also through a codec of another process."""
    data = codec_of(annotation).dump(value)

    assert look(value) == look(codec_of(annotation).load(data))


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (str, "\ud800"),
        (Any, NOW),
        (Any, [NOW]),
        (Any, math.nan),
        (Any, (1, 2)),
        (Any, {1: 2}),
        (Any, b"x"),
        (Any, [Word.YES]),
        (Any, {"a": Size.BIG}),
        (Any, {Word.YES: 1}),
        (Any, OrderedDict(a=1)),
        (Any, [Ticket(category="bug", when=NOW)]),
        (object, object()),
        (list[int], [True]),
        (list[int], [1, 2.0]),
        (set[int], {True}),
        (Ticket, Ticket(category="bug", when=NOW, score=math.nan)),
        (list[Base], [Derived(number=1)]),
        (Base, Derived(number=1)),
        (Secret, Secret(word="s3cret")),
        (Hidden, Hidden(number=3)),
        (Grows, Grows(text="a")),
        (Breaks, Breaks.model_construct(text="a")),
        (BreaksOut, BreaksOut(text="a")),
        (int, "not a number"),
        (Any, Angry()),
    ],
    ids=named,
)
def test_what_would_not_come_back_is_not_kept(annotation, value):
    """Silently something else is worse than nothing: an enum that becomes a text, a secret that becomes stars."""
    assert None is codec_of(annotation).dump(value)


def test_what_a_model_keeps_to_itself_is_not_lost():
    """A private attribute is no part of the JSON."""
    value = Private(number=1)
    value._more = 5

    assert None is codec_of(Private).dump(value)
    assert None is not codec_of(Private).dump(Private(number=1))


@pytest.mark.parametrize("first", [None, "word"])
def test_a_step_looks_at_every_value(first):
    """That the first one could be kept says nothing about the next."""
    codec = OutputSchema(Secret, step="ask", namespace=None).codec
    codec.dump(Secret(word=first))

    assert (None, b'{"word":null}') == (codec.dump(Secret(word="other")), codec.dump(Secret()))


def test_an_author_s_equality_is_not_asked_too_much():
    """What cannot be compared is not kept."""

    class Holder(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        one: Any

        @field_validator("one")
        @classmethod
        def make(cls, value):
            return Angry()

        @field_serializer("one")
        def say(self, value):
            return "angry"

    assert None is codec_of(Holder).dump(Holder(one=1))


def test_what_no_longer_fits_is_a_value_error():
    """The type has changed since, or its validator breaks on it."""
    data = codec_of(Base).dump(Base(number=1))

    for annotation in (Ticket, int):
        with pytest.raises(ValueError, match="number|int"):
            codec_of(annotation).load(data)
    with pytest.raises(ValueError, match="prefix"):
        codec_of(Breaks).load(b'{"text": "a"}')


@pytest.mark.parametrize("annotation", [Angry, "NoSuchName", "list[NoSuchName]"])
def test_a_type_without_a_schema_has_no_codec(annotation):
    """pydantic does not know it."""
    assert None is codec_of(annotation)


# -- the law -----------------------------------------------------------------------------------------------------------

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())
odd = st.one_of(
    st.binary(max_size=5),
    st.datetimes(),
    st.decimals(),
    st.sampled_from([Color.RED, Word.YES, Size.BIG, NOW, Base(number=1), Derived(number=1), Point(1.0), Pair(1, "a")]),
    st.text(st.characters(categories=["Cs", "Lu"])),
)
anything = st.recursive(
    plain | odd,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.tuples(inner, inner)
        | st.builds(Box[Any], inside=inner)
    ),
    max_leaves=6,
)
annotations = st.recursive(
    st.sampled_from(
        [
            Any,
            int,
            float,
            str,
            bool,
            bytes,
            None,
            Color,
            Word,
            Base,
            Point,
            dt.datetime,
            decimal.Decimal,
            Box[Any],
            Pair,
        ]
    ),
    lambda inner: (
        inner.map(lambda one: list[one])
        | st.tuples(inner, inner).map(lambda two: Union[two])
        | inner.map(lambda one: dict[str, one])
        | st.tuples(inner, inner).map(lambda two: tuple[two])
    ),
    max_leaves=3,
)


@given(annotation=annotations, value=anything)
def test_law_the_same_or_nothing(annotation, value):
    """For any type and any value, fitting or not: what is loaded looks exactly like what was dumped."""
    codec = codec_of(annotation)
    data = codec.dump(value)
    if data is None:
        return

    assert look(value) == look(codec.load(data))
