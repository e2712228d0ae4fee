"""The runtime, its configuration, and plans."""

from llmflow.runtime._clock import SystemClock
from llmflow.runtime._config import Config, Setting, read_config
from llmflow.runtime._runtime import Runtime, default_runtime

__all__ = [
    "Config",
    "Runtime",
    "Setting",
    "SystemClock",
    "default_runtime",
    "read_config",
]
