"""Flows: steps and tasks composed into a graph, and the graph as data."""

from llmflow.graph._construct import build
from llmflow.graph._flow import BoundFlow, Flow, FlowDecorator, flow
from llmflow.graph._ir import DEFAULT, Constant, Graph, Input, Node, Operand, Ref, Structure
from llmflow.graph._ops import gather, or_else, switch, when
from llmflow.graph._task import Task, task

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
    "build",
    "flow",
    "gather",
    "or_else",
    "switch",
    "task",
    "when",
]
