"""Wrong use of the command line, told like every other error: as JSON where JSON was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from llmflow.cli._failures import Failure, UsageError, in_own_words
from llmflow.cli._terminal import show_failure

__all__ = ["WrongUse", "show_wrong_use"]

WrongUse: type[Exception] = next(one for one in typer.BadParameter.__mro__ if one.__name__ == "ClickException")
"""What typer raises; it is of click, or of typer itself where that brings its own."""


def show_wrong_use(error: Any, arguments: Sequence[str]) -> int:
    """Tell what is wrong with the arguments, and return the exit code."""
    message, context = in_own_words(error.format_message()), getattr(error, "ctx", None)
    code: int = error.exit_code
    if not message:  # nothing was asked for, and the help is written
        return code
    hints = () if context is None else (f"`{context.command_path} --help` says how it is used.",)
    show_failure(Failure.of(UsageError(message, *hints)), as_json=_wants_json(arguments))
    return code


def _wants_json(arguments: Sequence[str]) -> bool:
    """Whether `--json` is among the options; which they are cannot be asked of arguments that could not be read."""
    given = list(arguments)
    return "--json" in (given[: given.index("--")] if "--" in given else given)
