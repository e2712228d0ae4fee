"""Programs of one or more files that are imported anew for every test."""

from __future__ import annotations

import importlib
import linecache
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

Load = Callable[..., ModuleType]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Write files, import the first of them, and return it; every call is a program of its own, in its own folder."""
    folders: list[Path] = []

    def write_and_import(*, into: str = "", **files: str) -> ModuleType:
        folder = tmp_path / (into or f"program{len(folders)}")
        folders.append(folder)
        forget(tmp_path)
        for name, text in files.items():
            path = folder / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            if path.parent != folder:
                (path.parent / "__init__.py").touch()
        sys.path[:] = [str(folder), *(one for one in sys.path if not one.startswith(str(tmp_path)))]
        return importlib.import_module(next(iter(files)).replace("__", "."))

    known = [*sys.path]
    yield write_and_import
    sys.path[:] = known
    forget(tmp_path)


def forget(folder: Path) -> None:
    """Forget the modules that lie below a folder."""
    for name, module in list(sys.modules.items()):
        if str(folder) in str(getattr(module, "__file__", "")):
            del sys.modules[name]
    linecache.clearcache()
    importlib.invalidate_caches()
