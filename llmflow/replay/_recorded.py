"""A run in which every node that is as it was gives its recorded value, without being run."""

from __future__ import annotations

import builtins
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from llmflow import errors
from llmflow.errors import StepError
from llmflow.messages import Result
from llmflow.replay._change import change, models_of
from llmflow.replay._pair import Pair, failed_pair, new_pair
from llmflow.step import OTHER_INPUTS, Recording, input_hash, inputs_as_json, recorded_result

if TYPE_CHECKING:
    from llmflow.context import Frame, Run
    from llmflow.journal import RecordedAnswer, RunKind
    from llmflow.step import Bound, Recorder, Unit
    from llmflow.stores._journal_past import PastRun

__all__ = ["Divergence", "Replaying", "Script"]

_NOTHING = Decimal(0)
_NEW = "is new"
_VARIABLE = re.compile(r"(?:\[[^\]]*\]|@[0-9a-f]+)\??|#\d+")
"""The parts of a node's key that hold what its inputs were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """A node of a replayed run that is not as it was.

    Attributes:
        key: Its place in the run.
        what: What is different, in words.
    """

    key: str
    name: str
    kind: str
    what: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a step that was asked anew is compared by."""

    past: RecordedAnswer
    inputs: Mapping[str, object]
    value: Any
    unit: Unit[..., Any]


class Script:
    """What a run was, and what becomes of it while it is played again.

    Args:
        past: The nodes of the run.
        run_tasks: Whether tasks run, although their values are recorded.
    """

    def __init__(self, past: PastRun, *, run_tasks: bool) -> None:
        self.past = past
        self.run_tasks = run_tasks
        self.pairs: list[tuple[Pair, _Asked | None]] = []
        self.divergences: list[Divergence] = []
        self.requests = 0
        self.cost_usd: Decimal | None = _NOTHING
        self.recorded = 0
        self._met: set[str] = set()
        self._given: set[str] = set()

    def find(self, key: str, unit: Unit[..., Any], inputs: bytes | None) -> RecordedAnswer | None:
        """Return what is recorded of a node: under its key, else under one that differs in what stands for the inputs.

        A class has another name in a program that was started by itself than in one that is imported, so the hash of
        equal inputs may be another; their JSON is not.
        """
        found = self.past.find(key)
        if found is None and inputs is not None:
            pattern = _VARIABLE.sub("", key)
            alike = (one for one in self.past.with_inputs(unit.name, inputs) if one not in self._met)
            place = next((one for one in alike if _VARIABLE.sub("", one) == pattern), None)
            found = None if place is None else self.past.find(place)
        if found is not None:
            self._met.add(found.key)
        return found

    def give(self, found: RecordedAnswer) -> None:
        """Take note of a node that gives what it gave."""
        self.recorded += 1
        self._given.add(found.key)

    def diverge(self, key: str, unit: Unit[..., Any], what: str) -> None:
        """Take note of a node that is not as it was."""
        self.divergences.append(Divergence(key=key, name=unit.name, kind=unit.kind, what=what))

    def pay(self, attempts: int, cost: Decimal | None) -> None:
        """Take note of what a step that was asked took."""
        self.requests += attempts
        self.cost_usd = None if self.cost_usd is None or cost is None else self.cost_usd + cost

    def find_gone(self) -> None:
        """Take note of the nodes that were not met; what stood inside of one that gave its value is not looked for.

        A call in an eager flow has its inputs in its key: one that is gone beside one that is new was given others.
        """
        gone = [
            Divergence(key=key, name=name, kind=kind, what="is gone")
            for key, name, kind, status in self.past.nodes()
            if key not in self._met and kind != "or_else" and status != "cancelled" and not self._is_inside(key)
        ]
        for index, one in enumerate(self.divergences):
            if one.what == _NEW and (other := next((was for was in gone if _alike(one, was)), None)) is not None:
                gone.remove(other)
                self.divergences[index] = replace(one, what=OTHER_INPUTS)
        self.divergences += gone

    def _is_inside(self, key: str) -> bool:
        around, separator, _ = key.rpartition("/")
        return bool(separator) and (around in self._given or self._is_inside(around))


