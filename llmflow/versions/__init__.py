"""What identifies a prompt: a hash over everything that shapes it, equal on every machine and every Python."""

from llmflow.versions._parts import FORMAT, PromptParts, Shape, prompt_parts
from llmflow.versions._pieces import Piece

__all__ = ["FORMAT", "Piece", "PromptParts", "Shape", "prompt_parts"]
