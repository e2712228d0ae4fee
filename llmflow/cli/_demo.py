"""`llmflow demo`: the example `triage_inbox` on the embedded model, and what it took."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from llmflow.cli._end_report import end_report
from llmflow.cli._failures import EXIT_RUN_FAILED, Failure, UsageError
from llmflow.cli._lines import Results
from llmflow.cli._local_model import INSTALL, LocalModel, find_local_model
from llmflow.cli._progress import Progress
from llmflow.cli._report import count, plain_stats, seconds
from llmflow.cli._session import DEFAULT_STORE, check, run_async, session
from llmflow.cli._target import load_module
from llmflow.cli._terminal import error_console, is_live, jsonable, say, write_json, write_line
from llmflow.errors import InvalidOutput, ProviderError
from llmflow.events import CallFinished
from llmflow.hookspecs import hookimpl
from llmflow.messages import Outcome
from llmflow.policies import Repair, Retry
from llmflow.prompts import prompt
from llmflow.runtime import Runtime, default_runtime
from llmflow.step import step

__all__ = ["demo_folder", "run_demo"]

_LOCAL = "local/smollm2"
_MAILS_AT_A_TIME = 1
"""The embedded model answers one request at a time, and the three steps of one message keep it busy."""


def demo_folder() -> Path:
    """Return the folder of the example: inside an installed llmflow, or `examples/` of a checkout."""
    here = Path(__file__).parent
    folders = (here / "demo", here.parents[1] / "examples" / "triage_inbox")
    found = next((folder for folder in folders if (folder / "triage_inbox.py").is_file()), None)
    if found is None:
        raise UsageError(
            "the files of the demo are not part of this installation", "pip install --force-reinstall llmflow"
        )
    return found


def run_demo(*, model: str | None, limit: int | None, out: str | None, as_json: bool, quiet: bool) -> int:
    """Turn the example's mailbox into tickets and return the exit code."""
    folder = demo_folder()
    module = load_module(str(folder / "triage_inbox.py"))
    if model is None:
        _prepare_local_model(quiet=quiet)
    mended = _Mended()
    with default_runtime(plugins=[mended], cache=DEFAULT_STORE, journal=DEFAULT_STORE), session(model) as runtime:
        check(module.triage, runtime)
        demo = _Demo(module, folder / "inbox.mbox", runtime, limit=limit, quiet=quiet or as_json)
        results = Results(out, keep=False, overwrite=True, write=_no_line if as_json else demo.write)
        try:
            run_async(lambda: demo.run(results), runtime)
        finally:
            results.close()
    if as_json:
        write_json(demo.report(mended.count))
    elif not quiet:
        demo.sum_up(mended.count, model or f"{_LOCAL}, a real model of 135 million parameters, in this process")
    return EXIT_RUN_FAILED if demo.progress.failed else 0


class _Mended:
    """Counts the answers that were mended on the spot, without another request."""

    def __init__(self) -> None:
        self.count = 0

    @hookimpl
    def llmflow_call_finished(self, event: CallFinished) -> None:
        if event.repaired and not event.reasks:
            self.count += 1


class _Demo:
    """The demo while it runs."""

    def __init__(self, module: ModuleType, mailbox: Path, runtime: Runtime, *, limit: int | None, quiet: bool) -> None:
        self._module = module
        self._mailbox = mailbox
        self._runtime = runtime
        self._limit = limit
        self._stream: TextIO = sys.stdout
        self.progress = Progress("triage", runtime, None, quiet=quiet)
        self.values: list[Any] = []

    async def run(self, results: Results) -> None:
        mails = (await self._module.read_mailbox(self._mailbox))[: self._limit]
        self.progress.total = len(mails)
        calls = self._module.triage.map(mails, concurrency=_MAILS_AT_A_TIME, on_error="collect")
        with self.progress:
            async with calls as outcomes:
                async for outcome in outcomes:
                    self._take(outcome, results)

    def _take(self, outcome: Outcome[Any], results: Results) -> None:
        if outcome.error is not None:
            failure = Failure.of(outcome.error)
            self.progress.fail(f"message {outcome.index + 1}: {failure.kind}: {failure.message}")
            return
        value = jsonable(outcome.value)
        self.values.append(value)
        results.add(value)
        self.progress.ok += 1

    def write(self, line: str) -> None:
        """Write a ticket to stdout, clear of the live table."""
        with self.progress.aside():
            write_line(line, self._stream)

    def report(self, mended: int) -> dict[str, Any]:
        """Return tickets and figures for a program."""
        steps = self._runtime.stats().steps.values()
        return {
            "results": self.values,
            "valid": self.progress.ok,
            "failed": self.progress.failed,
            "mended": mended,
            "reasked": sum(one.reasks for one in steps),
            "fallbacks": sum(one.fallbacks for one in steps),
            "seconds": round(self.progress.elapsed, 1),
            "stats": plain_stats(self._runtime.stats()),
        }

    def sum_up(self, mended: int, model: str) -> None:
        """Tell a person what happened and what to do next."""
        report = self.report(mended)
        say("")
        console = error_console()
        for part in end_report(self._runtime.stats(), width=console.width):
            console.print(part)
        say("")
        say(
            f"{report['valid']} of {count(self.progress.done, 'message')} became validated tickets in {seconds(report['seconds'])}.",
            "bold",
        )
        say(
            f"On the way {count(mended, 'malformed answer')} {'was' if mended == 1 else 'were'} mended on the spot, "
            f"{report['reasked']} asked for again, and {count(report['fallbacks'], 'call')} fell back."
        )
        say(f"Model: {model}.")
        source = self._mailbox.with_name("triage_inbox.py")
        say(f"Next: read {_short(source)}, then: llmflow graph {_short(source)}:triage", "dim")


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _no_line(line: str) -> None:
    """Write nothing: the report holds every ticket."""


# -- the embedded model ------------------------------------------------------------------------------------------------


@step(_LOCAL, Repair.off, Retry.off, params={"max_tokens": 1})
def wake_up() -> str:
    return prompt("Hello")


def _prepare_local_model(*, quiet: bool) -> None:
    """Load the embedded model, its weights fetched if need be, so that what is wrong with it is said once."""
    local = find_local_model(os.environ)
    if not local.installed:
        raise UsageError(
            f"the demo runs on the embedded model {_LOCAL}, which is not installed",
            f"{INSTALL}",
            "Or use another model: llmflow demo --model openai/gpt-5-mini",
        )
    try:
        with Runtime() as runtime, _loading(local, quiet=quiet):
            check(wake_up, runtime)
            run_async(_wake_up, runtime)
    except ProviderError as exc:
        raise UsageError(
            f"the embedded model cannot run: {exc}",
            "`llmflow doctor` says more. Or use another model: llmflow demo --model openai/gpt-5-mini",
        ) from exc


async def _wake_up() -> None:
    with suppress(InvalidOutput):  # one token is no answer, but the model is there
        await wake_up()


def _loading(local: LocalModel, *, quiet: bool) -> AbstractContextManager[object]:
    there = local.weights is not None or bool(local.problem)  # with a problem nothing is fetched, and it is told next
    message = f"loading {_LOCAL}" if there else f"fetching the weights of {_LOCAL}: 93 MB, this once"
    if is_live(quiet=quiet):
        return error_console().status(message)
    if not there and not quiet:
        say(message)
    return nullcontext()
