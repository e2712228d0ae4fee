"""The runtime, its configuration, and plans."""

from llmflow.runtime._clock import SystemClock
from llmflow.runtime._config import Config, Setting, read_config
from llmflow.runtime._plan import Layer, Plan, PlannedNode, PlannedVariant
from llmflow.runtime._planning import plan, plan_map
from llmflow.runtime._runtime import Runtime, default_runtime

__all__ = [
    "Config",
    "Layer",
    "Plan",
    "PlannedNode",
    "PlannedVariant",
    "Runtime",
    "Setting",
    "SystemClock",
    "default_runtime",
    "plan",
    "plan_map",
    "read_config",
]
