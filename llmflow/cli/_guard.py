"""Around every command: whatever it raises becomes a message and an exit code."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer

from llmflow.cli._failures import EXIT_INTERRUPTED, Failure
from llmflow.cli._notices import notices
from llmflow.cli._terminal import show_failure

__all__ = ["guarded"]

Debug = Annotated[bool, typer.Option("--debug", help="Show full tracebacks.")]


def guarded(command: Callable[..., int | None]) -> Callable[..., None]:
    """Turn what a command returns or raises into an exit code and a message."""

    @functools.wraps(command)
    def run(*args: Any, debug: bool = False, **options: Any) -> None:
        try:
            with notices(quiet=bool(options.get("quiet"))):
                code = command(*args, **options)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:  # the reader of the pipe has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except Exception as exc:  # noqa: BLE001  # the one place where whatever went wrong becomes a message
            if debug:
                traceback.print_exception(exc)
            failure = Failure.of(exc)
            show_failure(failure, as_json=bool(options.get("as_json")))
            raise typer.Exit(failure.exit_code) from None
        raise typer.Exit(code or 0)

    return _with_debug(run, command)


def _with_debug(run: Callable[..., None], command: Callable[..., object]) -> Callable[..., None]:
    """Give a command the option `--debug`: typer takes the options from the signature and the annotations."""
    signature = inspect.signature(command, eval_str=True)
    option = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]  # functions may have one
    run.__annotations__ = {**command.__annotations__, "debug": Debug}
    return run
