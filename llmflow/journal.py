"""What a run writes into the journal, and what it finds there when it is taken up again.

Values travel as JSON. `RunOpened`, `NodeClosed` and their like are handed to `Journal.write`, together with the events
of `llmflow.events`; a journal of a third party takes the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from decimal import Decimal

__all__ = [
    "Claimed",
    "Content",
    "GraphSeen",
    "NodeClosed",
    "NodeKind",
    "NodeStatus",
    "Note",
    "PromptSeen",
    "RecordedAnswer",
    "RecordedNode",
    "RecordedRun",
    "Redactor",
    "RunClosed",
    "RunKind",
    "RunOpened",
    "RunStatus",
    "Spent",
]

RunKind: TypeAlias = Literal["step", "task", "flow", "map"]
RunStatus: TypeAlias = Literal["running", "ok", "failed", "cancelled", "interrupted"]
NodeKind: TypeAlias = Literal["step", "task", "flow", "or_else"]
NodeStatus: TypeAlias = Literal["ok", "failed", "cancelled"]
Content: TypeAlias = Literal["whole", "redacted", "redacted-inputs", "hashed", "inputs"]
"""What is stored of a node: all, all with some texts changed (of its output, or of its inputs alone), only hashes, or its
inputs alone."""
Redactor: TypeAlias = Callable[[str], str]
"""Returns a text as it may be stored; it is given every text in the inputs and outputs."""
Spent: TypeAlias = tuple[int, int, int]
"""Nano-dollars, tokens, requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOpened:
    """An outermost call begins.

    Attributes:
        target: Name of the step, task or flow.
        ref: Where it is: `module:name`, or `path.py:name`.
        command: What the command that started it was told, as JSON; None when a program did.
        graph: Hash of the flow's graph, see `GraphSeen`.
        input_hash: Of the arguments as they are; None when they have no text that is the same in every process.
        inputs: The arguments by name, as JSON; None when they are not stored.
        named: Whether somebody gave it its id, and so may call it again.
    """

    run_id: str
    target: str
    kind: RunKind
    started: float
    ref: str | None = None
    command: str | None = None
    tenant: str | None = None
    tags: Mapping[str, str] | None = None
    graph: str | None = None
    input_hash: str | None = None
    inputs: bytes | None = None
    named: bool = False
    redactors: Sequence[Redactor] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunClosed:
    """An outermost call has ended.

    Attributes:
        output: Its value as JSON, None when it is not stored here.
        graph: Hash of the graph it went on with after it was taken up; None when that is the one it began with.
    """

    run_id: str
    status: RunStatus
    finished: float
    latency_s: float
    error: str | None = None
    message: str | None = None
    output: bytes | None = None
    graph: str | None = None
    redactors: Sequence[Redactor] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeClosed:
    """A node of a run has ended, and what it took is complete; what is written with it is written as one.

    Attributes:
        key: Its place in the run, the same in every run of the same graph.
        model: Which model gave the answer of a step.
        input_hash: Of its arguments, a guard: a recorded value belongs to these.
    """

    run_id: str
    key: str
    name: str
    kind: NodeKind
    status: NodeStatus
    started: float
    latency_s: float
    model: str | None = None
    prompt_version: str | None = None
    input_hash: str | None = None
    inputs: bytes | None = None
    output: bytes | None = None
    content: Content = "whole"
    error: str | None = None
    message: str | None = None
    redactors: Sequence[Redactor] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSeen:
    """A version of a prompt is used; `parts` says what makes it, as JSON."""

    step: str
    version: str
    parts: str
    time: float
    label: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSeen:
    """A flow of this shape is run; `nodes` has the kind and the predecessors of each node by key, as JSON."""

    graph: str
    target: str
    nodes: str
    time: float


Note: TypeAlias = RunOpened | RunClosed | NodeClosed | PromptSeen | GraphSeen


# -- what is found -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedNode:
    """A node as an earlier try of its run left it."""

    key: str
    name: str
    kind: str
    status: str
    model: str | None = None
    prompt_version: str | None = None
    input_hash: str | None = None
    inputs: bytes | None = None
    output: bytes | None = None
    content: str = "whole"
    error: str | None = None
    latency_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedAnswer(RecordedNode):
    """A node of any run, with what it took.

    Attributes:
        ref: Where the target of its run is.
        message: What the error said that it ended with.
        cost_usd: What its requests cost, None when that is not known.
        requests: How many were sent; none when the answer came from a cache, or the body gave it.
        cached: Whether the answer came from a cache.
    """

    run_id: str
    ref: str | None = None
    message: str | None = None
    started: float = 0.0
    cost_usd: Decimal | None = None
    requests: int = 0
    cached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """A run as it stands in the journal; its `content` is `redacted` when its value was changed before it was stored."""

    run_id: str
    target: str
    kind: str
    status: str
    ref: str | None = None
    command: str | None = None
    graph: str | None = None
    input_hash: str | None = None
    inputs: bytes | None = None
    output: bytes | None = None
    content: str = "whole"


class Claimed(Protocol):
    """What became of asking for a run.

    Attributes:
        state: `new`; `resumed` for one that had ended without a value, or whose process is gone; `finished` for one that
            has its value; `busy` for one that somebody else is running.
        run: The run as it was before, None when it is new.
        is_ours: Whether it is this process that runs it.
    """

    state: Literal["new", "resumed", "finished", "busy"]
    run: RecordedRun | None
    is_ours: bool

    def find(self, key: str, /) -> RecordedNode | None:
        """Return what is recorded of one of its nodes."""
        ...

    def versions(self) -> Sequence[tuple[str, str, str, str | None]]:
        """Return key, name, kind and prompt version of every node that went well."""
        ...

    def spent(self) -> Mapping[str, Spent]:
        """Return what each step of it has spent; what was in flight when its process died at the worst case."""
        ...

    def nodes_of(self, graph: str, /) -> str | None:
        """Return the nodes of a graph, as `GraphSeen` has them."""
        ...
