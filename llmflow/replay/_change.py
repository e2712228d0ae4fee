"""What is different from when an answer was recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmflow.step import BoundVariants, other_prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmflow.journal import RecordedAnswer

__all__ = ["change", "models_of"]


def change(past: RecordedAnswer, bound: Any) -> str | None:
    """Say what is different for a bound step; None while its prompt is the same and the model one that it may ask."""
    if (prompt := other_prompt(past.prompt_version, getattr(bound, "versions", ()))) is not None:
        return prompt
    models = models_of(bound)
    if models and past.model is not None and past.model not in models:
        return f"was answered by {past.model}, and would be asked of {' or '.join(models)}"
    return None


def models_of(bound: Any) -> tuple[str, ...]:
    """Return the names of the models that a bound step may ask; none for what is no step."""
    bounds: Sequence[Any] = [arm.bound for arm in bound.arms] if isinstance(bound, BoundVariants) else [bound]
    return tuple(dict.fromkeys(model.name for one in bounds for model in getattr(one, "models", ())))
