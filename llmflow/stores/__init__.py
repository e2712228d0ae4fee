"""Where answers are kept: in memory, and in a file of SQLite. Each is loaded when it is asked for."""

from llmflow.stores._plugin import StorePlugin

__all__ = ["StorePlugin"]
