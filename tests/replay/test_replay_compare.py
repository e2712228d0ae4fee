"""Answers compared as JSON: laws of flattening and comparing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmflow.replay import WHOLE, compare, flatten

NAMES = st.text(max_size=4)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))


def rebuilt(leaves: dict[tuple[str | int, ...], object]) -> Any:
    """Put a flattened value together again."""
    if list(leaves) == [()]:
        return leaves[()]
    inner: dict[str | int, dict[tuple[str | int, ...], object]] = {}
    for (first, *rest), value in leaves.items():
        inner.setdefault(first, {})[tuple(rest)] = value
    made = {name: rebuilt(one) for name, one in inner.items()}
    return list(made.values()) if isinstance(next(iter(made)), int) else made


@given(VALUES)
def test_flattening_loses_nothing(value):
    """Every JSON value can be put together again from its leaves."""
    assert value == rebuilt(flatten(value))


@given(VALUES)
def test_a_value_is_equal_to_itself(value):
    """Every field of a value agrees with itself."""
    assert {"equal"} == set(compare(value, value).values())


@given(VALUES, VALUES)
def test_comparing_is_symmetric(one, other):
    """The other way round the same fields agree and differ, and what was missing is added."""
    swapped = {"equal": "equal", "different": "different", "missing": "added", "added": "missing"}
    there, back = compare(one, other), compare(other, one)

    assert there.keys() == back.keys()
    assert [p for p, s in there.items() if s == "equal"] == [p for p in there if back[p] == "equal"]
    assert all(back[path] in (swapped[state], "missing", "added") for path, state in there.items())


@given(VALUES, VALUES)
def test_only_equal_values_agree_in_all(one, other):
    """All fields agree exactly when the flattened values do, where true is not 1."""

    def marked(value: Any) -> dict[Any, Any]:
        return {place: (isinstance(leaf, bool), leaf) for place, leaf in flatten(value).items()}

    agree = all(state == "equal" for state in compare(one, other).values())

    assert (marked(one) == marked(other)) is agree


@pytest.mark.parametrize(
    ("recorded", "new", "expected"),
    [
        ("a", "a ", {WHOLE: "different"}),
        (1, 1.0, {WHOLE: "equal"}),
        (1, True, {WHOLE: "different"}),
        (0.1 + 0.2, 0.3, {WHOLE: "different"}),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": "equal", "b": "different"}),
        ({"a": 1}, {"b": 1}, {"a": "missing", "b": "added"}),
        ({"a": None}, {}, {"a": "missing", WHOLE: "added"}),
        ({"a": {"b": 1}}, {"a": {"b": 1}}, {"a.b": "equal"}),
        ({"a.b": 1}, {"a.b": 2}, {'["a.b"]': "different"}),
        ({"items": [{"p": 1}, {"p": 2}]}, {"items": [{"p": 1}, {"p": 3}]}, {"items[].p": "different"}),
        ({"items": [{"p": 1}, {"p": 2}]}, {"items": [{"p": 1}]}, {"items[].p": "missing"}),
        ([[1], [2]], [[1], [2]], {"[][]": "equal"}),
        ([1, 2], [2], {"[]": "different"}),
        ([], [1], {WHOLE: "missing", "[]": "added"}),
    ],
)
def test_fields_by_path(recorded, new, expected):
    """A field is named by its path; the items of a list share one, and the gravest of their states."""
    assert expected == compare(recorded, new)
