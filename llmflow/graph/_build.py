"""Building the graph of a flow, once."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmflow.context import tracer
from llmflow.errors import DefinitionError
from llmflow.graph._check import check_source
from llmflow.graph._drive import drive
from llmflow.graph._trace import Trace, unused_inputs
from llmflow.prompts import UnusedParameterWarning

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmflow.graph._ir import Graph
    from llmflow.step import Signature

__all__ = ["Blueprint"]

_building = threading.RLock()
"""One for all flows: two threads that build two flows which contain each other would wait for each other."""


@dataclass(slots=True)
class Blueprint:
    """What a flow and its adjusted copies have in common: the body, and the graph once it is built."""

    name: str
    function: Callable[..., Any]
    signature: Signature
    policies: tuple[Any, ...]
    origin: str
    built: Graph | None = None

    def graph(self) -> Graph:
        """Return the graph, building it at the first call; a failure is not kept.

        Raises:
            DefinitionError: For whatever in the body cannot be traced.
        """
        if self.built is None:
            with _building:
                if self.built is None:
                    self.built = self._build()
        return self.built

    def _build(self) -> Graph:
        around = tracer.get()
        parent = around if isinstance(around, Trace) else None
        self._check_cycle(parent)
        ending = check_source(self.function, self.name, self.signature.names, self.origin)
        module = self.function.__module__
        trace = Trace(self, module=module, driver=drive.__code__, parent=parent)
        hints = {name: self.signature.hints.get(name, Any) for name in self.signature.names}
        arguments = {name: trace.parameter(name, hint) for name, hint in hints.items()}
        value = drive(self.function, arguments, trace, module)
        trace.ending = ending
        graph = trace.graph(value, hints, self.signature.returns)
        self._warn_unused(graph)
        return graph

    def _check_cycle(self, parent: Trace | None) -> None:
        """Raise when this flow is being built already, further out."""
        path: list[str] = [self.name]
        while parent is not None:
            path.insert(0, parent.flow)
            if parent.blueprint is self:
                msg = (
                    f"flow {self.name!r} ({self.origin}) reaches itself while it is built: {' -> '.join(path)}; "
                    f"a flow that calls itself must be @flow(eager=True), where the recursion can end"
                )
                raise DefinitionError(msg)
            parent = parent.parent

    def _warn_unused(self, graph: Graph) -> None:
        for name in unused_inputs(graph):
            msg = f"flow {self.name!r} ({self.origin}): parameter {name!r} reaches no step and not the result"
            warnings.warn(msg, UnusedParameterWarning, stacklevel=2)
