"""`llmflow run --dry-run`: what a run would take at worst; nothing is sent."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any

import anyio

from llmflow.cli._describe import write_plan
from llmflow.cli._failures import UsageError
from llmflow.cli._inputs import InputReader, read_source
from llmflow.cli._lines import Item, read_items
from llmflow.cli._session import session
from llmflow.cli._target import load_target
from llmflow.cli._terminal import say
from llmflow.runtime import plan, plan_map
from llmflow.step import Unit

__all__ = ["dry_run", "dry_run_map"]


def dry_run(target: str, *, source: str | None, model: str | None, as_json: bool) -> int:
    """Write what one call would take, and return the exit code."""
    unit = load_target(target)
    inputs = None if source is None else InputReader(unit).read(read_source(source))
    with session(model) as runtime, redirect_stdout(sys.stderr):  # what bodies print is no data
        made = plan(unit, runtime=runtime, inputs=inputs)
    return write_plan(made, as_json=as_json)


def dry_run_map(target: str, *, path: str, concurrency: int, model: str | None, as_json: bool) -> int:
    """Write what a call for every line of a file would take, and return the exit code."""
    unit = load_target(target)
    lines = anyio.run(_read, path)
    with session(model) as runtime, redirect_stdout(sys.stderr):
        made = plan_map(unit, tuple(_arguments(unit, lines)), concurrency=concurrency, runtime=runtime)
    return write_plan(made, as_json=as_json)


async def _read(path: str) -> list[Item]:
    try:
        return [one async for one in read_items(path)]
    except OSError as exc:
        raise UsageError(f"--map {path}: cannot read the file: {exc.strerror or exc}") from exc


def _arguments(unit: Unit[..., Any], lines: list[Item]) -> Iterator[dict[str, object]]:
    """Yield the arguments of every line; one that does not fit would fail by itself and send nothing."""
    reader = InputReader(unit)
    for one in lines:
        try:
            yield reader.read(one.text, plain=False)
        except UsageError as exc:
            say(f"line {one.line}: {exc}", "red")
