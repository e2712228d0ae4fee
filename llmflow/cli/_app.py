"""The commands and their options; what they do is in the modules beside this one."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

import llmflow
from llmflow.cli._failures import EXIT_INTERRUPTED, UsageError
from llmflow.cli._guard import guarded
from llmflow.cli._options import AsJson
from llmflow.cli._replay_command import replay
from llmflow.cli._report_commands import add_reports
from llmflow.cli._terminal import say

if TYPE_CHECKING:
    from llmflow.step import OnChange

__all__ = ["app", "main"]

app = typer.Typer(
    name="llmflow",
    help="Run, inspect and look after typed LLM steps and flows.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class GraphFormat(StrEnum):
    """What a graph can be written as."""

    mermaid = "mermaid"
    svg = "svg"
    dot = "dot"


Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="A step, task or flow: [bold]module:name[/] or [bold]path.py:name[/].",
        show_default=False,
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="PROVIDER/NAME",
        help="Ask this model in every step, without fallbacks.",
        show_default=False,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Write nothing but data and errors.")]


def _show_version(asked: bool) -> None:  # noqa: FBT001  # typer calls it so
    if asked:
        typer.echo(f"llmflow {llmflow.__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            "-V",
            callback=_show_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    """Run, inspect and look after typed LLM steps and flows."""


@app.command(epilog="Exit codes: 0 ok, 1 the run failed, 2 wrong use, 3 refused by a budget, 130 interrupted.")
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

    if map_path is None:
        _refuse_without_map(out=out, resume=resume, overwrite=overwrite)
        if dry:
            return dry_run(target, source=source, model=model, as_json=as_json)
        run_once(target, source=source, model=model, as_json=as_json, quiet=quiet, run_id=run_id)
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
    )


def _refuse_without_map(**given: object) -> None:
    for name, value in given.items():
        if value:
            raise UsageError(f"--{name} belongs to --map", "One result goes to stdout: llmflow run TARGET > file.json")


@app.command(epilog="Exit codes: 0 ok, 1 the run failed, 2 wrong use, 3 refused by a budget, 130 interrupted.")
@guarded
def resume(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Its id, the beginning of its id, or [bold]last[/].")],
    *,
    use_recorded: Annotated[
        bool, typer.Option("--use-recorded", help="Take recorded answers although their prompt or inputs changed.")
    ] = False,
    rerun_changed: Annotated[
        bool, typer.Option("--rerun-changed", help="Ask again, and pay again, where a prompt or inputs changed.")
    ] = False,
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

    if use_recorded and rerun_changed:
        raise UsageError("--use-recorded and --rerun-changed exclude each other")
    on_change: OnChange = "use-recorded" if use_recorded else "rerun-changed" if rerun_changed else "refuse"
    return resume_run(run, on_change=on_change, target=target, as_json=as_json, quiet=quiet)


@app.command()
@guarded
def plan(target: Target, *, model: ModelName = None, as_json: AsJson = False) -> None:
    """Show what a target will do: its nodes, models, and every policy with who supplied it. Nothing is sent.

    [bold]Example[/]

    [cyan]llmflow plan app.py:support[/]
    """
    from llmflow.cli._describe import show_plan  # see `run`

    show_plan(target, model=model, as_json=as_json)


@app.command()
@guarded
def graph(
    target: Target,
    *,
    form: Annotated[GraphFormat, typer.Option("--format", "-f", help="What to write.")] = GraphFormat.mermaid,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE", help="Where to write it, instead of stdout.", show_default=False),
    ] = None,
) -> None:
    """Draw a flow as Mermaid, SVG or Graphviz text.

    [bold]Examples[/]

    [cyan]llmflow graph app.py:support[/]

    [cyan]llmflow graph app.py:support --format svg --out support.svg[/]
    """
    from llmflow.cli._describe import show_graph  # see `run`

    show_graph(target, form=form.value, out=out)


add_reports(app)
app.command(epilog="Exit codes: 0 ok, 1 answers failed, 2 wrong use, 3 too little agreement or refused by a budget.")(
    replay
)


Targets = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TARGET]...",
        help="Modules or files, or [bold]module:name[/] for one and what it leads to; those of llmflow.lock unless given.",
        show_default=False,
    ),
]


@app.command(epilog="Exit codes: 0 in order, 2 a definition is wrong, 3 a prompt is not as locked.")
@guarded
def check(targets: Targets = None, *, as_json: AsJson = False) -> int:
    """Check that everything can be built, and that every prompt is as llmflow.lock says. Nothing is sent.

    A prompt that changed, is new or is gone while the lock is as before is shown with what differs and what asking
    again would buy anew. Run it in CI.

    [bold]Example[/]

    [cyan]llmflow check app.py[/]
    """
    from llmflow.cli._check import check as check_targets  # see `run`

    return check_targets(targets or (), as_json=as_json)


prompts = typer.Typer(help="See what the prompts are, and agree to what they became.", no_args_is_help=True)
app.add_typer(prompts, name="prompts")


@prompts.command("list")
@guarded
def prompts_list(targets: Targets = None, *, as_json: AsJson = False) -> None:
    """List the prompts: version, whether it is as locked, where it is, what it is made of."""
    from llmflow.cli._prompts import list_prompts  # see `run`

    list_prompts(targets or (), as_json=as_json)


@prompts.command("lock")
@guarded
def prompts_lock(targets: Targets = None) -> None:
    """Write llmflow.lock, and say what changed. Given targets are all that it is about from then on."""
    from llmflow.cli._prompts import lock_prompts  # see `run`

    lock_prompts(targets or ())


@prompts.command("diff")
@guarded
def prompts_diff(
    targets: Targets = None,
    *,
    step: Annotated[
        str | None, typer.Option("--step", metavar="NAME", help="Only the prompt of this step.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what differs between llmflow.lock and the code."""
    from llmflow.cli._prompts import diff_prompts  # see `run`

    diff_prompts(targets or (), step=step, as_json=as_json)


