"""The prompts of steps as they are asked: with what files and plugins say, and each variant apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmflow.cli._session import session
from llmflow.errors import DefinitionError
from llmflow.step import steps_of

if TYPE_CHECKING:
    from llmflow.cli._found_steps import Found

__all__ = ["reword"]


def reword(found: Found) -> None:
    """Put in place of each step what the runtime asks with: a file's wording, or `step@label` for each variant.

    What is wrong with a file or a variant is noted beside what is wrong with the code.
    """
    steps, found.steps = found.steps, {}
    with session() as runtime:
        for name, step in steps.items():
            try:
                worded = steps_of(step, runtime)
            except DefinitionError as exc:
                found.wrong.append((step.origin, exc))
                continue
            for label, one in worded.items():
                found.steps[name if label is None else f"{name}@{label}"] = one
