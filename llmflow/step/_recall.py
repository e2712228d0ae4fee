"""What a run did before, given again when it is taken up."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from llmflow.errors import RunConflict, StepError
from llmflow.messages import Result

if TYPE_CHECKING:
    from llmflow.journal import Claimed, RecordedNode, RecordedRun, RunKind
    from llmflow.step._recorder import Recorder
    from llmflow.step._unit import Bound, Unit

__all__ = ["OTHER_INPUTS", "Recall", "conflict", "how_to_go_on", "of_run", "other_prompt", "recorded_result"]

E = TypeVar("E", bound=StepError)

_RECORDED = 'To go on with what is recorded: {command} --use-recorded{given}, or Runtime(on_change="use-recorded").'
_AGAIN = 'To ask again, and pay again: {command} --rerun-changed{given}, or Runtime(on_change="rerun-changed").'
_NO_VALUE = "Without its value it can be neither given again nor asked for anew under this id; use another run id."
_NOTHING = Decimal(0)


def how_to_go_on(run: RecordedRun | None) -> tuple[str, str]:
    """Return how a run that is not what it was goes on: with what is recorded, or asking again.

    `llmflow resume` takes the inputs from the record; where they are not stored as they were, somebody gives them again.
    """
    command, given = "llmflow resume", ""
    if run is not None and run.kind != "map" and (run.inputs is None or run.content != "whole"):
        command, given = f"llmflow run ... --run-id {shlex.quote(run.run_id)}", " with the same input"
    return _RECORDED.format(command=command, given=given), _AGAIN.format(command=command, given=given)


class Recall:
    """Gives what is recorded of a run, unless that would be something else than asked for now.

    Args:
        recorder: Says what to do about what has changed.
        claimed: What is recorded.
        run_id: Of the run.
    """

    def __init__(self, recorder: Recorder, claimed: Claimed, run_id: str) -> None:
        self._recorder = recorder
        self._on_change = recorder.on_change
        self._reruns = recorder.on_change == "rerun-changed"
        self._claimed = claimed
        self._run_id = run_id

    def run(self, unit: Unit[..., Any], kind: RunKind) -> Result[Any]:
        """Return what the run gave when it ran.

        Raises:
            RunConflict: When that cannot be given again.
        """
        assert self._claimed.run is not None
        data, version, model = self._claimed.run.output, None, None
        if kind != "flow" and (node := self._claimed.find(unit.name)) is not None:
            data, version, model = node.output, node.prompt_version, node.model
            if node.content == "hashed":
                raise self._conflict(_only_hashes(node), _NO_VALUE)
            if node.content == "redacted":
                self._check_unredacted(f"what {_named(node)} gave", how_to_go_on(None)[:1])
        if kind == "flow" and self._claimed.run.content == "redacted":
            self._check_unredacted(f"what flow {unit.name!r} gave", how_to_go_on(None)[:1])
        codec = self._recorder.codec(unit)
        if data is None or codec is None:
            raise self._conflict(
                "it has ended well, but its value was not stored",
                _NO_VALUE,
            )
        try:
            value = codec.load(data)
        except ValueError as exc:
            why = f"its value no longer fits what {unit.kind} {unit.name!r} returns: {exc}"
            raise self._conflict(why, "Use another run id.") from exc
        return recorded_result(unit, self._run_id, value, model, version)

    def node(self, key: str, unit: Unit[..., Any], bound: Bound, hashed: str) -> Result[Any] | None:
        """Return the recorded result of a node, None when it has to be run.

        Raises:
            RunConflict: When it was something else that was recorded, and nobody said what to do about it.
        """
        found = self._claimed.find(key)
        if found is None or not self._holds(found, bound, hashed):
            return None
        codec = self._recorder.codec(unit)
        if found.output is None or codec is None:
            return None
        try:
            value = codec.load(found.output)
        except ValueError as exc:
            if self._reruns:
                return None
            why = f"what {_named(found)} gave no longer fits its type: {exc}"
            raise self._conflict(why, self._ways[-1]) from exc
        return recorded_result(unit, self._run_id, value, found.model, found.prompt_version)

    def _holds(self, found: RecordedNode, bound: Bound, hashed: str) -> bool:
        """Whether a node ended well, and the same would be asked now, or that does not matter."""
        if found.status != "ok" or found.content == "inputs":
            return False
        if (change := _change(found, bound, hashed)) is not None and self._on_change != "use-recorded":
            if self._reruns:
                return False
            raise self._conflict(f"{_named(found)} {change}", *self._ways)
        if self._reruns and found.content in ("redacted", "hashed"):
            return False
        self._check_content(found)
        return True

    def chose(self, key: str) -> bool:
        """Whether the fallback of an `or_else` was taken."""
        found = self._claimed.find(key)
        return found is not None and found.kind == "or_else"

    def _check_content(self, found: RecordedNode) -> None:
        """Refuse to go on with what is not what the node gave."""
        if found.content == "hashed":
            raise self._conflict(_only_hashes(found), self._ways[-1])
        if found.content == "redacted":
            self._check_unredacted(f"what {_named(found)} gave", self._ways)

    def _check_unredacted(self, what: str, ways: Sequence[str]) -> None:
        if self._on_change != "use-recorded":
            raise self._conflict(f"{what} was redacted before it was stored", *ways)

    @property
    def _ways(self) -> tuple[str, str]:
        return how_to_go_on(self._claimed.run)

    def _conflict(self, why: str, *notes: str) -> RunConflict:
        return conflict(self._run_id, why, *notes)


def conflict(run_id: str, why: str, *notes: str) -> RunConflict:
    """Return the error for a run that cannot be taken up, with what can be done about it as notes."""
    error = of_run(run_id, RunConflict(f"run {run_id!r}: {why}"))
    for note in notes:
        error.add_note(note)
    return error


def of_run(run_id: str, error: E) -> E:
    """Return an error as one of a run that has spent nothing."""
    error.run_id, error.cost_usd = run_id, _NOTHING
    return error


def _named(found: RecordedNode) -> str:
    return f"{found.kind} {found.name!r} ({found.key})"


def _only_hashes(found: RecordedNode) -> str:
    return f"only hashes are stored of {_named(found)}, as store_content was False"


def recorded_result(
    unit: Unit[..., Any], run_id: str, value: object, model: str | None, version: str | None
) -> Result[Any]:
    """Return a value that was paid for before as a result."""
    return Result(
        value=value,
        cost_usd=_NOTHING,
        model=model,
        prompt_version=version,
        run_id=run_id,
        step=unit.name,
        recorded=True,
    )


def _change(found: RecordedNode, bound: Bound, hashed: str) -> str | None:
    """Say what is different from when a node was recorded."""
    if (change := other_prompt(found.prompt_version, getattr(bound, "versions", ()))) is not None:
        return change
    return OTHER_INPUTS if hashed != found.input_hash else None


OTHER_INPUTS = "was given other inputs"


def other_prompt(version: str | None, now: Sequence[str]) -> str | None:
    """Say that a prompt is another one than it was; None where there is none, or it is among those of now."""
    if not now or version in now:
        return None
    return f"was asked with prompt {version}, and would be asked with {' or '.join(now)}"