@prompts.command("show")
@guarded
def prompts_show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="STEP|TARGET", help="A step's name, or [bold]module:name[/] where no lock is.", show_default=False
        ),
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Show the parts of a prompt, what its version covers, and what it does not."""
    from llmflow.cli._prompts import show_prompt  # see `run`

    show_prompt(name, as_json=as_json)


cache = typer.Typer(help="Look at the answers that are kept, and drop them.", no_args_is_help=True)
app.add_typer(cache, name="cache")


@cache.command("ls")
@guarded
def cache_ls(*, as_json: AsJson = False) -> None:
    """List the answers that are kept: step, model, age and size, never the answers themselves."""
    from llmflow.cli._cache import show_cache  # see `run`

    show_cache(as_json=as_json)


@cache.command("clear")
@guarded
def cache_clear(
    *,
    step: Annotated[
        str | None, typer.Option("--step", metavar="NAME", help="Only the answers of this step.", show_default=False)
    ] = None,
) -> None:
    """Drop the answers that are kept, so that they are asked for again."""
    from llmflow.cli._cache import clear_cache  # see `run`

    clear_cache(step=step)


@app.command()
@guarded
def plugins(*, as_json: AsJson = False) -> None:
    """List the plugins: where each comes from, which hooks it implements, and whether it works."""
    from llmflow.cli._describe import show_plugins  # see `run`

    show_plugins(as_json=as_json)


@app.command()
@guarded
def doctor(*, as_json: AsJson = False) -> int:
    """Check the installation: versions, settings and where they come from, keys, plugins, the embedded model.

    Keys are reported as present or not, never shown. The exit code is 1 when something is broken.
    """
    from llmflow.cli._doctor import show_doctor  # see `run`

    return show_doctor(as_json=as_json)


@app.command()
@guarded
def demo(
    *,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, help="How many of the 20 messages to read.", show_default=False),
    ] = None,
    model: ModelName = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="FILE.jsonl", help="Where the tickets go, instead of stdout.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Turn a mailbox of 20 support messages into typed tickets, on a real model in this process.

    It needs no key and no network, but the plugin: [bold]pip install llmflow-local[/]. The model is small and weak,
    and its malformed answers are real; watch them being mended, asked for again, and handed to a fallback.
    """
    from llmflow.cli._demo import run_demo  # see `run`

    return run_demo(model=model, limit=limit, out=out, as_json=as_json, quiet=quiet)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: What stands behind `llmflow`; those of the process unless given.
    """
    _prepare_streams()
    try:
        app(args=arguments, prog_name="llmflow")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except KeyboardInterrupt:
        say("interrupted")
        return EXIT_INTERRUPTED
    return 0


def _prepare_streams() -> None:
    """Write UTF-8 wherever the output goes, and help texts without colour where none is wanted."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace")
    if os.environ.get("NO_COLOR"):
        from typer import rich_utils  # loaded by typer anyway, when it writes help

        rich_utils.COLOR_SYSTEM = None
