"""Where answers and runs are kept: in memory, and in a file of SQLite. Each is loaded when it is asked for."""

from llmflow.stores._both import FileStore, MemoryStore
from llmflow.stores._plugin import StorePlugin

__all__ = ["FileStore", "MemoryStore", "StorePlugin"]
