"""How far a map has come: a live table on a terminal, one line at the end everywhere else."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from types import TracebackType
from typing import Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from llmflow.cli._end_report import end_report
from llmflow.cli._report import count, dollars, seconds, tokens
from llmflow.cli._terminal import error_console, is_live, say
from llmflow.observers import Stats
from llmflow.runtime import Runtime

__all__ = ["Progress", "Spent"]

_MOST_FAILURES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Spent:
    """What the calls of a run took so far."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal = Decimal(0)
    unpriced: int = 0
    reasks: int = 0
    repaired: int = 0
    retries: int = 0
    hits: int = 0
    saved: Decimal = Decimal(0)
    waited_s: float = 0.0
    throttled: int = 0

    @classmethod
    def of(cls, stats: Stats) -> Spent:
        """Add up the steps."""
        steps = stats.steps.values()
        return cls(
            input_tokens=sum(one.input_tokens for one in steps),
            output_tokens=sum(one.output_tokens for one in steps),
            cost=sum((one.cost_usd for one in steps), Decimal(0)),
            unpriced=sum(one.unpriced for one in steps),
            reasks=sum(one.reasks for one in steps),
            repaired=sum(one.repaired for one in steps),
            retries=sum(one.retries for one in steps),
            hits=sum(one.hits for one in steps),
            saved=sum((one.saved_usd for one in steps), Decimal(0)),
            waited_s=sum(one.waited_s for one in steps),
            throttled=sum(one.throttled for one in steps),
        )


@dataclass(slots=True)
class Progress:
    """Counts items, shows them while they come, and sums up.

    Args:
        name: Of what is run.
        runtime: Whose statistics are shown; it has run nothing before.
        total: How many items there are, None when nobody knows.
        quiet: Say nothing.
    """

    name: str
    runtime: Runtime
    total: int | None
    quiet: bool = False
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    _started: float = field(default_factory=time.monotonic)
    _live: Live | None = None
    _spinner: Spinner = field(default_factory=lambda: Spinner("dots"))

    def __enter__(self) -> Self:
        self._show()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._hide()

    def _show(self) -> None:
        if is_live(quiet=self.quiet):
            self._live = Live(
                get_renderable=self._render, console=error_console(), transient=True, refresh_per_second=8
            )
            self._live.start()

    def _hide(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    @contextmanager
    def aside(self) -> Generator[None]:
        """Take the table off the screen while something else is written: both streams may end there."""
        shown = self._live is not None
        self._hide()
        try:
            yield
        finally:
            if shown:  # a new one, as the old one would go back to where it stood, over what was written
                self._show()

    def fail(self, message: str) -> None:
        """Count a failed item and say why; after some it is enough that the results say it."""
        self.failed += 1
        if self.quiet or self.failed > _MOST_FAILURES_SHOWN:
            return
        with self.aside():
            say(message, "red")
            if self.failed == _MOST_FAILURES_SHOWN:
                say("further failures are told in the results only", "dim")

    @property
    def done(self) -> int:
        """Items that need no more work."""
        return self.ok + self.failed + self.skipped

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def _remaining(self) -> float | None:
        worked = self.ok + self.failed
        if self.total is None or not worked:
            return None
        return self.elapsed / worked * (self.total - self.done)

    def _render(self) -> RenderableType:
        head = Table.grid(padding=(0, 1))
        head.add_row(
            self._spinner,
            Text(self.name, style="bold"),
            self._bar(),
            Text(self._position()),
            Text(self._eta(), style="dim"),
        )
        return Group(head, Text(f"  {self.sum()}", style="dim", no_wrap=True, overflow="ellipsis"))

    def _bar(self) -> RenderableType:
        return ProgressBar(total=self.total or 1, completed=self.done, width=28, pulse=self.total is None)

    def _position(self) -> str:
        return f"{self.done}" if self.total is None else f"{self.done}/{self.total}"

    def _eta(self) -> str:
        remaining = self._remaining()
        return seconds(self.elapsed) + (f", {seconds(remaining)} left" if remaining is not None else "")

    def sum(self) -> str:
        """Return the counts on one line."""
        spent = Spent.of(self.runtime.stats())
        parts = [f"{self.ok} ok", f"{self.failed} failed"]
        if self.skipped:
            parts.append(f"{self.skipped} kept")
        parts.append(f"tokens {tokens(spent.input_tokens)} in, {tokens(spent.output_tokens)} out")
        parts.append(f"cost {dollars(spent.cost, spent.unpriced)}")
        parts += [count(spent.reasks, "re-ask")] if spent.reasks else []
        parts += [f"{spent.repaired} repaired"] if spent.repaired else []
        parts += [f"{spent.retries} retried"] if spent.retries else []
        parts += [f"{spent.throttled} not retried"] if spent.throttled else []
        parts += [_hits(spent)] if spent.hits else []
        parts += [f"waited {seconds(spent.waited_s)}"] if spent.waited_s else []
        return ", ".join(parts)

    def finish(self) -> None:
        """Say in one line what became of the items."""
        if not self.quiet:
            say(f"{self.name}: {count(self.done, 'item')} in {seconds(self.elapsed)}: {self.sum()}")
            console = error_console()
            for part in end_report(self.runtime.stats(), width=console.width):
                console.print(part)


def _hits(spent: Spent) -> str:
    saved = f" that saved {dollars(spent.saved)}" if spent.saved else ""
    return f"{count(spent.hits, 'cache hit')}{saved}"
