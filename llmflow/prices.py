"""What a model costs, in dollars per million tokens."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Price"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Dollars per million tokens.

    Args:
        input: For each million tokens of the prompt.
        output: For each million tokens of the answer, reasoning included.
        cached_input: For prompt tokens the provider had cached; `input` when it is not said.
    """

    input: float
    output: float
    cached_input: float | None = None
