"""Saying what is wrong with an answer without repeating the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmflow.errors import InvalidOutput

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails, ValidationError

__all__ = ["invalid_output", "is_about", "is_encodable", "problems_of"]

_MOST_PROBLEMS = 20
_MOST_COUNTED = 10_000
"""Pydantic writes out every problem or none, and a 10 MB answer can have millions."""
_LONGEST_KEY = 60


def invalid_output(error: ValidationError, *, subject: str, expected: str, text: str | None) -> InvalidOutput:
    """Turn pydantic's error into the step's, for `raise ... from error`."""
    problems = problems_of(error)
    return InvalidOutput(f"{subject} does not fit {expected}: {'; '.join(problems)}", text=text, problems=problems)


def problems_of(error: ValidationError) -> tuple[str, ...]:
    """Return one line for each problem, `lines.0.sku: Field required`, and no input values."""
    if error.error_count() > _MOST_COUNTED:
        return (f"{error.error_count()} problems, too many to list",)
    details = error.errors(include_url=False, include_input=False)
    lines = [_line(detail) for detail in details[:_MOST_PROBLEMS]]
    if len(details) > _MOST_PROBLEMS:
        lines.append(f"and {len(details) - _MOST_PROBLEMS} more")
    return tuple(lines)


def is_about(error: ValidationError, field: str) -> bool:
    """Tell whether an object was given whose `field` is wrong, and not merely missing."""
    return error.error_count() <= _MOST_COUNTED and any(
        detail["loc"][:1] == (field,) and detail["type"] != "missing" for detail in error.errors(include_url=False)
    )


def is_encodable(text: str) -> bool:
    """Tell whether logs, files and sockets can carry `text`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _line(detail: ErrorDetails) -> str:
    place = ".".join(_piece(piece) for piece in detail["loc"])
    message = _message(detail)
    return f"{place}: {message}" if place else message


def _message(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    if detail["type"] == "union_tag_invalid":
        # Pydantic's own words would repeat the tag, which is part of the answer.
        return f"Input tag {context['discriminator']} should be one of {context['expected_tags']}"
    return detail["msg"]


def _piece(piece: int | str) -> str:
    """Write one step of a location; a key may come from the answer, so it is kept short and on one line."""
    text = str(piece)
    if len(text) > _LONGEST_KEY:
        text = f"{text[:_LONGEST_KEY]}…"
    return text if text.isprintable() else ascii(text)[1:-1]
