"""Forgetting old runs: content goes out of the file, figures stay."""

from __future__ import annotations

import sqlite3
import time

import pytest

DAY = 86_400.0


@pytest.fixture
def journal(shell, home):
    """A journal of one old and one new run of the program, whose input is a word that must not stay."""
    shell("run", "program.py:triage", "--input", "an elephant", "--run-id", "old")
    shell("run", "program.py:triage", "--input", "a giraffe", "--run-id", "new")
    path = home / ".llmflow" / "llmflow.db"
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE runs SET started = ? WHERE run_id = 'old'", (time.time() - 40 * DAY,))
    connection.close()
    return path


def rows(path, statement):
    with sqlite3.connect(path) as connection:
        found = connection.execute(statement).fetchall()
    connection.close()
    return found


def in_files(path, word):
    """Whether a word stands in the file, or in what SQLite keeps beside it."""
    return any(word in one.read_bytes() for one in path.parent.iterdir() if one.name.startswith(path.name))


def test_content_goes_and_figures_stay(shell, journal):
    """Only runs that began before are stripped, and nothing of them is left in the file."""
    done = shell("runs", "--forget-before", "30d")

    assert "1 run from before" in done.err
    assert "stripped of inputs and outputs" in done.err
    assert [("new", True), ("old", False)] == rows(
        journal, "SELECT run_id, output IS NOT NULL FROM nodes ORDER BY run_id"
    )
    assert 2 == rows(journal, "SELECT count(*) FROM attempts")[0][0]
    assert (False, True) == (in_files(journal, b"elephant"), in_files(journal, b"giraffe"))


def test_a_run_that_was_stripped_says_so_when_it_is_called_again(shell, journal):
    """It has ended, and cannot be given or asked again under its id."""
    shell("runs", "--forget-before", "30d")
    done = shell("run", "program.py:triage", "--input", "an elephant", "--run-id", "old")

    assert 1 == done.code
    assert "only hashes are stored" in done.err


def test_everything_may_go(shell, journal):
    """Then reports do not know of it."""
    done = shell("runs", "--delete-before", "30d")

    assert "1 run from before" in done.err
    assert done.err.endswith(" deleted\n")
    assert [("new",)] == rows(journal, "SELECT DISTINCT run_id FROM attempts")
    assert [("new",)] == rows(journal, "SELECT run_id FROM runs")
    assert not in_files(journal, b"elephant")


def test_without_a_journal_there_is_nothing_to_forget(shell, home):
    """And none is made."""
    done = shell("runs", "--forget-before", "30d")

    assert (2, False) == (done.code, (home / ".llmflow").exists())
    assert "there is no journal" in done.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--forget-before", "soon"), "--forget-before 'soon' is no time"),
        (("--delete-before", "soon"), "--delete-before 'soon' is no time"),
        (("--delete-before", ""), "--delete-before '' is no time"),
        (
            ("--forget-before", "30d", "--delete-before", "90d"),
            "--forget-before and --delete-before exclude each other",
        ),
    ],
)
def test_wrong_use_names_the_option_and_drops_nothing(llmflow, journal, options, said):
    """Exit code 2."""
    ran = llmflow("runs", *options)

    assert (2, True) == (ran.code, f"error: {said}" in ran.err)
    assert [("new",), ("old",)] == rows(journal, "SELECT run_id FROM nodes WHERE output IS NOT NULL ORDER BY run_id")
