"""`llmflow check`: the gate that lets no prompt change unseen."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from llmflow.cli._failures import EXIT_REFUSED, EXIT_WRONG_USE, UsageError
from llmflow.cli._found_steps import Found, place_of, told
from llmflow.cli._lock import NAME, read_lock
from llmflow.cli._prompt_diff import Difference
from llmflow.cli._prompts import Review, review, write_differences
from llmflow.cli._report import count, dollars
from llmflow.cli._session import session
from llmflow.cli._terminal import error_console, say, write_json
from llmflow.errors import DefinitionError
from llmflow.runtime import Runtime, plan

if TYPE_CHECKING:
    from llmflow.stores._tables import CacheEntry

__all__ = ["check"]


@dataclass(frozen=True, slots=True)
class _Problem:
    """What is wrong with the code, and where."""

    where: str
    message: str
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Bill:
    """What asking again would buy: the answers that are kept for a version nobody asks for any more."""

    answers: int
    valid: int
    cost: Decimal
    unpriced: int

    def __str__(self) -> str:
        if not self.answers:
            return "re-buys nothing: the cache holds no answer of the locked version"
        fresh = (
            f"{self.valid} of them still valid" if self.answers > 1 else ("still valid" if self.valid else "expired")
        )
        paid = "whose cost is unknown" if self.unpriced == self.answers else f"which had cost {self._dollars()}"
        return f"re-buys {count(self.answers, 'kept answer')}, {fresh}, {paid}"

    def _dollars(self) -> str:
        rest = f" and {self.unpriced} of unknown cost" if self.unpriced else ""
        return f"{dollars(self.cost)}{rest}"

    def to_dict(self) -> dict[str, Any]:
        cost = None if self.answers and self.unpriced == self.answers else str(self.cost)
        return {"answers": self.answers, "valid": self.valid, "cost_usd": cost, "unpriced": self.unpriced}


def check(targets: Sequence[str], *, as_json: bool) -> int:
    """Build and plan everything, compare the prompts with the lock, and return the exit code."""
    if not targets and read_lock() is None:
        hint = "Name the modules and write it: llmflow prompts lock app.py"
        return _refuse(f"there is no {NAME}", hint, as_json=as_json)
    made = review(targets)
    with session() as runtime:
        problems = _problems(made.found, runtime)
        if problems:
            return _report_problems(problems, as_json=as_json)
        if not as_json:
            for note in runtime.wordings.unused({one.name for one in made.found.units}):
                say(f"note: {note}", "yellow")
        if made.lock is None:
            hint = f"Write it and commit it: llmflow prompts lock {' '.join(made.targets)}"
            return _refuse(f"there is no {NAME}", hint, as_json=as_json)
        return _compare(made, runtime, as_json=as_json)


def _refuse(message: str, hint: str, *, as_json: bool) -> int:
    if as_json:
        write_json({"ok": False, "problems": [{"where": NAME, "message": message, "hints": [hint]}], "prompts": {}})
    else:
        say(f"refused: {message}", "red")
        say(f"  hint: {hint}")
    return EXIT_REFUSED


# -- definitions -------------------------------------------------------------------------------------------------------


def _problems(found: Found, runtime: Runtime) -> list[_Problem]:
    """Return everything that is wrong with the definitions."""
    problems = [_problem(where, error) for where, error in found.wrong]
    broken = {where for where, _ in found.wrong}
    for unit in found.units:
        where = place_of(unit)
        if where in broken:
            continue
        try:
            with redirect_stdout(sys.stderr):  # what bodies print is no data
                plan(unit, runtime=runtime)
        except DefinitionError as exc:
            problems.append(_problem(where, exc))
    return list({one.message: one for one in reversed(problems)}.values())[::-1]  # a flow repeats what its step says


def _problem(where: str, error: Exception) -> _Problem:
    hints = error.hints if isinstance(error, UsageError) else tuple(getattr(error, "__notes__", ()))
    trace = error.trace.splitlines() if isinstance(error, UsageError) else []
    return _Problem(*told(where, error), (*hints, *(line.strip() for line in trace)))


def _report_problems(problems: Sequence[_Problem], *, as_json: bool) -> int:
    if as_json:
        listed = [{"where": one.where, "message": one.message, "hints": list(one.hints)} for one in problems]
        write_json({"ok": False, "problems": listed, "prompts": {}})
        return EXIT_WRONG_USE
    for one in problems:
        say(f"error: {one.where}: {one.message}", "red")
        for hint in one.hints:
            say(f"  hint: {hint}")
    say(f"{count(len(problems), 'definition')} cannot be used", "dim")
    return EXIT_WRONG_USE


# -- prompts -----------------------------------------------------------------------------------------------------------


def _compare(made: Review, runtime: Runtime, *, as_json: bool) -> int:
    changed = [one for one in made.differences if one.state != "locked"]
    bills = _bills(changed, runtime)
    if as_json:
        prompts = {one.name: one.to_dict() | {"rebuys": _plain(bills.get(one.name))} for one in changed}
        write_json({"ok": not changed, "problems": [], "prompts": prompts})
        return EXIT_REFUSED if changed else 0
    if not changed:
        say(f"{count(len(made.found.units), 'definition')} in order, {count(len(made.prompts), 'prompt')} as locked")
        return 0
    write_differences(changed, lambda one: _said(one, bills))
    differ = "differs" if len(changed) == 1 else "differ"
    error_console().print()
    say(f"refused: {count(len(changed), 'prompt')} {differ} from {NAME}", "red")
    say("  hint: If that is meant, write the lock anew and commit it: llmflow prompts lock")
    return EXIT_REFUSED


def _plain(bill: _Bill | None) -> dict[str, Any] | None:
    return None if bill is None else bill.to_dict()


def _said(one: Difference, bills: dict[str, _Bill | None]) -> str | None:
    if one.locked is None or one.now is None:
        return None
    if one.locked.version == one.now.version:
        return "re-buys nothing: version= is the same, so kept answers of the old wording are given on"
    bill = bills.get(one.name)
    return (
        "re-buys an unknown number of answers: the cache is not a file that can be looked into"
        if bill is None
        else str(bill)
    )


def _bills(changed: Sequence[Difference], runtime: Runtime) -> dict[str, _Bill | None]:
    """Return for each changed prompt what its locked version left in the cache; None when nobody can tell."""
    entries = _entries(runtime) if changed else None
    return {
        one.name: None if entries is None else _bill([kept for kept in entries if _is_of(kept, one)])
        for one in changed
        if one.locked is not None and one.now is not None and one.locked.version != one.now.version
    }


def _is_of(kept: CacheEntry, one: Difference) -> bool:
    return kept.step == one.step and one.locked is not None and kept.prompt_version == one.locked.version


def _bill(entries: Sequence[CacheEntry]) -> _Bill:
    costs = [one.cost_usd for one in entries if one.cost_usd is not None]
    valid = sum(one.expires_in > 0 for one in entries)
    return _Bill(len(entries), valid, sum(costs, Decimal(0)), len(entries) - len(costs))


def _entries(runtime: Runtime) -> list[CacheEntry] | None:
    read = getattr(runtime.cache_store, "entries", None)
    if read is None:
        return None
    try:
        return list(read())
    except (sqlite3.Error, OSError) as exc:
        say(f"warning: the cache cannot be read: {exc}", "yellow")
        return None
