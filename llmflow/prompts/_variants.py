"""Which of several labelled prompts a call asks with: weights, and an assignment that sticks to a key."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from hashlib import sha256
from typing import Any, cast

from llmflow.errors import DefinitionError

__all__ = ["MAIN", "Variants", "read_variants"]

MAIN = "production"
"""The label that falls back to the prompt without one."""
_STICKY = "sticky"
_BITS = 53  # of a float between 0 and 1, so that none is rounded up to 1


@dataclass(frozen=True, slots=True)
class Variants:
    """How the calls of one step are shared out among the labels of its prompt.

    The labels lie side by side from 0 to 1, in the order they are written, each as wide as its weight. A key is a point
    there, the same in every process, so a label that grows takes keys from its neighbours and from nobody else.

    Attributes:
        step: Name of the step.
        weights: By label.
        sticky: The tag whose value is the key, None for the tenant.
    """

    step: str
    weights: Mapping[str, float]
    sticky: str | None = None
    _ends: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        total, so_far, ends = sum(map(Fraction, self.weights.values())), Fraction(0), list[float]()
        for weight in self.weights.values():
            so_far += Fraction(weight)
            ends.append(float(so_far / total))
        object.__setattr__(self, "_ends", tuple(ends))

    @property
    def main(self) -> str | None:
        """The label that needs no file of its own: `production`, or the only one."""
        return MAIN if MAIN in self.weights else next(iter(self.weights)) if len(self.weights) == 1 else None

    @property
    def shares(self) -> dict[str, float]:
        """What part of the keys each label gets."""
        total = sum(map(Fraction, self.weights.values()))
        return {label: float(Fraction(weight) / total) for label, weight in self.weights.items()}

    def index(self, key: str) -> int:
        """Return which label a key has, by its place among them."""
        return bisect_right(self._ends, _point(self.step, key))


def _point(step: str, key: str) -> float:
    """Return where a key lies between 0 and 1; each step deals the keys anew."""
    digest = sha256(json.dumps([step, key]).encode()).digest()
    return (int.from_bytes(digest[:8]) >> (64 - _BITS)) / (1 << _BITS)


# -- reading what was said ---------------------------------------------------------------------------------------------


def read_variants(said: object, where: str) -> dict[str, Variants]:
    """Return what was said about variants, by step.

    Args:
        said: By step a mapping from label to weight, in which `sticky` may name a tag.
        where: What to call it in messages.

    Raises:
        DefinitionError: For weights that cannot be shared out by, naming the step.
    """
    return {step: _read(step, one, f"{where}: {step!r}") for step, one in _mapping(said, where, "steps").items()}


def _read(step: str, said: object, where: str) -> Variants:
    weights = dict(_mapping(said, where, "labels"))
    sticky = weights.pop(_STICKY, None)
    if sticky is not None and (not isinstance(sticky, str) or not sticky.strip()):
        raise DefinitionError(
            f"{where}: {_STICKY} is {sticky!r}, expected the name of a tag of llmflow.context(tags=...)"
        )
    if not weights:
        raise DefinitionError(f"{where} has no label; write {{'{MAIN}': 9, 'canary': 1}}")
    for label, weight in weights.items():
        if not _is_weight(weight):
            raise DefinitionError(f"{where}: the weight of {label!r} is {weight!r}, expected a number from 0")
    if not any(weights.values()):
        raise DefinitionError(f"{where}: all weights are 0, so no variant would be asked")
    return Variants(step, weights, sticky)


def _mapping(said: object, where: str, of: str) -> Mapping[str, Any]:
    if not isinstance(said, Mapping):
        raise DefinitionError(f"{where} is {said!r}, expected a mapping of {of}")
    for name in cast("Mapping[object, Any]", said):
        if not isinstance(name, str) or not name.strip():
            raise DefinitionError(f"{where}: {name!r} is no name of {of}")
    return cast("Mapping[str, Any]", said)


def _is_weight(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return value >= 0 and (isinstance(value, int) or math.isfinite(value))
