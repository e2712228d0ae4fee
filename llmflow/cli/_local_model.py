"""Whether the embedded model is there: the plugin llmflow-local and the weights it fetches once."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["INSTALL", "LocalModel", "find_local_model"]

INSTALL = "pip install llmflow-local"


@dataclass(frozen=True, slots=True)
class LocalModel:
    """What is known about `local/smollm2` without loading it.

    Attributes:
        weights: The file, None when it is not there.
        problem: Why the model cannot answer, empty when it can or may.
    """

    installed: bool
    weights: Path | None = None
    problem: str = ""

    @property
    def state(self) -> str:
        """Say it in a few words."""
        if not self.installed:
            return f"not installed ({INSTALL})"
        if self.problem:
            return self.problem
        return f"ready, {self.weights}" if self.weights else "weights not fetched yet (93 MB, at the first call)"


def find_local_model(environ: Mapping[str, str]) -> LocalModel:
    """Look for the plugin, its engine and its weights."""
    if importlib.util.find_spec("llmflow_local") is None:
        return LocalModel(installed=False)
    if importlib.util.find_spec("xllamacpp") is None:
        return LocalModel(installed=True, problem="its engine is missing (pip install --force-reinstall llmflow-local)")
    if override := environ.get("LLMFLOW_LOCAL_MODEL"):
        path = Path(override).expanduser()
        if path.is_file():
            return LocalModel(installed=True, weights=path)
        return LocalModel(installed=True, problem=f"LLMFLOW_LOCAL_MODEL names no file: {override}")
    return LocalModel(installed=True, weights=_fetched(environ))


def _fetched(environ: Mapping[str, str]) -> Path | None:
    from llmflow_local._cache import cache_folder  # the plugin may be missing
    from llmflow_local._packaged import PackagedWeights

    packaged = PackagedWeights(folder=cache_folder(environ))
    path = packaged.folder / packaged.file
    return path if path.is_file() else None
