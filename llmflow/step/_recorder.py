"""What all recorded runs of a runtime have in common."""

from __future__ import annotations

import copy
import logging
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from llmflow.errors import DefinitionError, RunConflict
from llmflow.journal import GraphSeen, PromptSeen
from llmflow.schema import why_no_codec
from llmflow.step._arguments import input_hash
from llmflow.step._recall import OTHER_INPUTS, how_to_go_on, other_prompt
from llmflow.step._recording import Recording

if TYPE_CHECKING:
    from llmflow.context import Run
    from llmflow.journal import Claimed, Redactor, RunKind, RunOpened
    from llmflow.ports import Clock, Journal
    from llmflow.schema import Codec
    from llmflow.step._recording import OnChange
    from llmflow.step._unit import Bound, Unit

__all__ = ["Recorder", "Shape"]

logger = logging.getLogger("llmflow")

_CHANGES_SAID = 5


class Shape(Protocol):
    """The graph of a flow, as far as a recorded run is compared with it."""

    @property
    def digest(self) -> str:
        """A hash of `nodes`."""
        ...

    @property
    def nodes(self) -> str:
        """Kind and predecessors of each node by key, as JSON."""
        ...

    @property
    def steps(self) -> Mapping[str, Unit[..., Any]]:
        """The steps by key."""
        ...

    def known(self, inputs: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
        """Yield key and arguments of each call that waits for no other node."""
        ...

    def differences(self, nodes: str) -> Iterator[str]:
        """Yield what is different in another shape, that was, in words."""
        ...


class Recorder:
    """Opens the records of runs.

    Args:
        journal: Where they are written.
        clock: Where time comes from.
        store_content: Whether inputs and outputs are stored and not only their hashes. Unless said, they are in a journal
            that outlives the process, and in one that does not for runs with an id.
        on_change: What to do about a recorded node whose prompt, inputs or content are not what they were.
        redactors: Asked for each step, task and flow.
        versions: Returns the prompt versions that a step may have.
    """

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        *,
        store_content: bool | None,
        on_change: OnChange,
        redactors: Callable[[str], Sequence[Redactor]],
        versions: Callable[[Any], Sequence[str]],
    ) -> None:
        self.journal = journal
        self.clock = clock
        self.keeps_content = store_content is not False
        self.on_change = on_change
        self.is_durable: bool = getattr(journal, "durable", True)
        self.on_busy: Callable[[str], None] | None = None
        """Told the id of a run that has to be waited for."""
        self.command: str | None = None
        self.ref: str | None = None
        """Where the command found its target; else the function says where it is."""
        self.new_record: Callable[..., Recording] = Recording
        self._ask_redactors = redactors
        self._versions = versions
        self._redactors: dict[str, Sequence[Redactor]] = {}
        self._prompts: set[tuple[str, str]] = set()
        self._graphs: set[str] = set()
        self._warned: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()

    def records(self, unit: Unit[..., Any]) -> bool:
        """Whether runs of a unit are recorded node by node."""
        return self.is_durable or unit.run_id is not None

    def open(self, unit: Unit[..., Any], run: Run, kind: RunKind) -> Recording:
        """Return the record of a new run."""
        if unit.run_id is not None and kind == "flow":
            _check_tasks(unit)
        return self.new_record(self, unit, run, kind)

    def with_records(self, new_record: Callable[..., Recording]) -> Recorder:
        """Return a copy that records every run, whatever its journal is, by records of another kind."""
        made = copy.copy(self)
        made.new_record, made.is_durable = new_record, True
        return made

    # -- what the record of a run asks ---------------------------------------------------------------------------------

    def codec(self, unit: Unit[..., Any]) -> Codec | None:
        """Return what turns the values of a unit into JSON and back, None when nothing does."""
        return unit.codec

    def redactors(self, name: str) -> Sequence[Redactor]:
        """Return what changes texts of a step, task or flow before they are stored."""
        found = self._redactors.get(name)
        if found is None:
            with self._lock:
                found = self._redactors[name] = tuple(self._ask_redactors(name))
        return found

    def ref_of(self, unit: Unit[..., Any]) -> str | None:
        """Return where a unit can be found again, None for one inside of a function."""
        if self.ref is not None:
            return self.ref
        name = unit.__qualname__
        if "<" in name:
            return None
        if unit.__module__ != "__main__":
            return f"{unit.__module__}:{name}"
        path = getattr(sys.modules.get("__main__"), "__file__", None)
        return None if path is None else f"{path}:{name}"

    def see_graph(self, unit: Unit[..., Any]) -> str | None:
        """Write the graph of a flow the first time it is seen, and return its hash; None for one without a graph."""
        shape = unit.shape
        if shape is None:
            return None
        if shape.digest not in self._graphs:
            self._graphs.add(shape.digest)
            self.journal.write(
                GraphSeen(graph=shape.digest, target=unit.name, nodes=shape.nodes, time=self.clock.time())
            )
        return shape.digest

    def see_prompt(self, bound: Bound, version: str | None) -> None:
        """Write what a version of a prompt consists of, the first time it is used."""
        for step, label in getattr(bound, "prompts", ()):
            key = (step.name, step.prompt_version)
            if key[1] == version and key not in self._prompts:
                self._prompts.add(key)
                note = PromptSeen(
                    step=key[0], version=key[1], parts=step.prompt_as_json, label=label, time=self.clock.time()
                )
                self.journal.write(note)

    def warn_not_kept(self, unit: Unit[..., Any], value: object) -> None:
        """Say once that a task will run again when its run is taken up."""
        if unit.function in self._warned:
            return
        self._warned.add(unit.function)
        logger.warning(
            "task %r returned %s, which JSON cannot hold or give back: when its run is taken up again the task runs again; "
            "annotate what it returns, or say @task(journal=False)",
            unit.name,
            type(value).__name__,
        )

    def check_changes(
        self, unit: Unit[..., Any], claimed: Claimed, opened: RunOpened, inputs: Mapping[str, object]
    ) -> None:
        """Refuse to take a run up whose flow is not what it was, naming every difference.

        Raises:
            RunConflict: Unless the author said what to do about it.
        """
        # A map of flows has a graph for each item, whose inputs are not known yet.
        shape = unit.shape if self.on_change == "refuse" and opened.kind == "flow" else None
        if shape is None:
            return
        run_id = opened.run_id
        changes = [*self._changed_prompts(shape, claimed), *_changed_arguments(shape, claimed, inputs)]
        known = None if claimed.run is None else claimed.run.graph
        if known not in (None, opened.graph):
            nodes = claimed.nodes_of(known)
            changes += ["its graph is another one"] if nodes is None else shape.differences(nodes)
        if not changes:
            return
        more = f"; and {len(changes) - _CHANGES_SAID} more" if len(changes) > _CHANGES_SAID else ""
        error = RunConflict(
            f"run {run_id!r}: flow {unit.name!r} was changed since it began: {'; '.join(changes[:_CHANGES_SAID])}{more}"
        )
        error.run_id = run_id
        for note in how_to_go_on(claimed.run):
            error.add_note(note)
        raise error

    def _changed_prompts(self, shape: Shape, claimed: Claimed) -> Iterator[str]:
        steps, seen = shape.steps, set[tuple[str, str | None]]()
        for key, name, kind, version in claimed.versions():
            base = key.partition("[")[0]
            if kind != "step" or base not in steps or (base, version) in seen:
                continue
            seen.add((base, version))
            now = self._versions(steps[base])
            if (change := other_prompt(version, now)) is not None:
                yield f"step {name!r} ({base}) {change}"


def _changed_arguments(shape: Shape, claimed: Claimed, inputs: Mapping[str, object]) -> Iterator[str]:
    """Yield the calls that would be given something else: here, before anything is sent beside them."""
    for key, arguments in shape.known(inputs):
        found = claimed.find(key)
        if found is not None and found.status == "ok" and found.input_hash not in (None, input_hash(arguments)):
            yield f"{found.kind} {found.name!r} ({key}) {OTHER_INPUTS}"


def _check_tasks(unit: Unit[..., Any]) -> None:
    """Refuse a run with an id whose tasks return what cannot be kept for taking it up again.

    Raises:
        DefinitionError: Naming the task.
    """
    for one in unit.units():
        if one.kind == "task" and getattr(one, "journal", False) and one.codec is None:
            returns = getattr(one.signature.returns, "__name__", one.signature.returns)
            msg = (
                f"task {one.name!r} returns {returns}, which pydantic cannot serialise, so a run with an id cannot keep it "
                f"({why_no_codec(one.signature.returns)}); say @task(journal=False), and it runs again when the run is taken up"
            )
            raise DefinitionError(msg)
