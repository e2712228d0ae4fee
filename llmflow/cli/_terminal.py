"""The two streams: data on stdout, messages on stderr; colours and moving parts only where a person looks."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import Any, TextIO

from pydantic_core import to_jsonable_python
from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from llmflow.cli._failures import Failure
from llmflow.cli._printable import escaped
from llmflow.messages import Attempt

__all__ = [
    "error_console",
    "is_live",
    "jsonable",
    "out_console",
    "say",
    "show_failure",
    "table",
    "write_json",
    "write_line",
]

_UNLIMITED = 100_000
"""Width where nobody looks: a line that a program reads must not be broken."""


def out_console() -> Console:
    """Return the console of the data."""
    return _console(sys.stdout)


def error_console() -> Console:
    """Return the console of the messages."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    looks = stream.isatty()
    plain = not looks or bool(os.environ.get("NO_COLOR"))
    return Console(
        file=stream,
        force_terminal=looks,
        color_system=None if plain else "auto",
        width=None if looks else _UNLIMITED,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=not looks,
    )


def is_live(*, quiet: bool = False) -> bool:
    """Whether moving parts are welcome on stderr."""
    return not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def say(message: str, style: str = "") -> None:
    """Tell the person in front of it something."""
    error_console().print(Text(message, style=style))


# -- data --------------------------------------------------------------------------------------------------------------


def jsonable(value: object) -> Any:
    """Return a value as JSON can hold it, by the aliases of its models; what JSON has no form for becomes its text."""
    return to_jsonable_python(value, by_alias=True, fallback=str, inf_nan_mode="strings")


def write_json(value: object) -> None:
    """Write one JSON document to stdout: indented for a person, on one line for a program."""
    write_line(escaped(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None)))


def write_line(line: str, stream: TextIO | None = None) -> None:
    """Write one line to stdout, or to what was stdout before, and let it go at once."""
    data: TextIO = sys.stdout if stream is None else stream
    data.write(line.encode("utf-8", "replace").decode() + "\n")
    data.flush()


# -- tables ------------------------------------------------------------------------------------------------------------


def table(*columns: str, right: Collection[str] = (), gap: int = 2) -> Table:
    """Return an empty table in the style of all tables here; `right` names the columns of numbers."""
    made = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return made


# -- failures ----------------------------------------------------------------------------------------------------------


def show_failure(failure: Failure, *, as_json: bool) -> None:
    """Tell what went wrong: JSON on stdout for a program, a panel or plain lines on stderr for a person."""
    if as_json:
        write_json({"error": failure.to_dict()})
        return
    console = error_console()
    if failure.trace:
        console.print(Text(failure.trace, style="dim"))
    if console.is_terminal:
        console.print(_panel(failure))
    else:
        console.print(Text(f"error: {failure.message}"))
        for line in _details(failure):
            console.print(Text(f"  {line}"))


def _panel(failure: Failure) -> RenderableType:
    body = Text(failure.message)
    for line in _details(failure):
        body.append(f"\n{line}", style="dim")
    title = "Wrong use" if failure.kind == "UsageError" else failure.kind
    return Panel(body, title=Text(title, style="bold red"), title_align="left", border_style="red", padding=(0, 1))


def _details(failure: Failure) -> list[str]:
    """Return what is to be said under the message: hints, where it happened, what was tried."""
    label = "note" if failure.trace else "hint"
    lines = [f"{label}: {hint}" for hint in failure.hints]
    if failure.step is not None and repr(failure.step) not in failure.message:
        lines.append(f"step: {failure.step}")
    lines += [f"{cause.kind}: {cause.message}" for cause in failure.causes if cause.message not in failure.message]
    if failure.attempts:
        lines.append(f"attempts: {len(failure.attempts)}")
        lines += [f"  {line}" for line in _attempts(failure.attempts)]
    return lines


def _attempts(attempts: Sequence[Attempt]) -> Iterator[str]:
    """Yield a line for each series of attempts that went the same way."""
    for (model, outcome, status), same in groupby(attempts, lambda one: (one.model, one.outcome, one.status)):
        taken = [one.latency_s for one in same]
        times = f" {len(taken)} times" if len(taken) > 1 else ""
        yield f"{model}: {outcome}{f' {status}' if status else ''}{times}, {sum(taken):.1f} s"
