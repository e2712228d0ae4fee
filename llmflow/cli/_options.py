"""Options that many commands have."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["AsJson", "ModelName", "Quiet", "Since", "Target", "Until"]

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON, errors included, for a program to read.")]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="WHEN",
        help="Only what was from then on: [bold]24h[/], [bold]7d[/], [bold]90m[/] ago, or a date or time. Everything, unless said.",
        show_default=False,
    ),
]
Until = Annotated[
    str | None,
    typer.Option("--until", metavar="WHEN", help="Only what was before then; as --since.", show_default=False),
]
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
