"""Reading one run of the journal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from llmflow.records import quick
from llmflow.stores._report_records import AttemptRecord, CallRecord, NodeRecord, PromptUse, RunSummary

__all__ = ["UNENDED", "RunReport"]


class RunReport:
    """One run: what it took, and its nodes, calls and attempts, each by the place of their node.

    Attributes:
        summary: The run itself.
    """

    def __init__(self, connection: Any, summary: RunSummary) -> None:
        self._connection = connection
        self.summary = summary

    def nodes(self, *, content: bool = False) -> Iterator[NodeRecord]:
        """Yield the nodes that have ended; their inputs and outputs only when `content` is asked for."""
        columns = [_NODE.get(one.name, one.name) for one in fields(NodeRecord)]
        if not content:
            columns = [f"NULL AS {name}" if name in ("inputs", "output") else name for name in columns]
        return self._read(NodeRecord, "nodes", columns)

    def calls(self) -> Iterator[CallRecord]:
        """Yield the calls of steps that have ended."""
        return self._read(CallRecord, "calls", [_CALL.get(one.name, one.name) for one in fields(CallRecord)])

    def attempts(self) -> Iterator[AttemptRecord]:
        """Yield the requests, those in flight too, and the answers that took none."""
        return self._read(AttemptRecord, "attempts", [_CALL.get(one.name, one.name) for one in fields(AttemptRecord)])

    def prompts(self) -> list[PromptUse]:
        """Return which versions of which prompts it used."""
        found = self._connection.execute(_PROMPTS, {"run": self.summary.run_id})
        return [
            PromptUse(step=step, prompt_version=version, label=label, calls=calls, unended=unended)
            for step, version, label, calls, unended in found
        ]

    def worked_s(self) -> float | None:
        """Return for how many seconds one of its nodes or more were at work, None when there are none."""
        spans = self._connection.execute(
            "SELECT started, started + latency_s FROM nodes WHERE run_id = ? ORDER BY started", (self.summary.run_id,)
        )
        worked, until = None, float("-inf")
        for started, ended in spans:
            worked = (worked or 0.0) + max(0.0, ended - max(started, until))
            until = max(until, ended)
        return worked

    def content(self) -> tuple[str | None, str | None]:
        """Return the inputs and the output of the run itself as JSON, None where they are not stored."""
        found = self._connection.execute("SELECT inputs, output FROM runs WHERE run_id = ?", (self.summary.run_id,))
        inputs, output = found.fetchone()
        return inputs, output

    def _read(self, record: Any, table: str, columns: list[str]) -> Iterator[Any]:
        make, names = quick(record), [one.name for one in fields(record)]
        flags = _FLAGS.intersection(names)
        query = f"SELECT {', '.join(columns)} FROM {table} WHERE run_id = ? ORDER BY {_ORDER[table]}"  # names of ours
        for row in self._connection.execute(query, (self.summary.run_id,)):
            said = dict(zip(names, row, strict=True))
            for name in flags:
                said[name] = bool(said[name])
            yield make(**said)


_NODE = {"node": "key"}
_CALL = {"node": "coalesce(node, step)"}
_FLAGS = frozenset({"repaired", "cached", "hedge", "sent"})
_ORDER = {
    "nodes": "key",
    "calls": "coalesce(node, step), finished, call_id",
    "attempts": "coalesce(node, step), started, call_id, number",
}
UNENDED = """
    SELECT step, prompt_version, min(started) AS started FROM attempts
    WHERE run_id = ? AND NOT EXISTS (SELECT 1 FROM calls WHERE calls.call_id = attempts.call_id) GROUP BY call_id"""
"""The calls of a run that have no end."""
_PROMPTS = f"""
    SELECT used.step, used.prompt_version, coalesce(max(used.label), max(prompts.label)), sum(has_ended), sum(NOT has_ended)
    FROM (
        SELECT step, prompt_version, label, finished - latency_s AS started, 1 AS has_ended FROM calls WHERE run_id = :run
        UNION ALL SELECT step, prompt_version, NULL, started, 0 FROM ({UNENDED.replace("?", ":run")})
    ) used LEFT JOIN prompts ON prompts.step = used.step AND prompts.version = used.prompt_version
    WHERE used.prompt_version IS NOT NULL GROUP BY 1, 2 ORDER BY min(used.started), 1, 2"""
