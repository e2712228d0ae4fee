"""What a run writes into the journal, and what it takes from there when it is taken up again."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast

from pydantic_core import PydanticSerializationError, to_json

from llmflow.backend import alarm, cancelled_class
from llmflow.canonical import canonical
from llmflow.context import Frame, blocked_loop, caller, frame, leave
from llmflow.errors import DeadlineExceeded, DefinitionError, JournalUnavailable, RunConflict, StepError
from llmflow.journal import NodeClosed, RunClosed, RunOpened
from llmflow.messages import Result
from llmflow.records import quick

if TYPE_CHECKING:
    from llmflow.context import Run
    from llmflow.journal import Claimed, Content, RecordedNode, RunKind
    from llmflow.step._recorder import Recorder
    from llmflow.step._unit import Bound, Unit

__all__ = ["OnChange", "Recording", "check_run_id", "content_key", "inner_run", "input_hash", "inputs_as_json"]

logger = logging.getLogger("llmflow")

E = TypeVar("E", bound=StepError)

OnChange: TypeAlias = Literal["refuse", "use-recorded", "rerun-changed"]
_DIGITS = 32
_KEY_DIGITS = 12
_LONGEST_ID = 200
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two looks at a run that somebody else has."""
_PATIENCE = 2.0
"""Seconds for which a run without an id waits for a journal that somebody locks; after that it waits no more."""
_NOTHING = Decimal(0)

_new_node_closed, _new_run_opened, _new_run_closed = quick(NodeClosed), quick(RunOpened), quick(RunClosed)


