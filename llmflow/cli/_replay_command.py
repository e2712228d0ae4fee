"""`llmflow replay` with its options."""

from __future__ import annotations

from typing import Annotated

import typer

from llmflow.cli._guard import guarded
from llmflow.cli._options import AsJson, Since

__all__ = ["replay"]


@guarded
def replay(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="Only what this run recorded: its id, the beginning of its id, or [bold]last[/].",
            show_default=False,
        ),
    ] = None,
    *,
    last: Annotated[
        int | None,
        typer.Option("--last", "-n", min=1, help="How many of the latest answers; 100, or all of RUN, unless said."),
    ] = None,
    step: Annotated[
        str | None, typer.Option("--step", metavar="NAME", help="Only answers of this step.", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="PROVIDER/NAME",
            help="Ask this model, without fallbacks.",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            metavar="FILE|LABEL",
            help="Ask with the prompt of this file, or with the one that has this label.",
            show_default=False,
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="TARGET",
            help="Ask this function or step about answers that differ: [bold]path.py:name[/].",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target", metavar="TARGET", help="Where the step or its flow is, if not where it was.", show_default=False
        ),
    ] = None,
    since: Since = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="FILE.jsonl", help="Where the answers go, instead of stdout.", show_default=False
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin --out anew although it holds something.")
    ] = False,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, help="How many are asked at a time.")] = 16,
    min_agreement: Annotated[
        float | None,
        typer.Option(
            "--min-agreement",
            min=0,
            max=1,
            help="Exit with 3 when a smaller part of the answers agrees, or is judged as good.",
            show_default=False,
        ),
    ] = None,
    run_tasks: Annotated[
        bool, typer.Option("--run-tasks", help="Run the tasks of a flow too, if it is a whole run.")
    ] = False,
    cache: Annotated[bool, typer.Option("--cache", help="Take new answers from the cache where it has them.")] = False,
    dry: Annotated[bool, typer.Option("--dry-run", help="Send nothing; show what it would take at worst.")] = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Write nothing but data and errors.")] = False,
) -> int:
    """Play recorded runs again, and compare what is answered now with what was answered then.

    Answers whose prompt and model are as they were stand, and cost nothing; the others are asked anew. Each is a line of
    JSON with the inputs, both answers and every field that differs, and a table on stderr adds them up. The lines hold
    the content of the answers.

    A run of a flow is played again as a whole: what follows from a changed answer is asked anew too. With
    [bold]--step[/], the answers of one step are, each by itself.

    [bold]Examples[/]

    [cyan]llmflow replay --last 100 --step triage --model openai/gpt-5-nano[/]

    [cyan]llmflow replay --step triage --prompt prompts/triage-short.md --judge judges.py:as_good --out pairs.jsonl[/]

    [cyan]llmflow replay last[/]
    """
    from llmflow.cli._replay import Wanted, run_replay  # --help needs none of it

    wanted = Wanted(
        run=run,
        last=last,
        step=step,
        model=model,
        prompt=prompt,
        judge=judge,
        target=target,
        since=since,
        out=out,
        overwrite=overwrite,
        concurrency=concurrency,
        min_agreement=min_agreement,
        run_tasks=run_tasks,
        cache=cache,
        dry=dry,
        as_json=as_json,
        quiet=quiet,
    )
    return run_replay(wanted)
