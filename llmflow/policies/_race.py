"""One request with others beside it: the first answer is taken, and nothing is left running.

The first request runs in its caller's own task, so that a race in which no other starts costs next to nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from llmflow.backend import on_trio, running_loop  # pyright: ignore[reportPrivateUsage]
from llmflow.policies._race_asyncio import AsyncioRace
from llmflow.policies._race_trio import TrioRace

if TYPE_CHECKING:
    from llmflow.messages import Request
    from llmflow.policies._racing import Racing, Rules

__all__ = ["start_race"]


def start_race(request: Request, delay: float, rules: Rules) -> Racing | None:
    """Return a race in which others start, each `delay` seconds after the one before was sent or started.

    None where nothing can run beside the caller: outside of a task.
    """
    if (loop := running_loop()) is not None:
        task = asyncio.current_task(loop)
        return None if task is None else AsyncioRace(request, delay, rules, task)
    return TrioRace(request, delay, rules) if on_trio() else None
