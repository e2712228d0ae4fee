"""Notes turned into rows: what belongs together is written together."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from pydantic_core import from_json, to_json

from llmflow.events import AttemptFinished, AttemptStarted, CacheHit, CallFinished, RunFinished
from llmflow.journal import GraphSeen, NodeClosed, PromptSeen, RunClosed, RunOpened
from llmflow.messages import Usage
from llmflow.prices import nanos
from llmflow.stores._owner import LEASE, myself

if TYPE_CHECKING:
    from decimal import Decimal

    from llmflow.journal import Redactor

__all__ = ["Rows", "Stamped", "execute"]

logger = logging.getLogger("llmflow")

Stamped: TypeAlias = tuple[float, Any, Mapping[str, str] | None]
"""When a note came, the note, and the tags around it."""
_Row: TypeAlias = tuple[str, tuple[Any, ...]]
"""A statement and its values."""

OPEN = (
    "INSERT INTO runs (run_id, target, kind, ref, command, status, started, tenant, tags, graph, input_hash, inputs,"
    " content, named, owner, lease) VALUES (?, ?, ?, ?, ?, 'running', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_CLOSE = (
    "UPDATE runs SET status = ?, finished = ?, latency_s = ?, error = ?, message = ?, output = coalesce(?, output),"
    " content = coalesce(?, content), graph = coalesce(?, graph), owner = NULL, lease = NULL"
    " WHERE run_id = ? AND (owner = ? OR status = 'interrupted')"  # somebody else may have taken it up meanwhile
)
_RUN = (
    "INSERT INTO runs (run_id, target, kind, ref, command, started, tenant, tags, graph, input_hash, inputs, content, named,"
    f" status, finished, latency_s, error, message, output) VALUES ({', '.join('?' * 19)}) ON CONFLICT DO UPDATE SET"
    " status = excluded.status, finished = excluded.finished, latency_s = excluded.latency_s, error = excluded.error,"
    " message = excluded.message, output = excluded.output, owner = NULL, lease = NULL"
)
"""`OPEN` and `_CLOSE` in one."""
_ENDED = (
    "INSERT INTO runs (run_id, target, kind, status, started, finished, latency_s, error)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_NODE = (
    "INSERT OR REPLACE INTO nodes (run_id, key, name, kind, status, started, latency_s, model, prompt_version,"
    " input_hash, inputs, output, content, error, message) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
# Columns have names, also where all are written: the file may be brought up to date by a newer llmflow meanwhile.
_CALL = (
    "INSERT OR REPLACE INTO calls (call_id, run_id, node, step, model, prompt_version, label, finished, latency_s, error,"
    " attempts, reasks, repaired, cached, input_tokens, output_tokens, cost_nano, saved_nano, waited_s, throttled, tenant,"
    f" tags) VALUES ({', '.join('?' * 22)})"
)
_STARTED = (
    "INSERT OR REPLACE INTO attempts (call_id, number, kind, run_id, node, step, model, started, reserved_nano,"
    " reserved_tokens, hedge, prompt_version, tenant, tags) VALUES (?, ?, 'attempt', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ATTEMPT = (
    "INSERT OR REPLACE INTO attempts (call_id, number, kind, run_id, node, step, model, started, latency_s, outcome, status,"
    " input_tokens, cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens, cost_nano, reserved_nano,"
    f" saved_nano, first_token_s, hedge, prompt_version, tenant, tags, reserved_tokens, sent) VALUES ({', '.join('?' * 26)})"
)
_PROMPT = (
    "INSERT INTO prompts (step, version, label, parts, first_seen) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET label = coalesce(excluded.label, label)"
)
_GRAPH = "INSERT OR IGNORE INTO graphs (graph, target, nodes, first_seen) VALUES (?, ?, ?, ?)"
_UNKNOWN = Usage()
_LARGEST = 2**63 - 1


class Rows:
    """Collects the rows of a batch of notes.

    A request that has ended is not written before its call has, and a call that is a node of a recorded run not before
    the node: after a crash there is then either a paid answer that can be used again, or a request of unknown outcome.
    """

    def __init__(self) -> None:
        self._ended: dict[str, list[_Row]] = {}
        """Rows of requests that have ended, by their call."""
        self._called: dict[tuple[str, str], list[_Row]] = {}
        """Rows of calls that have ended, by run and node."""
        self._reserved: dict[tuple[str, int], tuple[float, int | None, int | None]] = {}
        """When each request in flight was sent, and what it may cost."""
        self._failed_redactors: set[Redactor] = set()
        self._failed_kinds: set[type] = set()
        self._rows: list[_Row] = []
        self._opened_at: dict[str, int] = {}
        """Where in the batch each run is that began in it."""
        self._kinds: dict[type, Callable[[float, Any, Mapping[str, str] | None], None]] = {
            AttemptStarted: self._attempt_started,
            AttemptFinished: self._attempt_finished,
            CacheHit: self._hit,
            CallFinished: self._call,
            NodeClosed: self._node,
            RunOpened: self._opened,
            RunClosed: self._closed,
            RunFinished: self._run_finished,
            PromptSeen: self._prompt,
            GraphSeen: self._graph,
        }

    def of(self, notes: Sequence[Stamped]) -> list[_Row]:
        """Return the rows that are complete with these notes, in order."""
        rows: list[_Row] = []
        self._rows, self._opened_at = rows, {}
        for time, note, tags in notes:
            try:
                self._kinds[type(note)](time, note, tags)
            except Exception as exc:  # noqa: BLE001  # one that makes no row must not take the others with it
                self._warn_of(note, exc)
        self._rows = []
        return _without_what_is_replaced(rows)

    def _warn_of(self, note: object, exc: Exception) -> None:
        kind = type(note)
        if kind not in self._failed_kinds:
            self._failed_kinds.add(kind)
            logger.warning("a %s cannot be recorded: %s: %s", kind.__name__, type(exc).__name__, exc)

    # -- requests and calls --------------------------------------------------------------------------------------------

    def _attempt_started(self, time: float, event: AttemptStarted, tags: Mapping[str, str] | None) -> None:
        self._rows += self._ended.pop(event.call_id, ())  # an earlier request of the call, which did not end it
        reserved, tokens = _nano(event.reserved_usd), event.reserved_tokens
        self._reserved[event.call_id, event.number] = (time, reserved, tokens)
        values = (
            event.call_id,
            event.number,
            event.run_id,
            event.node,
            event.step,
            event.model,
            time,
            reserved,
            tokens,
        )
        self._rows.append((_STARTED, (*values, event.hedge, event.prompt_version, event.tenant, _json(tags))))

    def _attempt_finished(self, time: float, event: AttemptFinished, tags: Mapping[str, str] | None) -> None:
        usage = event.usage or _UNKNOWN
        key = (event.call_id, event.number)
        started, reserved, tokens = self._reserved.pop(key, (time - event.latency_s, None, None))
        row = (
            *(event.call_id, event.number, "attempt", event.run_id, event.node, event.step, event.model),
            *(started, event.latency_s, event.outcome, event.status),
            *(usage.input_tokens, usage.cached_tokens, usage.cache_write_tokens),
            *(usage.output_tokens, usage.reasoning_tokens),
            *(_nano(event.cost_usd), reserved, None, event.first_token_s, event.hedge),
            *(event.prompt_version, event.tenant, _json(tags), tokens, event.sent),
        )
        if event.outcome == "ok":
            self._ended.setdefault(event.call_id, []).append((_ATTEMPT, row))
        else:  # there is no answer that could be lost
            self._rows.append((_ATTEMPT, row))

    def _hit(self, time: float, event: CacheHit, tags: Mapping[str, str] | None) -> None:
        row = (
            *(event.call_id, 0, event.kind, event.run_id, event.node, event.step, event.model),
            *(time, 0.0, "ok", None, None, None, None, None, None, 0, None, _nano(event.saved_usd), None, 0),
            *(event.prompt_version, event.tenant, _json(tags), None, 0),
        )
        self._ended.setdefault(event.call_id, []).append((_ATTEMPT, row))

    def _call(self, time: float, event: CallFinished, tags: Mapping[str, str] | None) -> None:
        usage = event.usage or _UNKNOWN
        row = (
            *(event.call_id, event.run_id, event.node, event.step, event.model, event.prompt_version, event.label),
            *(time, event.latency_s, event.error, event.attempts, event.reasks, event.repaired, event.cached),
            *(usage.input_tokens, usage.output_tokens, _nano(event.cost_usd), _nano(event.saved_usd)),
            *(event.waited_s, event.throttled, event.tenant, _json(tags)),
        )
        rows = [*self._ended.pop(event.call_id, ()), (_CALL, row)]
        if event.node is None:
            self._rows += rows
        else:
            self._called.setdefault((event.run_id, event.node), []).extend(rows)

    # -- runs and nodes ------------------------------------------------------------------------------------------------

    def _node(self, _: float, note: NodeClosed, tags: Mapping[str, str] | None) -> None:  # noqa: ARG002  # of its calls
        self._rows += self._called.pop((note.run_id, note.key), ())
        inputs, one = self._redacted(note.inputs, note.redactors)
        output, other = self._redacted(note.output, note.redactors)
        content = "redacted" if other else "redacted-inputs" if one else note.content
        row = (
            *(note.run_id, note.key, note.name, note.kind, note.status, note.started, note.latency_s),
            *(note.model, note.prompt_version, note.input_hash, inputs, output, content),
            *(note.error, note.message),
        )
        self._rows.append((_NODE, row))

    def _opened(self, _: float, note: RunOpened, tags: Mapping[str, str] | None) -> None:  # noqa: ARG002  # it has its own
        row = (OPEN, self.opening(note))
        self._opened_at[note.run_id] = len(self._rows)
        self._rows.append(row)

    def opening(self, note: RunOpened) -> tuple[Any, ...]:
        """Return the values of `OPEN`."""
        inputs, changed = self._redacted(note.inputs, note.redactors)
        return (
            *(note.run_id, note.target, note.kind, note.ref, note.command, note.started, note.tenant, _json(note.tags)),
            *(note.graph, note.input_hash, inputs, "redacted-inputs" if changed else "whole", note.named),
            *(myself(), note.started + LEASE),
        )

    def _closed(self, _: float, note: RunClosed, tags: Mapping[str, str] | None) -> None:  # noqa: ARG002  # the run has them
        self._drop_held(note.run_id)
        output, changed = self._redacted(note.output, note.redactors)
        said = (note.status, note.finished, note.latency_s, note.error, note.message, output)
        content = "redacted" if changed else None
        if (index := self._opened_at.pop(note.run_id, None)) is None:
            self._rows.append((_CLOSE, (*said, content, note.graph, note.run_id, myself())))
            return
        *named, graph, input_hash, inputs, begun, is_named, _, _ = self._rows[index][1]
        self._rows[index] = (
            _RUN,
            (*named, note.graph or graph, input_hash, inputs, content or begun, is_named, *said),
        )

    def _run_finished(self, time: float, event: RunFinished, tags: Mapping[str, str] | None) -> None:  # noqa: ARG002
        status = "ok" if event.error is None else "cancelled" if event.error == "cancelled" else "failed"
        row = (event.run_id, event.target, event.kind, status, time - event.latency_s, time, event.latency_s)
        self._rows.append((_ENDED, (*row, event.error)))

    def _drop_held(self, run_id: str) -> None:
        """Write what waits for a node of a run that has ended without it."""
        for key in [key for key in self._called if key[0] == run_id]:
            self._rows += self._called.pop(key)

    def _prompt(self, _: float, note: PromptSeen, tags: Mapping[str, str] | None) -> None:  # noqa: ARG002
        self._rows.append((_PROMPT, (note.step, note.version, note.label, note.parts, note.time)))

    def _graph(self, _: float, note: GraphSeen, tags: Mapping[str, str] | None) -> None:  # noqa: ARG002
        self._rows.append((_GRAPH, (note.graph, note.target, note.nodes, note.time)))

    # -- content -------------------------------------------------------------------------------------------------------

    def _redacted(self, content: bytes | None, redactors: Sequence[Redactor]) -> tuple[str | None, bool]:
        """Return content as it may be stored, and whether it was changed; none of it when a redactor fails."""
        if content is None:
            return None, False
        if not redactors:
            return content.decode(), False
        try:
            value = from_json(content)
            changed = _mapped(value, redactors)
            return (content.decode(), False) if changed == value else (to_json(changed).decode(), True)
        except Exception as exc:  # noqa: BLE001  # it is a plugin's
            self._warn(redactors, exc)
            return None, True

    def _warn(self, redactors: Sequence[Redactor], exc: Exception) -> None:
        if not self._failed_redactors.issuperset(redactors):
            self._failed_redactors.update(redactors)
            logger.warning("a redactor failed, content is not stored: %s: %s", type(exc).__name__, exc)


def _without_what_is_replaced(rows: list[_Row]) -> list[_Row]:
    """Leave out the requests in flight that have ended by the end of the batch: their rows would be written twice."""
    ended: set[tuple[Any, ...]] = set()
    kept: list[_Row] = []
    for row in reversed(rows):
        statement, values = row
        if statement is _ATTEMPT:
            ended.add(values[:2])
        if statement is not _STARTED or values[:2] not in ended:
            kept.append(row)
    return kept[::-1]


def _mapped(value: Any, redactors: Sequence[Redactor]) -> Any:
    """Return a JSON value with every text in it as the redactors return it; names of fields stay."""
    if isinstance(value, str):
        for redact in redactors:
            value = _checked(redact(value), redact)
        return value
    if isinstance(value, list):
        return [_mapped(one, redactors) for one in cast("list[object]", value)]
    if isinstance(value, dict):
        return {name: _mapped(one, redactors) for name, one in cast("dict[str, Any]", value).items()}
    return value


def _checked(text: object, redact: Redactor) -> str:
    if not isinstance(text, str):
        msg = f"{redact!r} returned {type(text).__name__}, expected a str"
        raise TypeError(msg)
    return text


def execute(connection: Any, statement: str, values: Sequence[Any]) -> Any:
    """Run a statement; what SQLite cannot hold is replaced by what comes closest: lone surrogates, huge numbers."""
    try:
        return connection.execute(statement, values)
    except (UnicodeEncodeError, OverflowError):
        return connection.execute(statement, [_bindable(value) for value in values])


def _bindable(value: object) -> object:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, int):
        return max(-_LARGEST, min(value, _LARGEST))
    return value


def _nano(usd: Decimal | None) -> int | None:
    return None if usd is None else nanos(usd)


def _json(tags: Mapping[str, str] | None) -> str | None:
    return json.dumps(dict(tags), ensure_ascii=False, sort_keys=True, default=str) if tags else None
