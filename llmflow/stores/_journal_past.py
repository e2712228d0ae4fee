"""Answers that are recorded in the tables of the journal, to be played again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from llmflow.journal import RecordedAnswer
from llmflow.prices import dollars
from llmflow.stores._claims import NO_REPLAY
from llmflow.stores._recorded import NODE_COLUMNS, as_bytes, as_text, as_text_or_none, node_fields

if TYPE_CHECKING:
    from llmflow.stores._claims import Reading

__all__ = ["PastAnswers", "PastRun", "past_answers", "past_steps"]

_COLUMNS = (
    f"nodes.run_id, {', '.join(f'nodes.{name}' for name in NODE_COLUMNS)},"
    " nodes.message, nodes.started, nodes.latency_s, runs.ref"
)
_NODES = "FROM nodes JOIN runs ON runs.run_id = nodes.run_id"
_FIND = f"SELECT {_COLUMNS} {_NODES} WHERE nodes.run_id = ? AND nodes.key = ?"
_KEYS = "SELECT key, name, kind, status FROM nodes WHERE run_id = ? ORDER BY started, key"
_INPUTS = "SELECT key, inputs FROM nodes WHERE run_id = ? AND name = ? AND inputs IS NOT NULL"
_MODELS = "SELECT DISTINCT model FROM attempts WHERE run_id = ? AND node = ?"
_TAKEN = (
    "SELECT node, sum(cost_nano), sum(cost_nano IS NULL), sum(attempts), max(cached) FROM calls"
    " WHERE run_id = ? AND node IS NOT NULL GROUP BY node"
)
_GOOD = "nodes.kind = 'step' AND nodes.status = 'ok'"
_WHOLE = "nodes.content = 'whole' AND nodes.inputs IS NOT NULL AND nodes.output IS NOT NULL"
_WHY_NOT: Mapping[str, str] = {
    "hashed": "only their hashes are stored",
    "redacted": "they were redacted before they were stored",
    "redacted-inputs": "their inputs were redacted before they were stored",
}


class _Taken(NamedTuple):
    """What the calls of a node took."""

    nano: int | None
    requests: int
    cached: bool


@dataclass(frozen=True, slots=True)
class PastAnswers:
    """What was found of a step's answers.

    Attributes:
        answers: Those that can be played again, the latest first.
        unfit: How many of the others there are in the same time, by what is wrong with them.
    """

    answers: tuple[RecordedAnswer, ...]
    unfit: Mapping[str, int]


def past_answers(
    reading: Reading,
    *,
    step: str | None = None,
    run_id: str | None = None,
    since: float | None = None,
    last: int | None = None,
) -> PastAnswers:
    """Return answers of steps, the latest first; what replays asked is not among them unless their run is named.

    Args:
        reading: Gives a connection.
        step: Only answers of this step.
        run_id: Only answers of this run.
        since: Only those that were asked for from then on.
        last: At most so many.
    """
    given = {"nodes.name = ?": step, "nodes.run_id = ?": run_id, "nodes.started >= ?": since}
    conditions = [_GOOD, *(text for text, value in given.items() if value is not None)]
    values = [value for value in given.values() if value is not None]
    if run_id is None:
        conditions.append(NO_REPLAY)
    where = " AND ".join(conditions)
    chosen = f"SELECT {_COLUMNS} {_NODES} WHERE {where} AND {_WHOLE} ORDER BY nodes.started DESC, nodes.key LIMIT ?"
    with reading() as connection:
        rows = connection.execute(chosen, (*values, -1 if last is None else last)).fetchall()
        taken = {run: _taken(connection, run) for run in {as_text(row[0]) for row in rows}}
        oldest = rows[-1][13] if last is not None and len(rows) == last else float("-inf")
        others = f"SELECT nodes.content, count(*) {_NODES} WHERE {where} AND nodes.started >= ? AND NOT ({_WHOLE}) GROUP BY 1"
        unfit = Counter[str]()
        for content, number in connection.execute(others, (*values, oldest)):
            unfit[_WHY_NOT.get(as_text(content), "their inputs or answers could not be stored")] += number
    return PastAnswers(tuple(_answer(row, taken[as_text(row[0])]) for row in rows), unfit)


def past_steps(reading: Reading) -> frozenset[str]:
    """Return the names of the steps that answers are recorded of."""
    with reading() as connection:
        return frozenset(
            as_text(name) for (name,) in connection.execute(f"SELECT DISTINCT name FROM nodes WHERE {_GOOD}")
        )


class PastRun:
    """The nodes of one run.

    Args:
        reading: Gives a connection.
        run_id: Which run.
    """

    def __init__(self, reading: Reading, run_id: str) -> None:
        self.run_id = run_id
        self._reading = reading
        self._known: Mapping[str, _Taken] | None = None
        self._alike: dict[str, dict[bytes, list[str]]] = {}

    def find(self, key: str) -> RecordedAnswer | None:
        """Return what is recorded of a node."""
        with self._reading() as connection:
            row = connection.execute(_FIND, (self.run_id, key)).fetchone()
            if row is None:
                return None
            if self._known is None:
                self._known = _taken(connection, self.run_id)
        return _answer(row, self._known)

    def nodes(self) -> Sequence[tuple[str, str, str, str]]:
        """Return key, name, kind and status of every node, in the order they began."""
        with self._reading() as connection:
            rows = connection.execute(_KEYS, (self.run_id,)).fetchall()
        return [(as_text(key), as_text(name), as_text(kind), as_text(status)) for key, name, kind, status in rows]

    def with_inputs(self, name: str, inputs: bytes) -> Sequence[str]:
        """Return the keys of the nodes of this name that were given these inputs, as JSON."""
        if name not in self._alike:
            known: dict[bytes, list[str]] = {}
            with self._reading() as connection:
                for key, given in connection.execute(_INPUTS, (self.run_id, name)):
                    known.setdefault(as_bytes(given) or b"", []).append(as_text(key))
            self._alike[name] = known
        return self._alike[name].get(inputs, ())

    def models(self, key: str) -> frozenset[str]:
        """Return the models that were asked for a node, whether they answered or not."""
        with self._reading() as connection:
            return frozenset(as_text(model) for (model,) in connection.execute(_MODELS, (self.run_id, key)))


def _taken(connection: Any, run_id: str) -> Mapping[str, _Taken]:
    return {as_text(node): taken for node, taken in _read_taken(connection.execute(_TAKEN, (run_id,)))}


def _read_taken(rows: Iterator[Any]) -> Iterator[tuple[Any, _Taken]]:
    for node, nano, unknown, requests, cached in rows:
        yield node, _Taken(None if unknown else nano, requests, bool(cached))


def _answer(row: Sequence[Any], taken: Mapping[str, _Taken]) -> RecordedAnswer:
    run_id, *shared = row
    message, started, latency_s, ref = shared[len(NODE_COLUMNS) :]
    fields = node_fields(shared[: len(NODE_COLUMNS)])
    nano, requests, cached = taken.get(fields["key"], _Taken(0, 0, cached=False))
    return RecordedAnswer(
        **fields,
        run_id=as_text(run_id),
        message=as_text_or_none(message),
        started=started,
        latency_s=latency_s,
        ref=as_text_or_none(ref),
        cost_usd=None if nano is None else dollars(nano),
        requests=requests,
        cached=cached,
    )
