"""Which file a model's name stands for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from llmflow.errors import DefinitionError
from llmflow_local._cache import cache_folder
from llmflow_local._failures import LocalFailure
from llmflow_local._packaged import PackagedWeights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["GgufFile", "Weights", "check_name", "find_weights"]

OVERRIDE = "LLMFLOW_LOCAL_MODEL"
_MAGIC = b"GGUF"


class Weights(Protocol):
    """Weights that are, or can be brought, on this machine; hashable, so that equal ones share an engine."""

    @property
    def title(self) -> str:
        """What replies name as the model that answered."""
        ...

    def locate(self, stopped: Callable[[], bool], /) -> Path:
        """Return the file, fetched if need be; blocks, and raises LocalFailure."""
        ...


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A file of the user's own."""

    path: Path

    @property
    def title(self) -> str:
        """The file's name."""
        return self.path.stem

    def locate(self, stopped: Callable[[], bool], /) -> Path:  # noqa: ARG002  # looking takes no time
        """Return the file after a look at its first bytes, for the engine does not say what it dislikes."""
        try:
            with self.path.open("rb") as file:
                magic = file.read(len(_MAGIC))
        except OSError as exc:
            msg = f"cannot read {str(self.path)!r}: {exc.strerror or exc}"
            raise LocalFailure(msg, retryable=False) from exc
        if magic != _MAGIC:
            msg = f"{str(self.path)!r} is not a GGUF file"
            raise LocalFailure(msg, retryable=False)
        return self.path


def check_name(name: str) -> None:
    """Raise DefinitionError unless `local/<name>` can be a model."""
    if name != "smollm2" and not name.endswith(".gguf"):
        msg = f"there is no model 'local/{name}', only 'local/smollm2' and, for a file of your own, 'local/<path>.gguf'"
        raise DefinitionError(msg)


def find_weights(name: str, environ: Mapping[str, str] = os.environ) -> Weights:
    """Return the weights of `local/<name>`, a name that `check_name` accepts."""
    path = environ.get(OVERRIDE) if name == "smollm2" else name
    if path:
        return GgufFile(Path(path).expanduser().absolute())
    return PackagedWeights(folder=cache_folder(environ))
