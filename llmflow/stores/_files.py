"""Files that are their owner's alone."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

__all__ = ["NotPrivate", "file_id", "make_file", "make_private", "set_aside"]

_BESIDE = ("-wal", "-shm")
"""What SQLite keeps beside a database."""
_PRIVATE = 0o600
_SET_ASIDE = 20
"""How many corrupt files are kept before the next one is left where it is."""


class NotPrivate(OSError):
    """A file could be read or replaced by somebody else."""


def make_file(path: Path) -> None:
    """Make sure that there is a file, with folders for it; a new one is its owner's alone, another stays as it is.

    Raises:
        NotPrivate: For a link, something that is no file, or a file of somebody else.
        OSError: When it cannot be made.
    """
    _make_folders(path.parent)
    # Not opened when it exists: closing any descriptor of a file gives up the locks that SQLite holds on it.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _PRIVATE))
    _rights_of(path)
    for suffix in _BESIDE:
        with suppress(FileNotFoundError):
            _rights_of(path.with_name(path.name + suffix))


def make_private(path: Path) -> None:
    """Take everybody else's rights to a file, and to what SQLite keeps beside it, away.

    Raises:
        NotPrivate: As `make_file`.
        OSError: When it cannot be done.
    """
    for suffix in ("", *_BESIDE):
        one = path.with_name(path.name + suffix)
        with suppress(FileNotFoundError):
            if _rights_of(one) != _PRIVATE:
                one.chmod(_PRIVATE)


def _make_folders(folder: Path) -> None:
    """Make what is missing, each folder for its owner alone whatever the umask says; what exists stays as it is."""
    missing: list[Path] = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        with suppress(FileExistsError):  # another process was quicker
            one.mkdir(0o700)
            one.chmod(0o700)


def _rights_of(path: Path) -> int:
    """Return who may do what with a file, refusing what somebody may have put there."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        msg = f"{path} is not a regular file"
        raise NotPrivate(msg)
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        msg = f"{path} belongs to somebody else"
        raise NotPrivate(msg)
    return stat.S_IMODE(found.st_mode)


def file_id(path: Path) -> tuple[int, int] | None:
    """Return what tells this file from another that takes its place, None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def set_aside(path: Path, known: tuple[int, int] | None) -> Path | None:
    """Rename a corrupt file out of the way, with what is beside it; None when it cannot be, or was already."""
    if known is None or file_id(path) != known:
        return None
    for number in range(1, _SET_ASIDE + 1):
        target = path.with_name(f"{path.name}.corrupt-{number}")
        if target.exists():
            continue
        try:
            path.rename(target)
        except OSError:
            return None
        for suffix in _BESIDE:
            with suppress(OSError):
                path.with_name(path.name + suffix).rename(target.with_name(target.name + suffix))
        return target
    return None
