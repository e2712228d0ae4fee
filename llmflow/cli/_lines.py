"""JSON lines in and out: reading the items of a map, and keeping its results so that none is lost."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import anyio.to_thread

from llmflow.cli._failures import UsageError

__all__ = ["Item", "Results", "count_lines", "kept_results", "read_items"]

_KEY_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the input.

    Attributes:
        index: Position among the lines that are not blank, counted from 0.
        line: Number of the line in the file, counted from 1.
        key: What names the item in every run: a hash of its text, with `#2` for its second occurrence.
        text: The line itself.
    """

    index: int
    line: int
    key: str
    text: str


def count_lines(path: str) -> int | None:
    """Return how many items a file has, None for stdin.

    Raises:
        UsageError: When the file cannot be read.
    """
    if path == "-":
        return None
    try:
        with Path(path).open("rb") as file:
            return sum(1 for line in file if line.strip())
    except OSError as exc:
        raise UsageError(f"--map {path}: cannot read the file: {exc.strerror or exc}") from exc


async def read_items(path: str) -> AsyncIterator[Item]:
    """Yield the items of a file or of stdin, which is waited for in a thread."""
    seen: Counter[str] = Counter()
    index = number = 0
    async for raw in _raw_lines(path):
        number += 1
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape").strip()
        if not text:
            continue
        yield Item(index, number, _key(text, seen), text)
        index += 1


async def _raw_lines(path: str) -> AsyncIterator[bytes]:
    if path != "-":
        with Path(path).open("rb") as file:  # noqa: ASYNC230  # a line of a file on disk is there at once
            for line in file:
                yield line
        return
    while line := await anyio.to_thread.run_sync(sys.stdin.buffer.readline, abandon_on_cancel=True):
        yield line


def _key(text: str, seen: Counter[str]) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:_KEY_DIGITS]
    seen[digest] += 1
    return digest if seen[digest] == 1 else f"{digest}#{seen[digest]}"


# -- results -----------------------------------------------------------------------------------------------------------


class Results:
    """Where the lines of results go: each is written whole and at once, so what is finished survives any end.

    Args:
        path: The file, None for stdout.
        keep: Keep the values that the file holds already, to continue where an earlier run ended.
        overwrite: Begin anew although the file holds something.
        write: Writes a line to stdout.

    Raises:
        UsageError: When the file cannot be written, or holds results that nobody said what to do with.
    """

    def __init__(self, path: str | None, *, keep: bool, overwrite: bool, write: Callable[[str], None]) -> None:
        self.kept: frozenset[str] = frozenset()
        self._write = write
        self._file: IO[bytes] | None = None
        if path is None:
            return
        try:
            self._file = self._open(Path(path), keep=keep, overwrite=overwrite)
        except OSError as exc:
            raise UsageError(f"--out {path}: cannot write the file: {exc.strerror or exc}") from exc

    def _open(self, path: Path, *, keep: bool, overwrite: bool) -> IO[bytes]:
        if path.exists() and not path.is_file():  # /dev/null, a pipe
            return path.open("ab", buffering=0)
        if path.is_file() and path.stat().st_size and not overwrite:
            if not keep:
                hint = "--resume runs only the items that have no value in it yet; --overwrite begins anew."
                raise UsageError(f"--out {path}: the file holds results already", hint)
            self.kept = _tidy(path)
            return path.open("ab", buffering=0)
        return path.open("wb", buffering=0)

    def add(self, line: dict[str, Any]) -> None:
        """Write a result."""
        text = json.dumps(line, ensure_ascii=False)
        if self._file is None:
            self._write(text)
        else:
            self._file.write(text.encode("utf-8", "replace") + b"\n")

    def close(self) -> None:
        """Let the file go; what was added is in it already, this makes it survive a power cut too."""
        if self._file is not None:
            with suppress(OSError):  # a pipe or a terminal has nothing to survive in
                os.fsync(self._file.fileno())
            self._file.close()


def kept_results(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the key and the line of every result with a value; failed ones and a torn last line are left out."""
    with path.open("rb") as file:
        for line in file:
            try:
                said: Any = json.loads(line)
            except ValueError:
                continue
            if "value" in said and "key" in said:
                yield str(said["key"]), line.rstrip(b"\n") + b"\n"


def _tidy(path: Path) -> frozenset[str]:
    """Rewrite a file of results without those that will be tried again; return the keys of those that stay."""
    kept = dict(kept_results(path))
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with fresh.open("wb") as file:
            file.writelines(kept.values())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    return frozenset(kept)
