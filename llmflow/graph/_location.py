"""Where in the author's code something happens."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import CodeType, CoroutineType, FrameType
from typing import Any

__all__ = ["at", "current_location", "suspended_location"]

_PACKAGE = f"{Path(__file__).resolve().parent.parent}{os.sep}"


def at(filename: str, line: int) -> str:
    """Return `file:line`, relative to the working directory when the file is below it."""
    if Path(filename).is_absolute():
        try:
            relative = os.path.relpath(filename)
        except ValueError:  # another drive
            relative = filename
        filename = filename if relative.startswith(os.pardir) else relative
    return f"{filename}:{line}"


def current_location(module: str, stop: CodeType) -> str:
    """Return the line that is running, innermost first, in the package of `module`, else in any code but llmflow's.

    A value is often touched deep inside a library that the author called (`json.dumps`, `str.join`): the line that
    helps is the author's own. Frames outside of `stop`, the code that drives the body, belong to whoever called it.
    """
    home = module.partition(".")[0]
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # the only way to the lines that run
    nearest: FrameType | None = None
    while frame is not None and frame.f_code is not stop:
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            nearest = nearest or frame
            if str(frame.f_globals.get("__name__", "")).partition(".")[0] == home:
                return at(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return "?" if nearest is None else at(nearest.f_code.co_filename, nearest.f_lineno)


def suspended_location(coroutine: CoroutineType[Any, Any, Any], module: str) -> str:
    """Return the line at which a coroutine waits, the innermost one in the package of `module`."""
    home = module.partition(".")[0]
    found = "?"
    waiting: Any = coroutine
    while isinstance(waiting, CoroutineType) and waiting.cr_frame is not None:
        frame = waiting.cr_frame
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] == home:
            found = at(frame.f_code.co_filename, frame.f_lineno)
        waiting = waiting.cr_await
    return found
