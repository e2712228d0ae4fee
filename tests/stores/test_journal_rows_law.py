"""What the tables say does not depend on how many notes were written at once."""

from __future__ import annotations

import sqlite3
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from llmflow.events import AttemptFinished, AttemptStarted, CacheHit, CallFinished
from llmflow.journal import NodeClosed, RunClosed, RunOpened
from llmflow.stores._journal_rows import Rows, execute
from llmflow.stores._journal_tables import JOURNAL_SCHEMA

TABLES = {"runs": "run_id", "nodes": "run_id, key", "calls": "call_id", "attempts": "call_id, number, kind"}
outcomes = st.sampled_from(["ok", "ProviderUnavailable", "cancelled", None])
"""None is a request that never ended."""


def upper(text):
    return text.upper()


@st.composite
def calls(draw, run, number):
    """Return the notes of one call, as a step makes them."""
    call, node = f"{run}-{number}", draw(st.sampled_from([None, f"n{number}"]))
    shared = {"run_id": run, "call_id": call, "step": "s", "model": "m/x", "node": node}
    notes = []
    for attempt, outcome in enumerate(draw(st.lists(outcomes, min_size=1, max_size=3)), 1):
        notes.append(AttemptStarted(**shared, number=attempt, reserved_usd=Decimal("0.5")))
        if outcome is not None:
            notes.append(AttemptFinished(**shared, number=attempt, outcome=outcome, latency_s=0.5))
    if draw(st.booleans()):
        notes.append(CacheHit(**shared, kind="hit", saved_usd=Decimal("0.1")))
    if draw(st.booleans()):
        notes.append(CallFinished(run_id=run, call_id=call, step="s", latency_s=1.0, attempts=1, reasks=0, node=node))
    if node is not None and draw(st.booleans()):
        notes.append(
            NodeClosed(
                run_id=run, key=node, name="s", kind="step", status="ok", started=1.0, latency_s=1.0, output=b'"x"'
            )
        )
    return notes


@st.composite
def runs(draw, run):
    """Return the notes of one run; its calls in any order of their notes."""
    redactors = draw(st.sampled_from([(), (upper,)]))
    parts = [draw(calls(run, number)) for number in range(draw(st.integers(0, 3)))]
    opened = RunOpened(
        run_id=run, target="t", kind="flow", started=1.0, graph=draw(st.sampled_from([None, "g1"])), redactors=redactors,
        inputs=draw(st.sampled_from([None, b'{"a":"x"}', b'{"a":"X"}'])),
    )  # fmt: skip
    notes = [opened, *draw(interleaved(parts))]
    if draw(st.booleans()):
        notes.append(
            RunClosed(
                run_id=run, status="ok", finished=2.0, latency_s=1.0, graph=draw(st.sampled_from([None, "g2"])),
                output=draw(st.sampled_from([None, b'"y"', b'"Y"'])), redactors=redactors,
            )
        )  # fmt: skip
    return notes


@st.composite
def interleaved(draw, parts):
    """Return several sequences as one, each in its order."""
    left = [list(part) for part in parts if part]
    notes = []
    while left:
        chosen = draw(st.sampled_from(left))
        notes.append(chosen.pop(0))
        left = [part for part in left if part]
    return notes


@st.composite
def programs(draw):
    """Return the notes of up to three runs, and where batches of them end."""
    notes = draw(interleaved([draw(runs(f"r{number}")) for number in range(draw(st.integers(1, 3)))]))
    return notes, draw(st.sets(st.integers(1, max(1, len(notes) - 1))))


def tables(batches):
    connection = sqlite3.connect(":memory:")
    for statement in JOURNAL_SCHEMA:
        connection.execute(statement)
    rows, time = Rows(), 0.0
    for batch in batches:
        stamped = []
        for note in batch:
            time += 1.0
            stamped.append((time, note, None))
        for statement, values in rows.of(stamped):
            execute(connection, statement, values)
    found = {
        table: connection.execute(f"SELECT * FROM {table} ORDER BY {key}").fetchall() for table, key in TABLES.items()
    }
    connection.close()
    return found


@settings(max_examples=100)
@given(programs())
def test_batches_do_not_show(program):
    """One batch, note by note, or anything between: the tables are the same, and no request that was sent is missing."""
    notes, ends = program
    cuts = [0, *sorted(ends), len(notes)]
    alone = tables([note] for note in notes)

    sent = {(note.call_id, note.number) for note in notes if isinstance(note, AttemptStarted)}

    assert sent == {(row[0], row[1]) for row in alone["attempts"] if row[2] == "attempt"}
    assert alone == tables([notes])
    assert alone == tables(notes[begin:end] for begin, end in zip(cuts, cuts[1:], strict=False))
