"""What a step asks: `prompt(...)`, docstring templates, files, and the messages made of them."""

from llmflow.prompts._prompt import Prompt, prompt
from llmflow.prompts._render import render
from llmflow.prompts._template import Template, UnusedParameterWarning, names_used_by
from llmflow.prompts._variants import Variants, read_variants
from llmflow.prompts._wording import Wording

__all__ = [
    "Prompt",
    "Template",
    "UnusedParameterWarning",
    "Variants",
    "Wording",
    "names_used_by",
    "prompt",
    "read_variants",
    "render",
]
