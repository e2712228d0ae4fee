"""The commands that run something, with their options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llmflow.cli._failures import UsageError
from llmflow.cli._guard import guarded
from llmflow.cli._options import AsJson, ModelName, Quiet, Target

if TYPE_CHECKING:
    from llmflow.step import OnChange

__all__ = ["add_runs"]

UseRecorded = Annotated[
    bool, typer.Option("--use-recorded", help="Take recorded answers although their prompt or inputs changed.")
]
RerunChanged = Annotated[
    bool, typer.Option("--rerun-changed", help="Ask again, and pay again, where a prompt or inputs changed.")
]
_EXIT_CODES = "Exit codes: 0 ok, 1 the run failed, 2 wrong use, 3 refused by a budget, 130 interrupted."


@guarded
def run(
    target: Target,
    *,
    source: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            metavar="JSON|@FILE|-",
            help="The arguments: JSON, a file, or - for stdin.",
            show_default=False,
        ),
    ] = None,
    map_path: Annotated[
        str | None,
        typer.Option(
            "--map",
            metavar="FILE.jsonl",
            help="Run once for each line of JSON in the file, or in stdin with -.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE.jsonl",
            help="Where the results of --map go, instead of stdout.",
            show_default=False,
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, help="How many lines of --map are in work at a time.")
    ] = 16,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue --out: run only the lines that have no value in it yet.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin --out anew although it holds results.")] = False,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Send nothing; show what it would take at worst, with these inputs.")
    ] = False,
    run_id: Annotated[
        str | None,
        typer.Option(
            "--run-id",
            metavar="ID",
            help="Name the run: the same id and inputs again give its value, or finish it.",
            show_default=False,
        ),
    ] = None,
    use_recorded: UseRecorded = False,
    rerun_changed: RerunChanged = False,
    model: ModelName = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Run a step, task or flow, once or for every line of a file.

    The value is written to stdout as JSON, what it took to stderr. Arguments are given by name and validated against
    the annotations; a target of one parameter also takes the bare value, or plain text for a [bold]str[/].

    With [bold]--map[/], each result is one line, written as soon as it is there:
    [bold]{"index": 0, "key": "...", "value": ...}[/] or [bold]{"index": 0, "key": "...", "error": {...}}[/].
    Lines come as they finish; [bold]index[/] is the position in the input and [bold]key[/] a hash of its text. What is
    written stays, however the run ends, and [bold]--resume[/] runs the rest.

    [bold]Examples[/]

    [cyan]llmflow run app.py:triage --input "I was charged twice"[/]

    [cyan]llmflow run app:support --input '{"message": "Hello", "urgent": true}' | jq .category[/]

    [cyan]llmflow run app.py:triage --map messages.jsonl --out tickets.jsonl --concurrency 8[/]

    [cyan]llmflow run app.py:triage --map messages.jsonl --dry-run[/]
    """
    from llmflow.cli._dry_run import dry_run, dry_run_map
    from llmflow.cli._map import run_map  # --help and --version need none of it
    from llmflow.cli._run import run_once

    on_change = _on_change(use_recorded=use_recorded, rerun_changed=rerun_changed)
    if on_change is not None and run_id is None:
        raise UsageError(f"--{on_change} belongs to --run-id", "A run without an id is not taken up again.")
    if map_path is None:
        _refuse_without_map(out=out, resume=resume, overwrite=overwrite)
        if dry:
            return dry_run(target, source=source, model=model, as_json=as_json)
        run_once(target, source=source, model=model, as_json=as_json, quiet=quiet, run_id=run_id, on_change=on_change)
        return 0
    if source is not None:
        raise UsageError("--input and --map exclude each other", "--input is for one call, --map for a file of them.")
    if dry:
        return dry_run_map(target, path=map_path, concurrency=concurrency, model=model, as_json=as_json)
    return run_map(
        target,
        path=map_path,
        out=out,
        concurrency=concurrency,
        model=model,
        quiet=quiet,
        resume=resume,
        overwrite=overwrite,
        run_id=run_id,
        on_change=on_change,
    )


def _on_change(*, use_recorded: bool, rerun_changed: bool) -> OnChange | None:
    """Return what the command was told to do about changes, None when the runtime says it."""
    if use_recorded and rerun_changed:
        raise UsageError("--use-recorded and --rerun-changed exclude each other")
    return "use-recorded" if use_recorded else "rerun-changed" if rerun_changed else None


def _refuse_without_map(**given: object) -> None:
    for name, value in given.items():
        if value:
            raise UsageError(f"--{name} belongs to --map", "One result goes to stdout: llmflow run TARGET > file.json")


@guarded
def resume(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Its id, the beginning of its id, or [bold]last[/].")],
    *,
    use_recorded: UseRecorded = False,
    rerun_changed: RerunChanged = False,
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="TARGET", help="Where its flow is now, if it moved.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Finish a run that failed, was interrupted or whose process died; what it has done is not done or paid again.

    When a prompt, a schema or the graph changed since, nothing is run: the changes are named, and you choose between
    [bold]--use-recorded[/] and [bold]--rerun-changed[/].

    [bold]Example[/]

    [cyan]llmflow resume last[/]
    """
    from llmflow.cli._resume import resume_run  # see `run`

    on_change = _on_change(use_recorded=use_recorded, rerun_changed=rerun_changed)
    return resume_run(run, on_change=on_change, target=target, as_json=as_json, quiet=quiet)


def add_runs(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (run, resume):
        app.command(epilog=_EXIT_CODES)(command)
