"""Which code is the author's own: the package of a step, or the folder of a program that is no package."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

__all__ = ["Home", "Standing", "home_of", "top_of"]

Standing: TypeAlias = Literal["own", "known", "foreign"]
"""Of the author's own program; of Python, llmflow or what llmflow stands on; of another package."""

_KNOWN = frozenset({"builtins", "llmflow", "pydantic", "pydantic_core", "typing_extensions", "annotated_types"})
_INSTALLED = (f"{os.sep}site-packages", f"{os.sep}dist-packages")


@dataclass(frozen=True, slots=True)
class Home:
    """The program that a step belongs to.

    Attributes:
        module: The step's own module.
        package: The top-level package, None for a file that is in none.
        folder: Where the program lies, None when it lies nowhere, as in a notebook.
    """

    module: str
    package: str | None = None
    folder: str | None = None

    def standing(self, module: str) -> Standing:
        """Say whose a module is."""
        top = top_of(module)
        if module == self.module or (self.package is not None and top == self.package):
            return "own"
        if top in sys.stdlib_module_names or top in _KNOWN:
            return "known"
        return "own" if self._is_beside(top) else "foreign"

    def _is_beside(self, top: str) -> bool:
        """Whether a module or package lies in the folder of a program that is no package itself."""
        if self.package is not None or self.folder is None:
            return False
        module = sys.modules.get(top)
        if module is not None:
            return _folder_of(vars(module)) == self.folder
        place = os.path.join(self.folder, top)  # noqa: PTH118  # paths as text
        return os.path.exists(f"{place}.py") or os.path.isdir(place)  # noqa: PTH110, PTH112  # as above

    def relative(self, path: str) -> str | None:
        """Return an absolute path as it reads from the folder of the program; None for one that lies elsewhere."""
        if self.folder is None:
            return None
        if path == self.folder:
            return "."
        inside = self.folder + os.sep
        return path.removeprefix(inside).replace(os.sep, "/") if path.startswith(inside) else None


def top_of(module: str) -> str:
    """Return the top-level package or module of a module."""
    return module.partition(".")[0]


def home_of(names: dict[str, Any]) -> Home:
    """Return the program of a function, given the names of its module.

    llmflow's own modules are no program: each stands for itself.
    """
    module = str(names.get("__name__", ""))
    spec = names.get("__spec__") if module == "__main__" else None
    real = str(getattr(spec, "name", None) or module)  # of `python -m package.module`
    top = top_of(real)
    if top == "llmflow":
        return Home(module)
    around = sys.modules.get(top)
    if "." in real or hasattr(around, "__path__"):
        return Home(module, package=top, folder=None if around is None else _folder_of(vars(around)))
    folder = _folder_of(names)
    if folder is None or any(one in folder for one in _INSTALLED):
        return Home(module)
    return Home(module, folder=folder)


def _folder_of(names: dict[str, Any]) -> str | None:
    """Return the folder that a top-level module or package lies in, given its names."""
    paths = names.get("__path__")
    inside: object = names.get("__file__") if paths is None else next(iter(paths), None)
    return os.path.dirname(os.path.abspath(inside)) if isinstance(inside, str) else None  # noqa: PTH100, PTH120  # paths as text
