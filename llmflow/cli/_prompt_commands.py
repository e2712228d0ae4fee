"""The commands that look after prompts, with their options."""

from __future__ import annotations

from typing import Annotated

import typer

from llmflow.cli._guard import guarded
from llmflow.cli._options import AsJson

__all__ = ["add_prompts"]

Targets = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TARGET]...",
        help="Modules or files, or [bold]module:name[/] for one and what it leads to; those of llmflow.lock unless given.",
        show_default=False,
    ),
]


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


def add_prompts(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(epilog="Exit codes: 0 in order, 2 a definition is wrong, 3 a prompt is not as locked.")(check)
    app.add_typer(prompts, name="prompts")
