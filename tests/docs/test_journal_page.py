"""The page about the journal has every table and every column."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from llmflow.stores._journal_tables import JOURNAL_SCHEMA

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "journal.md").read_text(encoding="utf-8")
SECTIONS = {part.split("\n", 1)[0]: part for part in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]}


def tables():
    with sqlite3.connect(":memory:") as made:
        for statement in JOURNAL_SCHEMA:
            made.execute(statement)
        names = [name for (name,) in made.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
        found = {name: [row[1] for row in made.execute(f"PRAGMA table_info({name})")] for name in names}
    made.close()
    return found


def test_every_table_has_a_section():
    """And there is no section about one that is not there."""
    assert set(tables()) == set(SECTIONS)


@pytest.mark.parametrize("table", [name for name in tables() if name != "run_costs"])
def test_every_column_has_a_row(table):
    """In the table of its section, and no other."""
    rows = re.findall(r"^\| (`[^|]+) \|", SECTIONS[table], re.MULTILINE)

    assert set(tables()[table]) == {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_the_view_has_its_columns():
    """In one sentence."""
    assert [] == [name for name in tables()["run_costs"] if f"`{name}`" not in SECTIONS["run_costs"]]
