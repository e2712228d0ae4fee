"""Options that many commands have."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["AsJson", "Since", "Until"]

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
