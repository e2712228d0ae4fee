"""Where flows run."""

from llmflow.engine._local import LocalEngine

__all__ = ["LocalEngine"]
