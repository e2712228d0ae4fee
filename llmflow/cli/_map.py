"""`llmflow run --map`: one call for every line of a file."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

from llmflow.cli._failures import EXIT_REFUSED, EXIT_RUN_FAILED, Failure, UsageError
from llmflow.cli._inputs import InputReader
from llmflow.cli._lines import Item, Results, count_lines, read_items
from llmflow.cli._progress import Progress
from llmflow.cli._session import check, run_async, session
from llmflow.cli._target import load_target
from llmflow.cli._terminal import jsonable, say, write_line
from llmflow.cli._told import as_command
from llmflow.graph import task
from llmflow.messages import Outcome
from llmflow.step import OnChange, Unit

__all__ = ["run_map"]


class MalformedLine(UsageError):
    """A line of the input is not what the target takes."""


def run_map(
    target: str,
    *,
    path: str,
    out: str | None,
    concurrency: int,
    model: str | None,
    quiet: bool,
    resume: bool,
    overwrite: bool,
    run_id: str | None = None,
    on_change: OnChange | None = None,
) -> int:
    """Call a target for every line of a file, write what becomes of each, and return the exit code."""
    unit = load_target(target)
    total = count_lines(path)
    with session(model) as runtime:
        check(unit, runtime)
        runtime.recorder.ref = target
        runtime.recorder.command = as_command(map=path, out=out, concurrency=concurrency, model=model)
        runtime.recorder.on_change = on_change or runtime.recorder.on_change
        progress = Progress(unit.name, runtime, total, quiet=quiet)
        results = Results(out, keep=resume, overwrite=overwrite, write=_to_stdout(progress))
        mapping = _Mapping(unit, path, results, progress)
        try:
            with progress:
                run_async(lambda: mapping.run(concurrency, run_id), runtime)
        except KeyboardInterrupt:
            _say_interrupted(progress, out)
            raise
        finally:
            results.close()
    progress.finish()
    return mapping.exit_code


def _say_interrupted(progress: Progress, out: str | None) -> None:
    of = "" if progress.total is None else f" of {progress.total}"
    say(f"interrupted: {progress.done}{of} items are done", "bold")
    if out is not None:
        say(f"hint: their results are in {out}; the same command with --resume runs the others", "dim")


def _to_stdout(progress: Progress) -> Callable[[str], None]:
    """Return what writes result lines to stdout, clear of the live table."""
    stream = sys.stdout  # before it is redirected for what the user's code prints

    def write(line: str) -> None:
        with progress.aside():
            write_line(line, stream)

    return write


class _Mapping:
    """One map while it runs."""

    def __init__(self, unit: Unit[..., Any], path: str, results: Results, progress: Progress) -> None:
        self._unit = unit
        self._reader = InputReader(unit)
        self._path = path
        self._results = results
        self._progress = progress
        self._refused = 0
        self._items: dict[str, Item] = {}

    @property
    def exit_code(self) -> int:
        """0 when every item has a value, 3 when a budget refused all that have none, else 1."""
        if not self._progress.failed:
            return 0
        return EXIT_REFUSED if self._refused == self._progress.failed else EXIT_RUN_FAILED

    async def run(self, concurrency: int, run_id: str | None) -> None:
        """Call the target for every item that has no result yet."""

        # A task around the call reads the line inside the map, so that a bad line is one item's failure. What is recorded
        # is the call inside.
        @task(name=self._unit.name, journal=False)
        async def item(one: Item) -> object:
            return await self._unit(**self._arguments(one))

        mapped = item if run_id is None else item.with_(run_id=run_id)
        calls = mapped.map(self._unfinished(), concurrency=concurrency, on_error="collect", key=lambda one: one.key)
        async with calls as outcomes:
            async for outcome in outcomes:
                self._take(outcome)

    async def _unfinished(self) -> AsyncIterator[Item]:
        async for one in read_items(self._path):
            if one.key in self._results.kept:
                self._progress.skipped += 1
                continue
            self._items[one.key] = one
            yield one

    def _arguments(self, one: Item) -> dict[str, object]:
        try:
            return self._reader.read(one.text, plain=False)
        except UsageError as exc:
            raise MalformedLine(f"line {one.line}: {exc}") from exc

    def _take(self, outcome: Outcome[object]) -> None:
        """Write what became of an item and count it."""
        one = self._items.pop(outcome.key)
        said: dict[str, Any] = {"index": one.index, "key": one.key}
        if outcome.error is None:
            self._results.add({**said, "value": jsonable(outcome.value)})
            self._progress.ok += 1
            return
        failure = Failure.of(outcome.error)
        self._results.add({**said, "error": {**_brief(failure), "line": one.line}})
        self._refused += failure.exit_code == EXIT_REFUSED
        message = (
            failure.message
            if isinstance(outcome.error, MalformedLine)
            else f"line {one.line}: {failure.kind}: {failure.message}"
        )
        self._progress.fail(message)


def _brief(failure: Failure) -> dict[str, Any]:
    """Return a failure for one line of a file: without the trace and the attempts."""
    return {
        name: value
        for name, value in failure.to_dict().items()
        if name not in ("traceback", "attempts", "causes", "hints", "run_id")
    }
