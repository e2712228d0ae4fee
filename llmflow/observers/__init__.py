"""Built-in listeners: statistics, the ledger and the log."""

from llmflow.observers._journal import journal_observer
from llmflow.observers._ledger import By, Ledger, Total
from llmflow.observers._log import LogObserver, configure_logging
from llmflow.observers._stats import Latency, ModelStats, Stats, StatsObserver, StepStats, TenantStats

__all__ = [
    "By",
    "Latency",
    "Ledger",
    "LogObserver",
    "ModelStats",
    "Stats",
    "StatsObserver",
    "StepStats",
    "TenantStats",
    "Total",
    "configure_logging",
    "journal_observer",
]
