"""One private logger: silent until the application configures the stdlib logger `llmflow`.

structlog's global configuration is the application's and is neither read nor changed. Prompts and answers are never
logged; text that comes from a provider is a field, which renderers escape, and never part of the line's frame.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any

from llmflow.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from llmflow.events import AttemptFinished, CallFinished, FallbackTaken, RetryScheduled

__all__ = ["LogObserver", "configure_logging"]

NAME = "llmflow"

_stdlib = logging.getLogger(NAME)
_stdlib.addHandler(logging.NullHandler())


@cache
def _logger() -> Any:
    """Return the structlog logger over the stdlib one; made when somebody listens."""
    import structlog  # costs 40 to 200 ms, which must not come while an event loop serves others

    return structlog.wrap_logger(
        _stdlib,
        processors=[structlog.contextvars.merge_contextvars, _render],
        wrapper_class=structlog.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _render(_: object, __: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """Turn an event into a stdlib log call: `event key=value ...`, values through `repr` so that none forges a line."""
    message = event.pop("event")
    fields = " ".join(f"{key}={_shown(value)}" for key, value in event.items())
    return {"msg": f"{message} {fields}".rstrip(), "extra": {"llmflow": event}}


def _shown(value: object) -> str:
    text = str(value)
    return (
        text
        if text.replace("_", "").replace(".", "").replace("-", "").replace("/", "").isalnum() and text.isascii()
        else repr(text)
    )


def _is_heard() -> bool:
    """Whether a line would be written anywhere; `logging` asks the same handlers in the same order."""
    logger: logging.Logger | None = _stdlib
    while logger is not None:
        if any(not isinstance(one, logging.NullHandler) for one in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def _write(level: int, event: str, **fields: object) -> None:
    if _stdlib.isEnabledFor(level) and _is_heard():
        getattr(_logger(), logging.getLevelName(level).lower())(event, **fields)


class LogObserver:
    """Writes what happens to the log; a plugin like any other."""

    def __init__(self) -> None:
        if _is_heard():
            _logger()

    @hookimpl
    def llmflow_call_finished(self, event: CallFinished) -> None:
        """Log a failed call as a warning, a good one for debugging."""
        level = logging.DEBUG if event.error is None else logging.WARNING
        if not _stdlib.isEnabledFor(level):
            return
        _write(
            level,
            "call finished" if event.error is None else "call failed",
            step=event.step,
            run_id=event.run_id,
            model=event.model,
            error=event.error,
            attempts=event.attempts,
            reasks=event.reasks,
            latency_s=round(event.latency_s, 4),
        )

    @hookimpl
    def llmflow_attempt_finished(self, event: AttemptFinished) -> None:
        """Log a physical request for debugging."""
        if not _stdlib.isEnabledFor(logging.DEBUG):
            return
        _write(
            logging.DEBUG,
            "attempt finished",
            step=event.step,
            run_id=event.run_id,
            model=event.model,
            number=event.number,
            outcome=event.outcome,
            latency_s=round(event.latency_s, 4),
            status=event.status,
        )

    @hookimpl
    def llmflow_retry_scheduled(self, event: RetryScheduled) -> None:
        """Log a retry."""
        _write(
            logging.INFO,
            "retry scheduled",
            step=event.step,
            run_id=event.run_id,
            model=event.model,
            attempt=event.attempt,
            wait_s=round(event.wait_s, 3),
            error=type(event.error).__name__,
        )

    @hookimpl
    def llmflow_fallback_taken(self, event: FallbackTaken) -> None:
        """Log a change of model."""
        _write(
            logging.WARNING,
            "fallback taken",
            step=event.step,
            run_id=event.run_id,
            from_model=event.from_model,
            to_model=event.to_model,
            error=type(event.error).__name__,
        )


def configure_logging(*, level: int | str = "INFO", json: bool = False) -> None:
    """Write llmflow's log to stderr, as text or as one JSON object a line; for applications, not for libraries."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter() if json else logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for old in [one for one in _stdlib.handlers if not isinstance(one, logging.NullHandler)]:
        _stdlib.removeHandler(old)
    _stdlib.addHandler(handler)
    _stdlib.setLevel(level)
    _logger()


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        import json

        fields: dict[str, Any] = getattr(record, "llmflow", {})
        entry = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **fields,
        }
        return json.dumps(entry, default=str)
