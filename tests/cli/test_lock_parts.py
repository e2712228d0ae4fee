"""What the lock is written with: TOML for people, and schemas in words."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmflow.cli import _toml as toml
from llmflow.cli._check import _bill
from llmflow.cli._lock import LockedPrompt
from llmflow.cli._prompt_diff import compare
from llmflow.cli._schema_lines import schema_lines

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"))
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**40), 2**40) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


@given(key=TEXTS, text=TEXTS, value=VALUES)
def test_what_is_written_is_read_again(key: str, text: str, value: object):
    """Texts of any kind, as they are."""
    document = f"{toml.header('a', key)}\n{toml.key(key)} = {toml.text(text)}\nvalue = {toml.value(value)}\n"
    if key == "value":
        document = f"value = {toml.value(value)}\n[x]\n"

        assert tomllib.loads(document)["value"] == value
        return
    table = tomllib.loads(document)["a"][key]

    assert (table[key], table["value"]) == (text, value)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain", '"plain"'),
        ('{"a": "b"}', """'{"a": "b"}'"""),
        ("it's", '"it\'s"'),
        ("one\n  two\\n", "'''\none\n  two\\n'''"),
        ("a\n'''", '"""\na\n\'\'\'"""'),
    ],
)
def test_texts_are_written_to_be_read(text: str, written: str):
    """Without escapes where that can be, long ones in lines of their own."""
    assert toml.text(text) == written


def test_a_schema_in_words():
    """A line for each field, those of fields behind them, and a model that holds itself once."""
    schema = {
        "$defs": {
            "Kind": {"enum": ["a", "b"]},
            "Node": {
                "properties": {
                    "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
                    "n": {"type": "integer"},
                }
            },
        },
        "properties": {
            "kind": {"$ref": "#/$defs/Kind"},
            "one": {"const": 1},
            "node": {"$ref": "#/$defs/Node", "description": "A\n  node."},
            "many": {"type": "array", "items": {"$ref": "#/$defs/Node"}, "minItems": 1},
            "table": {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}},
            "pair": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]},
            "text": {"type": "string", "maxLength": 9, "default": "x"},
            "anything": {},
        },
        "required": ["kind", "node"],
    }

    assert schema_lines(schema) == [
        'kind: "a" | "b"', "one?: 1", "node: Node  # A node.", "node.next?: Node | null", "node.n?: integer",
        "many?: list of Node (at least 1 items)", "many[].next?: Node | null", "many[].n?: integer",
        "table?: mapping to number", "pair?: [integer, string]", 'text?: string (at most 9 characters) = "x"', "anything?: anything",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([], "re-buys nothing: the cache holds no answer of the locked version"),
        ([(1, None)], "re-buys 1 kept answer, still valid, whose cost is unknown"),
        ([(0, "1.5")], "re-buys 1 kept answer, expired, which had cost $1.50"),
        (
            [(1, "1.5"), (0, None)],
            "re-buys 2 kept answers, 1 of them still valid, which had cost $1.50 and 1 of unknown cost",
        ),
    ],
)
def test_what_is_bought_anew(entries: list, said: str):
    """How many answers, how many of them are valid, what they had cost."""
    kept = [
        SimpleNamespace(expires_in=left, cost_usd=None if cost is None else Decimal(cost)) for left, cost in entries
    ]

    assert str(_bill(kept)) == said


def test_a_difference_that_nothing_shows():
    """The computed versions are all there is to say."""
    before, after = (LockedPrompt(version=one, computed=one) for one in ("a", "b"))

    assert [("computed", "a", "b")] == [(one.part, one.locked, one.now) for one in compare(before, after)]
