"""Built-in listeners: statistics and the log."""

from llmflow.observers._log import LogObserver, configure_logging
from llmflow.observers._stats import Latency, ModelStats, Stats, StatsObserver, StepStats

__all__ = ["Latency", "LogObserver", "ModelStats", "Stats", "StatsObserver", "StepStats", "configure_logging"]
