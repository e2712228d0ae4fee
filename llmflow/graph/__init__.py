"""Flows: steps and tasks composed into a graph, and the graph as data."""

from llmflow.graph._construct import build
from llmflow.graph._flow import BoundFlow, Flow, FlowDecorator, flow
from llmflow.graph._gather import gather
from llmflow.graph._ir import DEFAULT, Constant, Graph, Input, Node, Operand, Ref, Structure
from llmflow.graph._ops import or_else, switch, when
from llmflow.graph._render import dot, mermaid, svg
from llmflow.graph._task import Task, task
from llmflow.graph._threads import abandoned_threads

__all__ = [
    "DEFAULT",
    "BoundFlow",
    "Constant",
    "Flow",
    "FlowDecorator",
    "Graph",
    "Input",
    "Node",
    "Operand",
    "Ref",
    "Structure",
    "Task",
    "abandoned_threads",
    "build",
    "dot",
    "flow",
    "gather",
    "mermaid",
    "or_else",
    "svg",
    "switch",
    "task",
    "when",
]
