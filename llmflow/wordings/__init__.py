"""Prompts from files, as a plugin."""

from llmflow.wordings._front_matter import read_wording
from llmflow.wordings._plugin import PromptFiles

__all__ = ["PromptFiles", "read_wording"]
