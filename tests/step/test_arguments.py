"""What arguments are, as a run keeps them: the same in every process, and whether anything in them has no text."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from llmflow.canonical import canonical
from llmflow.step._arguments import fingerprint, input_hash, item_fingerprint, own_of


class Opaque:
    """Has no text of its own."""


@dataclass
class Page:
    body: Any
    language: str = "en"


class Pair(NamedTuple):
    left: Any
    right: Any


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)

    body: Any = None


KNOWN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary()
    | st.dates()
    | st.text()
    | st.sampled_from(["?", "?Opaque", "list(?Opaque)", "[?]", "\ud800"])
)
"""Texts that look like those of what has none are among them."""


def nested(leaves):
    """Return values of any shape with such leaves."""
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, min_size=1, max_size=3)
            | st.lists(inner, min_size=1, max_size=3).map(tuple)
            | st.dictionaries(st.text(max_size=2), inner, min_size=1, max_size=3)
            | st.builds(Page, inner)
            | st.builds(Pair, inner, inner)
            | st.builds(Loose, body=inner)
            | st.builds(Loose, extra=inner)
        ),
        max_leaves=6,
    )


@given(nested(KNOWN))
def test_law_what_has_a_text_is_whole(value):
    """Its hash is that of its text, and there is nothing else to know."""
    text = canonical(value)

    assert (hashlib.sha256(text.encode()).hexdigest()[:32], True) == item_fingerprint(value)
    assert (hashlib.sha256(f"value={text}".encode()).hexdigest()[:32], True) == fingerprint({"value": value})


@given(nested(st.builds(Opaque)), nested(KNOWN))
def test_law_what_has_no_text_anywhere_is_not_whole(value, beside):
    """However deep it is, and whatever is beside it; the hash is that by which a run is guarded."""
    for one in (value, [beside, value], {"beside": beside, "value": value}, Page(beside, value)):
        inputs = {"beside": beside, "value": one}

        assert not item_fingerprint(one).is_whole
        assert (input_hash(inputs), False) == fingerprint(inputs) == fingerprint(inputs, own_of({"other": Opaque()}))


loop: list[object] = []
loop.append(loop)


@pytest.mark.parametrize(
    "value",
    [{Opaque()}, iter("ab"), len, Opaque, Page, Loose, Loose(body=Opaque()), Loose(extra=Opaque()), loop, Page(loop)],
    ids=range(10),
)
def test_what_has_no_text(value):
    """Classes and functions too; and what holds itself."""
    assert not item_fingerprint(value).is_whole
    assert not fingerprint({"value": value}, own_of({"other": Opaque()})).is_whole
    assert fingerprint({"value": value}, own_of({"client": value})).is_whole


@pytest.mark.parametrize(
    "around",
    [
        lambda one: one,
        lambda one: (one, 1),
        lambda one: [[one]],
        lambda one: {"k": one},
        lambda one: {one: "k"},
        lambda one: MappingProxyType({"k": one}),
        Page,
        lambda one: Pair(one, "x"),
    ],
)
@pytest.mark.parametrize("own", [Opaque(), Page(Opaque()), Loose(extra=Opaque())], ids=["object", "dataclass", "model"])
def test_what_a_run_was_given_is_known_inside_of_it(own, around):
    """Itself, and what holds it and nothing else without a text; another one of its kind is not."""
    other = Opaque() if isinstance(own, Opaque) else type(own)(body=Opaque())
    try:
        value, another = around(own), around(other)
    except TypeError:  # cannot be a key
        return
    known = own_of({"client": own, "word": "w"})

    assert (input_hash({"value": value}), True) == fingerprint({"value": value}, known)
    assert not fingerprint({"value": another}, known).is_whole
    assert not fingerprint({"value": [value, another]}, known).is_whole
    assert not fingerprint({"value": Loose(body=value)}, known).is_whole


def test_own_arguments_that_look_the_same():
    """Neither is known; one that is given twice is."""
    one, other, page = Opaque(), Opaque(), Page(Opaque())

    assert frozenset() == own_of({"one": one, "other": other, "word": "w"})
    assert {id(one), id(page)} == own_of({"one": one, "same": one, "page": page, "word": "w"})
