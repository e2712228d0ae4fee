"""The commands and their options; what they do is in the modules beside this one."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

import llmflow
from llmflow.cli._failures import EXIT_INTERRUPTED
from llmflow.cli._guard import guarded
from llmflow.cli._options import AsJson, ModelName, Quiet, Target
from llmflow.cli._prompt_commands import add_prompts
from llmflow.cli._replay_command import replay
from llmflow.cli._report_commands import add_reports
from llmflow.cli._run_commands import add_runs
from llmflow.cli._terminal import say
from llmflow.cli._wrong_use import WrongUse, show_wrong_use

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


add_runs(app)


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


add_prompts(app)


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
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(args=given, prog_name="llmflow", standalone_mode=False)
    except WrongUse as error:
        return show_wrong_use(error, given)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except KeyboardInterrupt:
        say("interrupted")
        return EXIT_INTERRUPTED
    return code if isinstance(code, int) else 0


def _prepare_streams() -> None:
    """Write UTF-8 wherever the output goes, and help texts without colour where none is wanted."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace")
    if os.environ.get("NO_COLOR"):
        from typer import rich_utils  # loaded by typer anyway, when it writes help

        rich_utils.COLOR_SYSTEM = None
