"""What a run writes into the journal, and what it takes from there when it is taken up again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from llmflow.backend import alarm, cancelled_class
from llmflow.context import Frame, blocked_loop, caller, frame, leave
from llmflow.errors import DeadlineExceeded, JournalUnavailable
from llmflow.journal import NodeClosed, RunClosed, RunOpened
from llmflow.records import quick
from llmflow.step._arguments import input_hash, inputs_as_json
from llmflow.step._node_keys import NodeKeys
from llmflow.step._recall import Recall, conflict, of_run

if TYPE_CHECKING:
    from llmflow.context import Run
    from llmflow.journal import Claimed, Content, RunKind
    from llmflow.messages import Result
    from llmflow.step._recorder import Recorder
    from llmflow.step._unit import Bound, Unit

__all__ = ["OnChange", "Recording"]

logger = logging.getLogger("llmflow")

OnChange: TypeAlias = Literal["refuse", "use-recorded", "rerun-changed"]
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two looks at a run that somebody else has."""
_PATIENCE = 2.0
"""Seconds for which a run without an id waits for a journal that somebody locks; after that it waits no more."""

_new_node_closed, _new_run_opened, _new_run_closed = quick(NodeClosed), quick(RunOpened), quick(RunClosed)


class Recording:
    """One run in the journal.

    Attributes:
        is_named: Whether the run has an id of its own: then what it needs is on disk before it goes on.
        keys: Gives the keys of nodes that no graph knows.
    """

    def __init__(self, recorder: Recorder, unit: Unit[..., Any], run: Run, kind: RunKind) -> None:
        self.is_named = unit.run_id is not None
        self._recorder = recorder
        self._journal = recorder.journal
        self._clock = recorder.clock
        self._unit = unit
        self._run = run
        self._kind: RunKind = kind
        self._keeps_content = recorder.keeps_content
        self._past: Recall | None = None
        self.keys = NodeKeys({})
        self._is_patient = True
        self._graph: str | None = None
        self._started = self._began = 0.0
        self._losses = 0
        self._inputs: Mapping[str, object] | None = None
        self._input_hash = ""
        self._inputs_json: bytes | None = None

    # -- the run -------------------------------------------------------------------------------------------------------

    async def begin(self, inputs: Mapping[str, object], limit: float = float("inf")) -> Result[Any] | None:
        """Begin the run, or take it up; returns its result when it has one already.

        Waits while somebody else runs it, for as many seconds as the run itself may take.

        Raises:
            RunConflict: When it cannot be taken up.
            DeadlineExceeded: When somebody else has not ended it within the limit.
            JournalUnavailable: When it has an id and cannot be recorded.
        """
        self._started, self._began = self._clock.time(), self._clock.monotonic()
        opened = self._opened(inputs)
        if not self.is_named:
            self._journal.write(opened)
            return None
        claimed = await self._claim(opened, limit)
        self._losses = getattr(self._journal, "losses", 0)
        if claimed.state == "finished":
            return self._recall(claimed).run(self._unit, self._kind)
        if claimed.state == "resumed":
            self._past = self._recall(claimed)
            try:
                self._run.spent = claimed.spent()
                self._recorder.check_changes(self._unit, claimed, opened, inputs)
            except BaseException as exc:
                self.close(exc)
                raise
            self._graph = opened.graph
        return None

    def _recall(self, claimed: Claimed) -> Recall:
        return Recall(self._recorder, claimed, self._run.id)

    def _opened(self, inputs: Mapping[str, object]) -> RunOpened:
        unit, who, recorder = self._unit, caller.get(), self._recorder
        self._inputs, self._input_hash = inputs, input_hash(inputs)
        self.keys = NodeKeys(inputs)
        self._inputs_json = inputs_as_json(inputs) if self._keeps_content else None
        return _new_run_opened(
            run_id=self._run.id,
            target=unit.name,
            kind=self._kind,
            started=self._started,
            ref=recorder.ref_of(unit),
            command=recorder.command,
            tenant=who.tenant,
            tags=who.tags or None,
            graph=recorder.see_graph(unit) if self._kind == "flow" else None,
            input_hash=self._input_hash,
            inputs=self._inputs_json,
            named=self.is_named,
            redactors=recorder.redactors(unit.name),
        )

    async def _claim(self, opened: RunOpened, limit: float) -> Claimed:
        until, pause = self._began + limit, _FIRST_PAUSE
        why = "could not be begun, as its journal is in use,"
        while (left := until - self._clock.monotonic()) > 0:
            with alarm(left):
                claimed = await self._journal.claim(opened)
                if claimed.state != "busy":
                    return claimed
                if pause == _FIRST_PAUSE:
                    why = "is being run by somebody else, and was not finished"
                    self._say_busy(claimed)
                await self._clock.sleep(min(pause, left))
                pause = min(pause * 1.5, _LONGEST_PAUSE)
        msg = f"run {self._run.id!r} {why} within {limit:g} s"
        raise of_run(self._run.id, DeadlineExceeded(msg))

    def _say_busy(self, claimed: Claimed) -> None:
        """Tell that the run has to be waited for, unless whoever runs it waits for this very call."""
        if claimed.is_ours and blocked_loop.get() is not None:
            raise conflict(
                self._run.id,
                "it is being run in this process, perhaps by the event loop that waits for this .sync() call",
                "In code that an event loop runs, await the call.",
            )
        logger.info("run %r is being run by somebody else; waiting for it", self._run.id)
        if self._recorder.on_busy is not None:
            self._recorder.on_busy(self._run.id)

    def close(self, error: BaseException | None, value: object = None) -> None:
        """Write how the run ended."""
        output = None
        if error is None and self._kind == "flow" and self._keeps_content:
            codec = self._recorder.codec(self._unit)
            output = None if codec is None else codec.dump(value)
        self._journal.write(
            _new_run_closed(
                run_id=self._run.id,
                status="ok" if error is None else _status(error),
                finished=self._clock.time(),
                latency_s=self._clock.monotonic() - self._began,
                error=None if error is None else type(error).__name__,
                message=_message(error),
                output=output,
                graph=self._graph,
                redactors=self._recorder.redactors(self._unit.name) if output is not None else (),
            )
        )

    async def settled(self) -> None:
        """Return when what was written so far survives the end of the process, if the run needs that.

        A single step or task without an id has nothing that a later node could be paid for in vain.
        """
        if self.is_named:
            await self._journal.settled()
            self._check_losses()
        elif self._kind in ("flow", "map") and self._is_patient:
            with suppress(JournalUnavailable), alarm(_PATIENCE) as waiting:
                await self._journal.settled()
            self._is_patient = not waiting.fired

    def _check_losses(self) -> None:
        """Raise when something that was written for the run may be lost, although what came after it is not."""
        if getattr(self._journal, "losses", 0) != self._losses:
            msg = "a part of what was recorded could not be written"
            raise JournalUnavailable(msg)

    # -- its nodes -----------------------------------------------------------------------------------------------------

    async def node(
        self, key: str, unit: Unit[..., Any], bound: Bound, inputs: dict[str, object], around: Frame
    ) -> Result[Any]:
        """Return what is recorded of a node, or run it and record it."""
        hashed = self._input_hash if inputs is self._inputs else input_hash(inputs)
        past = self._past_of(key)
        if past is not None and (recalled := past.node(key, unit, bound, hashed)) is not None:
            return recalled
        inside = Frame(around.run, around.scope, around.deadline, key)
        token = frame.set(inside)
        note = partial(self._close_node, key, unit, inputs, hashed, self._clock.time(), self._clock.monotonic())
        try:
            result = await bound.invoke(inputs, inside)
        except BaseException as exc:
            note(None, exc)
            raise
        finally:
            leave(token)
        self._recorder.see_prompt(bound, result.prompt_version)
        note(result, None)
        return result

    def _close_node(  # noqa: PLR0917  # a part of `node`
        self,
        key: str,
        unit: Unit[..., Any],
        inputs: Mapping[str, object],
        hashed: str,
        started: float,
        began: float,
        result: Result[Any] | None,
        error: BaseException | None,
    ) -> None:
        output, content = self._output(unit, result)
        kind: Any = unit.kind
        self._journal.write(
            _new_node_closed(
                run_id=self._run.id,
                key=key,
                name=unit.name,
                kind=kind,
                status="ok" if error is None else _status(error),
                started=started,
                latency_s=self._clock.monotonic() - began,
                model=None if result is None else result.model,
                prompt_version=getattr(unit, "prompt_version", None) if result is None else result.prompt_version,
                input_hash=hashed,
                inputs=self._as_json(inputs),
                output=output,
                content=content,
                error=None if error is None else type(error).__name__,
                message=_message(error),
                redactors=self._recorder.redactors(unit.name) if self._keeps_content else (),
            )
        )

    def _as_json(self, inputs: Mapping[str, object]) -> bytes | None:
        if inputs is self._inputs:  # of a step or task that is its run
            return self._inputs_json
        return inputs_as_json(inputs) if self._keeps_content else None

    def _output(self, unit: Unit[..., Any], result: Result[Any] | None) -> tuple[bytes | None, Content]:
        if not self._keeps_content:
            return None, "hashed"
        if result is None:
            return None, "whole"
        codec = self._recorder.codec(unit)
        data = None if codec is None else codec.dump(result.value)
        if data is not None:
            return data, "whole"
        if unit.kind == "task" and getattr(unit, "journal", False):
            self._recorder.warn_not_kept(unit, result.value)
        return None, "inputs"

    # -- taking it up again --------------------------------------------------------------------------------------------

    def _past_of(self, key: str) -> Recall | None:
        """Return where to look for what is recorded of a node, None when that may be another one's."""
        return None if self._past is None or self.keys.may_be_another(key) else self._past

    def chose(self, key: str) -> bool:
        """Whether the fallback of an `or_else` was taken before."""
        past = self._past_of(key)
        return past is not None and past.chose(key)

    def choose(self, key: str, name: str, error: BaseException) -> None:
        """Write that an `or_else` takes its fallback, so that it does so again."""
        self._journal.write(
            NodeClosed(
                run_id=self._run.id,
                key=key,
                name=name,
                kind="or_else",
                status="ok",
                started=self._clock.time(),
                latency_s=0.0,
                error=type(error).__name__,
                message=_message(error),
            )
        )


def _status(error: BaseException) -> Literal["failed", "cancelled"]:
    return "failed" if isinstance(error, Exception) and not isinstance(error, cancelled_class()) else "cancelled"


def _message(error: BaseException | None) -> str | None:
    if error is None:
        return None
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # it is the author's class, and its run has to end all the same
        return type(error).__name__
