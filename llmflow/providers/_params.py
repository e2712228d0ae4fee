"""Sampling parameters in each provider's own words."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmflow.models import Params

__all__ = ["ParamDroppedWarning", "ParamNames"]


class ParamDroppedWarning(UserWarning):
    """A parameter was left out of the requests because the model does not have it."""


class ParamNames:
    """Translates the parameters of one step for one model, and warns once for each that the model lacks.

    Args:
        model: The model's name, for the warning.
        names: What each parameter is called in the request; one that is not here is dropped.
    """

    __slots__ = ("_dropped", "_model", "_names")

    def __init__(self, model: str, names: Mapping[str, str]) -> None:
        self._model = model
        self._names = names
        self._dropped: set[str] = set()

    def translate(self, params: Params) -> dict[str, Any]:
        """Return the parameters under the provider's names."""
        names = self._names
        translated: dict[str, Any] = {}
        for name, value in params.items():
            if value is None:
                continue
            if (known := names.get(name)) is not None:
                translated[known] = value
            elif name not in self._dropped:
                self._dropped.add(name)
                warnings.warn(
                    f"{self._model} has no parameter {name!r}; it is left out", ParamDroppedWarning, stacklevel=2
                )
        return translated