class Recording:
    """One run in the journal.

    Attributes:
        is_named: Whether the run has an id of its own: then what it needs is on disk before it goes on.
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
        self._claimed: Claimed | None = None
        self._occurrences: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._is_patient = True
        self._graph: str | None = None
        self._started = self._began = 0.0
        self._losses = 0
        self._inputs: Mapping[str, object] | None = None
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
            return self._finished(claimed)
        if claimed.state == "resumed":
            self._claimed = claimed
            try:
                self._run.spent = claimed.spent()
                self._recorder.check_changes(self._unit, claimed, opened, inputs)
            except BaseException as exc:
                self.close(exc)
                raise
            self._graph = opened.graph
        return None

    def _opened(self, inputs: Mapping[str, object]) -> RunOpened:
        unit, who, recorder = self._unit, caller.get(), self._recorder
        self._inputs = inputs
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
            input_hash=input_hash(inputs),
            inputs=self._inputs_json,
            named=self.is_named,
            redactors=recorder.redactors(unit.name),
        )

    async def _claim(self, opened: RunOpened, limit: float) -> Claimed:
        until, pause = self._began + limit, _FIRST_PAUSE
        while True:
            claimed = await self._journal.claim(opened)
            if claimed.state != "busy":
                return claimed
            if pause == _FIRST_PAUSE:
                self._say_busy(claimed)
            left = until - self._clock.monotonic()
            if left <= 0:
                msg = f"run {self._run.id!r} is being run by somebody else, and was not finished within {limit:g} s"
                raise self._of_the_run(DeadlineExceeded(msg))
            await self._clock.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _say_busy(self, claimed: Claimed) -> None:
        """Tell that the run has to be waited for, unless whoever runs it waits for this very call."""
        if claimed.is_ours and blocked_loop.get() is not None:
            raise self._conflict(
                "it is being run in this process, perhaps by the event loop that waits for this .sync() call",
                "In code that an event loop runs, await the call.",
            )
        logger.info("run %r is being run by somebody else; waiting for it", self._run.id)
        if self._recorder.on_busy is not None:
            self._recorder.on_busy(self._run.id)

    def _finished(self, claimed: Claimed) -> Result[Any]:
        """Return what the run gave when it ran."""
        assert claimed.run is not None
        unit, data, version, model = self._unit, claimed.run.output, None, None
        if self._kind != "flow" and (node := claimed.find(unit.name)) is not None:
            data, version, model = node.output, node.prompt_version, node.model
            self._check_content(node)
        codec = self._recorder.codec(unit)
        if self._kind == "flow" and claimed.run.content == "redacted":
            self._check_unredacted(f"what flow {unit.name!r} gave")
        if data is None or codec is None:
            raise self._conflict(
                "it has ended well, but its value was not stored",
                "Without its value it can be neither given again nor asked for anew under this id; use another run id.",
            )
        try:
            value = codec.load(data)
        except ValueError as exc:
            error = self._conflict(
                f"its value no longer fits what {unit.kind} {unit.name!r} returns: {exc}", "Use another run id."
            )
            raise error from exc
        return Result(
            value=value,
            cost_usd=_NOTHING,
            model=model,
            prompt_version=version,
            run_id=self._run.id,
            step=unit.name,
            recorded=True,
        )

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

    def key_of(self, around: Frame, unit: Unit[..., Any], inputs: Mapping[str, object], item: str | None = None) -> str:
        """Return the place of a call that no graph knows: what is asked, and which of those that ask the same it is."""
        base = f"{around.node}/{unit.name}" if around.node else unit.name
        key = f"{base}{'' if item is None else f'[{item}]'}@{input_hash(inputs)[:_KEY_DIGITS]}"
        return self._numbered(key)

    def _numbered(self, key: str) -> str:
        with self._lock:
            self._occurrences[key] += 1
            number = self._occurrences[key]
        return key if number == 1 else f"{key}#{number}"

    def item_key(self, base: str, item: str) -> str:
        """Return the place of one item of a map; called in the order the items are read in."""
        return self._numbered(f"{base}[{item}]")

    async def node(
        self, key: str, unit: Unit[..., Any], bound: Bound, inputs: dict[str, object], around: Frame
    ) -> Result[Any]:
        """Return what is recorded of a node, or run it and record it."""
        hashed = input_hash(inputs)
        if self._claimed is not None and not key.partition("#")[0].endswith(_UNKNOWN_ITEM):
            found = self._claimed.find(key)
            if found is not None and (recalled := self._recalled(found, unit, bound, hashed)) is not None:
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

    def _recalled(self, found: RecordedNode, unit: Unit[..., Any], bound: Bound, hashed: str) -> Result[Any] | None:
        """Return the recorded result of a node, None when it has to be run."""
        if found.status != "ok" or found.content == "inputs":
            return None
        on_change = self._recorder.on_change
        if (change := _change(found, bound, hashed)) is not None and on_change != "use-recorded":
            if on_change == "rerun-changed":
                return None
            raise self._conflict(f"{found.kind} {found.name!r} ({found.key}) {change}", *HOW_TO_GO_ON)
        if found.content in ("redacted", "hashed") and on_change == "rerun-changed":
            return None
        self._check_content(found)
        codec = self._recorder.codec(unit)
        if found.output is None or codec is None:
            return None
        try:
            value = codec.load(found.output)
        except ValueError as exc:
            if on_change == "rerun-changed":
                return None
            why = f"what {found.kind} {found.name!r} ({found.key}) gave no longer fits its type: {exc}"
            raise self._conflict(why, HOW_TO_GO_ON[-1]) from exc
        return Result(
            value=value,
            cost_usd=_NOTHING,
            model=found.model,
            prompt_version=found.prompt_version,
            run_id=self._run.id,
            step=unit.name,
            recorded=True,
        )

    def _check_content(self, found: RecordedNode) -> None:
        """Refuse to go on with what is not what the node gave."""
        if found.content == "hashed":
            raise self._conflict(
                f"only hashes are stored of {found.kind} {found.name!r} ({found.key}), as store_content was False",
                HOW_TO_GO_ON[-1],
            )
        if found.content == "redacted":
            self._check_unredacted(f"what {found.kind} {found.name!r} ({found.key}) gave")

    def _check_unredacted(self, what: str) -> None:
        if self._recorder.on_change != "use-recorded":
            raise self._conflict(f"{what} was redacted before it was stored", *HOW_TO_GO_ON)

    def chose(self, key: str) -> bool:
        """Whether the fallback of an `or_else` was taken before."""
        found = None if self._claimed is None else self._claimed.find(key)
        return found is not None and found.kind == "or_else"

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

    def _conflict(self, why: str, *notes: str) -> RunConflict:
        error = self._of_the_run(RunConflict(f"run {self._run.id!r}: {why}"))
        for note in notes:
            error.add_note(note)
        return error

    def _of_the_run(self, error: E) -> E:
        error.run_id = self._run.id
        error.cost_usd = _NOTHING
        return error


HOW_TO_GO_ON = (
    'To go on with what is recorded: llmflow resume --use-recorded, or Runtime(on_change="use-recorded").',
    'To ask again, and pay again: llmflow resume --rerun-changed, or Runtime(on_change="rerun-changed").',
)


def _change(found: RecordedNode, bound: Bound, hashed: str) -> str | None:
    """Say what is different from when a node was recorded."""
    versions: Sequence[str] = getattr(bound, "versions", ())
    if versions and found.prompt_version not in versions:
        return f"was asked with prompt {found.prompt_version}, and would be asked with {' or '.join(versions)}"
    if hashed != found.input_hash:
        return "was given other inputs"
    return None


def check_run_id(run_id: object, where: str) -> str:
    """Return a run id, refusing what cannot name a run in a file, a table and a command.

    Raises:
        DefinitionError: For anything but a text of 1 to 200 printable characters.
    """
    if not isinstance(run_id, str) or not 0 < len(run_id) <= _LONGEST_ID or not run_id.isprintable():
        msg = f"{where}: run_id is {run_id!r}, expected a text of 1 to {_LONGEST_ID} printable characters"
        raise DefinitionError(msg)
    return run_id


def inner_run(name: str, run_id: str | None, where: str) -> DefinitionError:
    """Return the error for a unit with a run id of its own that is called inside of another run."""
    msg = (
        f"{name!r} has the run id {run_id!r}, but is called inside of {where}; a run is the outermost call, so give the id "
        f"to that one"
    )
    return DefinitionError(msg)


# -- hashes and content ------------------------------------------------------------------------------------------------


def input_hash(inputs: Mapping[str, object]) -> str:
    """Return a hash of arguments that is the same in every process.

    What has no text of its own, such as a client, counts by its type.
    """
    parts = [f"{name}={_text(value)}" for name, value in inputs.items()]
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def content_key(item: object) -> str:
    """Return what tells an item of a map from others by its content; `NO_CONTENT` for what has no text of its own."""
    text = _text(item)
    if text.startswith("?"):
        return NO_CONTENT
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_DIGITS]


NO_CONTENT = "?"
_UNKNOWN_ITEM = f"[{NO_CONTENT}]"
"""Ends the key of an item that nothing tells from others: what is recorded of it may be another one's."""


