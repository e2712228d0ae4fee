"""What went wrong, told to a person or to a program, and the exit code that says which kind it was."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llmflow
from llmflow.errors import BudgetExceeded, DefinitionError, FallbackExhausted, LLMFlowError, StepError
from llmflow.messages import Attempt

__all__ = [
    "EXIT_INTERRUPTED",
    "EXIT_REFUSED",
    "EXIT_RUN_FAILED",
    "EXIT_WRONG_USE",
    "Failure",
    "UsageError",
    "in_own_words",
    "user_frames",
]

EXIT_RUN_FAILED = 1
EXIT_WRONG_USE = 2
EXIT_REFUSED = 3
EXIT_INTERRUPTED = 130

_PACKAGE = Path(llmflow.__file__).parent
_STANDARD_LIBRARY = sysconfig.get_path("stdlib")


class UsageError(Exception):
    """The command line, a file it names, or an input is wrong; nothing was run.

    Args:
        message: What is wrong.
        *hints: What to do about it, a sentence each.
        trace: The user's own part of a traceback, for an exception of the user's own code.
    """

    def __init__(self, message: str, *hints: str, trace: str = "") -> None:
        super().__init__(message)
        self.hints = hints
        self.trace = trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An exception, ready to be shown.

    Attributes:
        kind: Name of its class.
        hints: What to do next.
        trace: The part of the traceback that is the user's own code, when it is the user's own exception.
        exit_code: 1 the run failed, 2 wrong use, 3 refused by a budget.
    """

    kind: str
    message: str
    exit_code: int
    hints: tuple[str, ...] = ()
    step: str | None = None
    run_id: str | None = None
    status: int | None = None
    attempts: tuple[Attempt, ...] = ()
    causes: tuple[Failure, ...] = ()
    trace: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Read what is to be told off an exception."""
        if isinstance(error, UsageError):
            return cls(
                kind=type(error).__name__,
                message=str(error),
                exit_code=EXIT_WRONG_USE,
                hints=error.hints,
                trace=error.trace,
            )
        foreign = not isinstance(error, LLMFlowError)
        causes = error.causes if isinstance(error, FallbackExhausted) else ()
        return cls(
            kind=type(error).__name__,
            message=_message(error, foreign=foreign),
            exit_code=_exit_code(error),
            hints=tuple(getattr(error, "__notes__", ())),
            step=getattr(error, "step", None) if isinstance(error, StepError) else None,
            run_id=getattr(error, "run_id", None) if isinstance(error, StepError) else None,
            status=error.status if isinstance(error, StepError) else None,
            attempts=tuple(error.attempts) if isinstance(error, StepError) else (),
            causes=tuple(cls.of(cause) for cause in causes),
            trace="".join(traceback.format_list(user_frames(error))).rstrip() if foreign else "",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` says about it, without what does not apply."""
        said: dict[str, Any] = {
            "type": self.kind,
            "message": self.message,
            "hints": list(self.hints),
            "step": self.step,
            "run_id": self.run_id,
            "status": self.status,
            "attempts": [plain_attempt(one) for one in self.attempts],
            "causes": [cause.to_dict() for cause in self.causes],
            "traceback": self.trace,
        }
        return {name: value for name, value in said.items() if value or name in ("type", "message")}


def plain_attempt(attempt: Attempt) -> dict[str, Any]:
    """Return an attempt as JSON can hold it."""
    usage = attempt.usage
    return {
        "model": attempt.model,
        "number": attempt.number,
        "outcome": attempt.outcome,
        "latency_s": round(attempt.latency_s, 3),
        "input_tokens": usage.input_tokens if usage else None,
        "output_tokens": usage.output_tokens if usage else None,
        "cost_usd": None if attempt.cost_usd is None else str(attempt.cost_usd),
        "status": attempt.status,
        "hedge": attempt.hedge,
    }


def _message(error: BaseException, *, foreign: bool) -> str:
    """Return what an exception says; the user's own is named, as its text alone may be no sentence."""
    name = type(error).__name__
    return f"{name}: {error}".removesuffix(": ") if foreign else str(error) or name


def _exit_code(error: BaseException) -> int:
    if isinstance(error, DefinitionError):
        return EXIT_WRONG_USE
    refused = isinstance(error, BudgetExceeded) or (
        isinstance(error, FallbackExhausted)
        and bool(error.causes)
        and all(isinstance(one, BudgetExceeded) for one in error.causes)
    )
    return EXIT_REFUSED if refused else EXIT_RUN_FAILED


def in_own_words(message: str) -> str:
    """Return what a validator said, without what pydantic puts before it."""
    for prefix in ("Value error, ", "Assertion failed, "):
        message = message.removeprefix(prefix).replace(f": {prefix}", ": ")
    return message


def user_frames(error: BaseException) -> Sequence[traceback.FrameSummary]:
    """Return the frames of a traceback that are the user's: neither llmflow's own nor the import machinery's.

    Frames of the libraries that the user's code called stay, as they are where its exception came from.
    """
    frames = traceback.extract_tb(error.__traceback__)
    last = max((index for index, frame in enumerate(frames) if _is_ours(frame)), default=-1)
    inside = [frame for frame in frames[last + 1 :] if not frame.filename.startswith("<frozen ")]
    return inside or [frame for frame in frames if not _is_ours(frame) and not _is_installed(frame)]


def _is_ours(frame: traceback.FrameSummary) -> bool:
    path = Path(frame.filename)
    return path.is_relative_to(_PACKAGE) and path.parent.name != "demo"


def _is_installed(frame: traceback.FrameSummary) -> bool:
    """Whether a frame is of Python itself or of a library, such as the event loop's."""
    return frame.filename.startswith(("<frozen ", _STANDARD_LIBRARY)) or "site-packages" in frame.filename