class Replaying(Recording):
    """The record of a run that plays another one again; it reads from that one and never writes to it.

    Args:
        script: What the other run was.
    """

    def __init__(self, recorder: Recorder, unit: Unit[..., Any], run: Run, kind: RunKind, script: Script) -> None:
        super().__init__(recorder, unit, run, kind)
        self._script = script

    def chose(self, key: str) -> bool:
        """Whether a fallback is taken at once: only where the failure that was recorded cannot be raised again."""
        found = self._script.past.find(key)
        return found is not None and found.kind == "or_else" and _made_again(found.error, "") is None

    async def node(
        self, key: str, unit: Unit[..., Any], bound: Bound, inputs: dict[str, object], around: Frame
    ) -> Result[Any]:
        """Return what is recorded of a node that is as it was, else run it."""
        given = inputs_as_json(inputs)
        found = self._script.find(key, unit, given)
        if unit.kind == "flow" or (unit.kind == "task" and self._runs(found)):
            return await super().node(key, unit, bound, inputs, around)
        what = _NEW if found is None else self._change(found, bound, inputs, given)
        if what is None:
            assert found is not None
            if found.status == "failed":
                self._script.give(found)
                raise _failure(found)
            try:
                value = None if unit.codec is None else unit.codec.load(found.output or b"null")
            except ValueError:
                what = "gave what no longer fits its type"
            else:
                self._script.give(found)
                return recorded_result(unit, self._run.id, value, found.model, found.prompt_version)
        self._script.diverge(key, unit, what)
        return await self._ask(found, what, key, unit, bound, inputs, around)

    def _runs(self, found: RecordedAnswer | None) -> bool:
        """Whether a task runs as a matter of course: it is to, or its value was never kept."""
        return self._script.run_tasks or (found is not None and found.content == "inputs")

    def _change(
        self, found: RecordedAnswer, bound: Bound, inputs: Mapping[str, object], given: bytes | None
    ) -> str | None:
        if found.status == "cancelled":
            return "had not ended"
        if (what := change(found, bound)) is not None:
            return what
        if found.input_hash != input_hash(inputs) and (given is None or given != found.inputs):
            return OTHER_INPUTS
        if found.status == "failed":
            return self._change_of_failure(found, bound)
        if found.output is None or found.content not in ("whole", "redacted-inputs"):
            return "gave what was not stored as it was"
        return None

    def _change_of_failure(self, found: RecordedAnswer, bound: Bound) -> str | None:
        asked, models = self._script.past.models(found.key), models_of(bound)
        if asked and models and models[0] not in asked:
            return f"failed with {' and '.join(sorted(asked))}, and would be asked of {' or '.join(models)}"
        if found.kind == "task" or _made_again(found.error, "") is not None:
            return None
        return "failed with what cannot be raised again"

    async def _ask(  # noqa: PLR0917  # a part of `node`
        self,
        found: RecordedAnswer | None,
        what: str,
        key: str,
        unit: Unit[..., Any],
        bound: Bound,
        inputs: dict[str, object],
        around: Frame,
    ) -> Result[Any]:
        script, began = self._script, self._clock.monotonic()
        compared = found if found is not None and unit.kind == "step" and found.output is not None else None
        try:
            result = await super().node(key, unit, bound, inputs, around)
        except Exception as exc:
            told: Any = exc
            if unit.kind == "step":
                script.pay(len(getattr(told, "attempts", ())), getattr(told, "cost_usd", _NOTHING))
            if compared is not None:
                version = getattr(unit, "prompt_version", None)
                pair = failed_pair(compared, exc, what, self._clock.monotonic() - began, version)
                script.pairs.append((_with_inputs(pair, inputs_as_json(inputs)), None))
            raise
        if unit.kind == "step":
            script.pay(len(result.attempts), result.cost_usd)
        if compared is not None:
            pair = new_pair(compared, unit, result, what)
            pair = _with_inputs(pair, inputs_as_json(inputs))
            script.pairs.append((pair, _Asked(compared, inputs, result.value, unit)))
        return result


def _with_inputs(pair: Pair, given: bytes | None) -> Pair:
    """Return a pair with the inputs of its new answer, if they are not those of the recorded one."""
    inputs: Any = None if given is None else from_json(given)
    return pair if inputs is None or inputs == pair.inputs else replace(pair, new_inputs=inputs)


def _alike(one: Divergence, other: Divergence) -> bool:
    return one.name == other.name and _VARIABLE.sub("", one.key) == _VARIABLE.sub("", other.key)


def _made_again(name: str | None, message: str) -> Exception | None:
    """Return a failure of a class by name; None when that is neither llmflow's nor Python's own, or wants more."""
    kind: object = getattr(errors, name or "", None) or getattr(builtins, name or "", None)
    if not isinstance(kind, type) or not issubclass(kind, Exception):
        return None
    try:
        return kind(message)
    except TypeError:
        return None


def _failure(found: RecordedAnswer) -> Exception:
    """Return what a node failed with, as far as it can be made again."""
    error = _made_again(found.error, found.message or "") or StepError(f"{found.error}: {found.message}")
    if isinstance(error, StepError):
        error.step, error.cost_usd = found.name, _NOTHING
    error.add_note("It failed so when it was recorded; nothing was asked.")
    return error
