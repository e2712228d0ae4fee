"""The prompts of a runtime that are written outside of the code, each looked up once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from llmflow.errors import DefinitionError
from llmflow.prompts import Variants, Wording, read_variants

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from llmflow.plugins import Registry
    from llmflow.wordings import PromptFiles

__all__ = ["Wordings"]


class Wordings:
    """What plugins and prompt files supply to the steps of one runtime, and how labels share out their calls.

    Args:
        registry: The plugins to ask.
        files: The folder of prompt files, if there is one.
        variants: What `Runtime(variants=...)` says.

    Raises:
        DefinitionError: For variants that cannot be.
    """

    def __init__(self, registry: Registry, files: PromptFiles | None, variants: object) -> None:
        self._registry = registry
        self._files = files
        self._variants = read_variants(variants, "Runtime(variants=...)")
        self._found: dict[tuple[str, str | None], Wording | None] = {}
        self._lock = threading.Lock()

    def variants(self, step: str) -> Variants | None:
        """Return how a step's calls are shared out, None when all ask with one prompt."""
        return self._variants.get(step)

    def find(self, step: str, label: str | None) -> Wording | None:
        """Return the prompt of a step, None when it is nowhere but in the code; the same in all of the runtime's life."""
        with self._lock:
            if (step, label) not in self._found:
                self._found[step, label] = self._registry.prompt(step, label)
            return self._found[step, label]

    def unused(self, steps: Collection[str]) -> Iterator[str]:
        """Say which variants and prompt files none of these steps asks with."""
        for step in self._variants:
            if step not in steps:
                yield f"variants are said for {step!r}, which no step is called"
        for step, label, shown in () if self._files is None else self._files.files():
            variants = self._variants.get(step)
            if step not in steps:
                yield f"{shown} is the prompt of no step"
            elif label is not None and (variants is None or label not in variants.weights):
                yield f"{shown} is asked by nobody, as no variant of {step!r} has the label {label!r}"

    def missing(self, step: str, label: str) -> DefinitionError:
        """Return the error for a variant that nobody supplies."""
        if self._files is None:
            where = "no plugin supplies it, and Runtime(prompts=...) names no folder of prompt files"
        else:
            where = f"there is no file {self._files.shown(self._files.file(step, label))}"
        return DefinitionError(f"step {step!r} has no prompt with the label {label!r}: {where}")
