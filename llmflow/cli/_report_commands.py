"""The commands that read the journal, with their options."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from llmflow.cli._guard import guarded
from llmflow.cli._options import AsJson, Since, Until

__all__ = ["add_reports"]


class GroupBy(StrEnum):
    """What calls and their cost are added up by."""

    step = "step"
    model = "model"
    day = "day"
    tenant = "tenant"
    prompt = "prompt"


class Status(StrEnum):
    """What a run can be."""

    running = "running"
    ok = "ok"
    failed = "failed"
    cancelled = "cancelled"
    interrupted = "interrupted"


def add_reports(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (runs, show, stats, cost):
        app.command()(command)


@guarded
def runs(
    *,
    target: Annotated[
        str | None, typer.Option("--target", metavar="NAME", help="Only runs of this target.", show_default=False)
    ] = None,
    status: Annotated[
        Status | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Only runs that are running, ok, failed (maps of which an item did, too), cancelled or interrupted.",
            show_default=False,
        ),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="NAME", help="Only runs for this tenant.", show_default=False)
    ] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many runs to list.")] = 20,
    forget_before: Annotated[
        str | None,
        typer.Option(
            "--forget-before",
            metavar="WHEN",
            help="Drop the inputs and outputs of runs that began before: 30d, or a date. What they cost stays.",
            show_default=False,
        ),
    ] = None,
    delete_before: Annotated[
        str | None,
        typer.Option(
            "--delete-before", metavar="WHEN", help="Drop everything about runs that began before.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what was run, the latest first; or forget what is old.

    [bold]Examples[/]

    [cyan]llmflow runs --status failed --since 24h[/]

    [cyan]llmflow runs --forget-before 30d[/]
    """
    from llmflow.cli._runs import show_runs  # --help needs none of it

    if forget_before is not None or delete_before is not None:
        from llmflow.cli._forget import forget_runs

        forget_runs(forget_before=forget_before, delete_before=delete_before)
        return
    show_runs(
        target=target,
        status=None if status is None else status.value,
        tenant=tenant,
        since=since,
        until=until,
        limit=limit,
        as_json=as_json,
    )


@guarded
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="The id of a run, the beginning of it, or [bold]last[/].", show_default=False
        ),
    ],
    *,
    content: Annotated[
        bool, typer.Option("--content", help="Show inputs and outputs too, as far as they are stored.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one run: its nodes and their attempts, when each ran, and what it took.

    [bold]Example[/]

    [cyan]llmflow show last[/]
    """
    from llmflow.cli._show import show_run  # as above

    show_run(name, content=content, as_json=as_json)


@guarded
def stats(
    *,
    by: Annotated[GroupBy, typer.Option("--by", help="What to count together.")] = GroupBy.step,
    step: Annotated[
        str | None, typer.Option("--step", metavar="NAME", help="Only calls of this step.", show_default=False)
    ] = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Show how calls went: validity, latency, retries, hits, cost, and which errors there were.

    [bold]Example[/]

    [cyan]llmflow stats --by prompt --step triage --since 7d[/]
    """
    from llmflow.cli._stats import show_stats  # as above

    show_stats(by=by.value, step=step, since=since, until=until, as_json=as_json)


@guarded
def cost(
    *,
    by: Annotated[GroupBy, typer.Option("--by", help="What to add up.")] = GroupBy.step,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Show where the money went. What nobody knows the cost of is counted apart.

    [bold]Example[/]

    [cyan]llmflow cost --by day --since 7d[/]
    """
    from llmflow.cli._cost import show_cost  # as above

    show_cost(by=by.value, since=since, until=until, as_json=as_json)
