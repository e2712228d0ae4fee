"""Throw-away distributions: installed for one test, found by their entry points like any other."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import ModuleType

import pytest

_numbers = count(1)


@dataclass(frozen=True)
class SitePackages:
    """A folder on `sys.path` in which distributions are installed."""

    folder: Path

    def install(self, distribution: str, source: str, *, entry: str | None = None, version: str = "1.0") -> str:
        """Install a distribution of one module, whose entry point is called as the distribution unless said.

        Returns:
            The name of the module; it is new each time, so that no test imports another one's.
        """
        module = f"throw_away_{next(_numbers)}"
        (self.folder / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        information = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n", encoding="utf-8"
        )
        (information / "entry_points.txt").write_text(
            f"[llmflow]\n{entry or distribution} = {module}\n", encoding="utf-8"
        )
        importlib.invalidate_caches()
        return module

    def module(self, name: str) -> ModuleType:
        """Return an installed module, to ask what it has seen."""
        return importlib.import_module(name)


@pytest.fixture
def site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SitePackages]:
    """An empty folder to install into; what was imported from it is forgotten again."""
    monkeypatch.setenv("LLMFLOW_DISABLE_PLUGINS", "llmflow-local,llmflow-redact")  # installed for development
    monkeypatch.syspath_prepend(str(tmp_path))
    yield SitePackages(tmp_path)
    for name in [one for one in sys.modules if one.startswith("throw_away_")]:
        del sys.modules[name]
