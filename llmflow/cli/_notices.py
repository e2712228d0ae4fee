"""What llmflow warns of while a command runs, told to the person in front of it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import TextIO

from llmflow.cli._terminal import say

__all__ = ["notices"]

_logger = logging.getLogger("llmflow")


@contextmanager
def notices(*, quiet: bool) -> Generator[None]:
    """Write warnings of llmflow to stderr as plain lines, unless only data and errors are wanted.

    A cache that cannot be written never fails a call, so without this nobody would hear of it. A line for each call that
    failed or fell back is not written: the report at the end counts them.
    """
    teller = _Teller(logging.WARNING)
    shown = warnings.showwarning

    def show(  # noqa: PLR0917  # the signature that Python asks for
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not category.__module__.startswith("llmflow."):
            shown(message, category, filename, lineno, file, line)
        elif not quiet:
            _tell(str(message))

    if not quiet:
        _logger.addHandler(teller)
    warnings.showwarning = show
    try:
        yield
    finally:
        _logger.removeHandler(teller)
        if warnings.showwarning is show:
            warnings.showwarning = shown


class _Teller(logging.Handler):
    """Tells what the log says, as long as the program has not told it where to go."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the message, unless it is of one call or the program writes the log itself."""
        others = [one for one in (*_logger.handlers, *logging.getLogger().handlers) if one is not self]
        if not hasattr(record, "llmflow") and all(isinstance(one, logging.NullHandler) for one in others):
            _tell(record.getMessage())


def _tell(message: str) -> None:
    say(f"warning: {message}", "yellow")