def _text(value: object) -> str:
    try:
        return canonical(value)
    except RecursionError:
        return f"?{type(value).__qualname__}"
    except TypeError:
        return _text_of_parts(value)


def _text_of_parts(value: Any) -> str:
    """Return the text of what has parts of which some have none, such as a tuple of a client and an address."""
    kind = type(value).__qualname__
    if isinstance(value, Mapping):
        parts = sorted(f"{_text(key)}:{_text(one)}" for key, one in cast("Mapping[object, object]", value).items())
    elif isinstance(value, list | tuple):
        parts = [_text(one) for one in cast("Sequence[object]", value)]
    elif is_dataclass(value) or hasattr(value, "__pydantic_fields__"):
        known: Mapping[str, object] = getattr(cast("object", type(value)), "__pydantic_fields__", {})
        names = [one.name for one in fields(value)] if is_dataclass(value) else [*known]
        parts = [f"{name}:{_text(getattr(cast('object', value), name, None))}" for name in names]
    else:
        return f"?{kind}"
    return f"{kind}({','.join(parts)})"


def inputs_as_json(inputs: Mapping[str, object]) -> bytes | None:
    """Return arguments by name as JSON; what JSON cannot hold is replaced by the name of its type."""
    try:
        return to_json(dict(inputs), round_trip=True, inf_nan_mode="strings", bytes_mode="base64", fallback=_unknown)
    except (PydanticSerializationError, UnicodeEncodeError, RecursionError, ValueError):
        return None


def _unknown(value: object) -> object:
    return {"?": type(value).__qualname__}


def _status(error: BaseException) -> Literal["failed", "cancelled"]:
    return "failed" if isinstance(error, Exception) and not isinstance(error, cancelled_class()) else "cancelled"


def _message(error: BaseException | None) -> str | None:
    return None if error is None else str(error)
