"""The folder where fetched weights live, shared by every process of the user."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from llmflow_local._failures import LocalFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

__all__ = ["cache_folder", "locked", "poll_until"]

_POLL_S = 0.1


def cache_folder(environ: Mapping[str, str], platform: str = sys.platform) -> Path:
    """Return the user's cache folder for models, by the rules of the platform; it need not exist."""
    named = Path(environ.get("XDG_CACHE_HOME", ""))
    if named.is_absolute():  # a relative one must be ignored, says the XDG specification
        return named / "llmflow" / "models"
    if platform == "win32":
        local = environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path("~/AppData/Local").expanduser()) / "llmflow" / "Cache" / "models"
    base = "~/Library/Caches" if platform == "darwin" else "~/.cache"
    return Path(base).expanduser() / "llmflow" / "models"


@contextlib.contextmanager
def locked(folder: Path, stopped: Callable[[], bool]) -> Generator[None, None, None]:
    """Hold the folder for this process; a second one waits. The system lets go of it when the process dies."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / ".lock").open("ab") as file:
        poll_until(lambda: _try_lock(file), stopped)
        yield


def poll_until(done: Callable[[], bool], stopped: Callable[[], bool]) -> None:
    """Wait until `done` says so; LocalFailure when `stopped` does first. Runs on a thread of its own."""
    while not done():
        if stopped():
            msg = "stopped while the weights were being fetched"
            raise LocalFailure(msg, retryable=False)
        time.sleep(_POLL_S)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks: fetching twice is only wasteful
            return True
        return True
