"""What is left of a schema when the engine sees it."""

from __future__ import annotations

import pytest
from llmflow_local._pattern import portable_pattern
from llmflow_local._schema import portable_schema


@pytest.mark.parametrize(
    ("pattern", "portable"),
    [
        (r"^\d{4}-\d\d$", "^[0-9]{4}-[0-9][0-9]$"),
        (r"^[\d\w.-]+$", "^[0-9A-Za-z0-9_.-]+$"),
        (r"^\w+\s\w+$", "^[A-Za-z0-9_]+[ ][A-Za-z0-9_]+$"),
        (r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$", r"^[+-]?0*[0-9]*\.?[0-9]*$"),
        (r"^(?=(a|b)(c))ab(?<!x)$", "^ab$"),
        (r"^(?P<year>\d+)(?:x)(y)$", "^(?:[0-9]+)(?:x)(y)$"),
        (r"^a\.b\-c\/d\_$", r"^a\.b\-c/d_$"),
        (r"^[\-\.\/\]]$", r"^[\-./\]]$"),
        (r"^x{1,3}y{2}$", "^x{1,3}y{2}$"),
        (r"^$", "^$"),
        ("ab+", None),
        (r"(?i)^ab$", None),
        (r"^a$|^b$", None),
        (r"^\S+$", None),
        (r"^[\D]$", None),
        (r"^\bab\b$", None),
        (r"^a\n$", None),
        ("^a\n$", None),
        ('^"a"$', None),
        ("^é+$", None),
        ("^a{b$", None),
        ("^[a$", None),
        (r"^a\$", None),
    ],
)
def test_patterns_are_rewritten_or_dropped(pattern: str, portable: str | None) -> None:
    """A pattern the engine would only warn about is not sent to it."""
    assert portable == portable_pattern(pattern)


def test_only_schemas_are_rewritten() -> None:
    """Fields may be called like keywords, and data may look like schemas."""
    schema = {
        "properties": {
            "pattern": {"type": "string", "pattern": r"^\d$", "default": {"pattern": r"\d"}},
            "minimum": {"type": "integer", "minimum": 0, "maximum": 2**64},
            "free": {"anyOf": [{"pattern": "x"}, {"enum": [{"pattern": "x"}]}]},
        },
        "required": ["pattern"],
    }

    expected = {
        "properties": {
            "pattern": {"type": "string", "pattern": "^[0-9]$", "default": {"pattern": r"\d"}},
            "minimum": {"type": "integer", "minimum": 0},
            "free": {"anyOf": [{}, {"enum": [{"pattern": "x"}]}]},
        },
        "required": ["pattern"],
    }
    assert expected == portable_schema(schema)
