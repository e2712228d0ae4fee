"""The engine that runs flows in this process, on the event loop that is running."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from anyio.lowlevel import checkpoint

from llmflow.context import Frame, frame, leave
from llmflow.engine._jobs import Job, compile_jobs, count_reads
from llmflow.engine._operands import Getter, Layout, Values
from llmflow.engine._places import Places
from llmflow.graph._groups import Group, open_group

if TYPE_CHECKING:
    from llmflow.context import Scope
    from llmflow.graph._ir import Graph

__all__ = ["LocalEngine"]

PAUSE_EVERY = 64
"""Nodes one task runs before it lets others have the loop, should none of them ever have to wait."""


class LocalEngine:
    """Runs the nodes of a flow as parallel as their data allows, as tasks of the running event loop."""

    def prepare(
        self, graph: Graph, runtime: Any, scope: Scope | None
    ) -> Callable[[Mapping[str, object], Frame], Awaitable[Any]]:
        """Do once what every run of a graph needs, and return the function that runs it.

        What is returned holds no state of a run: any number of loops and threads may call it at a time. It takes the
        flow's inputs by name and the frame around the flow.

        Args:
            graph: What to run. Scopes of its nodes are relative: the outermost ones get `scope` as their parent.
            runtime: What the units are bound to.
            scope: The scope the flow stands in, None for an outermost one.
        """
        plan = _Plan(graph, runtime, scope)

        def run(inputs: Mapping[str, object], around: Frame) -> Awaitable[Any]:
            return _Run(plan, inputs, around).complete()

        return run


class _Plan:
    """All that the runs of one graph share."""

    __slots__ = ("jobs", "name", "places", "reads", "result", "roots", "values", "waits")

    def __init__(self, graph: Graph, runtime: Any, scope: Scope | None) -> None:
        layout = Layout.of(graph)
        self.name = graph.name
        self.places = Places(scope)
        self.jobs: tuple[Job, ...] = compile_jobs(graph, layout, self.places, runtime)
        self.result: Getter = layout.getter(graph.result)
        self.values = layout.values
        self.reads = count_reads(self.jobs, graph.result)
        self.waits = [len(node.after) for node in graph.nodes]
        self.roots = [index for index, waits in enumerate(self.waits) if not waits]


class _Run:
    """One run: the values so far, and which nodes wait for how many others."""

    __slots__ = (
        "_around",
        "_called",
        "_calling",
        "_frames",
        "_group",
        "_plan",
        "_reads",
        "_ready",
        "_stopped",
        "_values",
        "_waits",
    )

    def __init__(self, plan: _Plan, inputs: Mapping[str, object], around: Frame) -> None:
        self._plan = plan
        self._around = around
        self._values: Values = plan.values(inputs)
        self._waits = plan.waits.copy()
        self._reads = plan.reads.copy()
        self._ready = deque(plan.roots)
        self._frames = plan.places.frames(around)
        self._group: Group | None = None
        self._called = 0
        self._calling = False
        self._stopped = False

    async def complete(self) -> Any:
        """Run every node and return the flow's value."""
        token = frame.set(self._around)
        try:
            await self._walk()
            if self._ready:
                self._group = open_group(self._help, self._stop)
                self._called = 1
                await self._group.run()
        finally:
            leave(token)
        return self._plan.result(self._values)

    async def _walk(self) -> None:
        """Run ready nodes, one after the other, until none is left; the caller's task stops where the graph forks.

        A node that follows runs in the same task: on a chain there is only one, the caller's own. Ready nodes beside
        it are left to a helper, which finds nothing to do if this node ends without waiting.
        """
        jobs, values, ready, frames = self._plan.jobs, self._values, self._ready, self._frames
        record = self._around.run.record
        current: Frame | None = None
        until_pause = PAUSE_EVERY
        while ready and (len(ready) == 1 or self._group is not None):
            index = ready.popleft()
            if ready and not self._called:
                self._call(1)
            bound, unit, key, arguments, perform, place, reads, successors, where = jobs[index]
            around = frames[place]
            if around is not current:
                frame.set(around)
                current = around
            try:
                if bound is None:
                    values[index] = await perform(values, around)
                elif record is None:
                    values[index] = (await bound.invoke({name: get(values) for name, get in arguments}, around)).value
                else:
                    inputs = {name: get(values) for name, get in arguments}
                    values[index] = (await record.node(self._path(key), unit, bound, inputs, around)).value
            except BaseException as exc:
                self._fail(exc, where)
                raise
            if self._stopped:
                return
            self._release(reads)
            self._make_ready(successors)
            until_pause -= 1
            if not until_pause:
                until_pause = PAUSE_EVERY
                await checkpoint()

    def _path(self, key: str) -> str:
        """Return where a node is in the run: its key, behind the path of the flow when that is not the outermost."""
        name, around = self._plan.name, self._around.node
        return around + key[len(name) :] if around else key

    def _fail(self, error: BaseException, where: str) -> None:
        self._stop()  # at once: helpers that are on their way come before the group hears of this
        if isinstance(error, Exception):
            error.add_note(where)

    def _release(self, reads: tuple[int, ...]) -> None:
        """Let go of values that nobody else will read."""
        left, values = self._reads, self._values
        for index in reads:
            left[index] -= 1
            if not left[index]:
                values[index] = None

    def _make_ready(self, successors: tuple[int, ...]) -> None:
        """Count one thing less that these nodes wait for."""
        waits = self._waits
        for index in successors:
            waits[index] -= 1
            if not waits[index]:
                self._ready.append(index)

    async def _help(self) -> None:
        """Do what a helper does: have two more called if there is more to do, then take part."""
        self._called -= 1
        self._call(min(self._called + 2, len(self._ready) - 1))
        await self._walk()

    def _call(self, helpers: int) -> None:
        """Start helpers until so many are on their way.

        Each calls two more, so that n ready nodes have all begun after log2(n) cycles of the loop.
        """
        assert self._group is not None
        if self._calling:  # by an eager task factory, from inside `start`: the caller's loop below goes on
            return
        self._calling = True
        while self._ready and self._called < helpers:
            self._called += 1
            self._group.start()
        self._calling = False

    def _stop(self) -> None:
        """Let no further node start."""
        self._stopped = True
        self._ready.clear()
