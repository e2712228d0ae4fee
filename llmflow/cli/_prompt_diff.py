"""What differs between a prompt as it was locked and as it is now."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from llmflow.cli import _toml as toml
from llmflow.cli._lock import Lock, LockedPrompt

__all__ = ["Change", "Difference", "State", "compare", "differences"]

State: TypeAlias = Literal["locked", "changed", "new", "gone"]

_AROUND = 2
"""Unchanged lines shown before and after a changed one."""


@dataclass(frozen=True, slots=True)
class Change:
    """One part of a prompt that differs; None is a part that is not there."""

    part: str
    locked: str | None
    now: str | None

    def lines(self) -> Iterator[str]:
        """Yield the lines of both, each behind `-`, `+` or a space."""
        before, after = (self.locked or "").split("\n"), (self.now or "").split("\n")
        if self.locked is None or self.now is None:
            yield from (f"- {line}" for line in before if self.locked is not None)
            yield from (f"+ {line}" for line in after if self.now is not None)
            return
        for line in [*difflib.unified_diff(before, after, lineterm="", n=_AROUND)][3:]:
            yield "  ..." if line.startswith("@@") else f"{line[0]} {line[1:]}"


@dataclass(frozen=True, slots=True)
class Difference:
    """One prompt: what became of it since it was locked."""

    name: str
    state: State
    locked: LockedPrompt | None
    now: LockedPrompt | None
    changes: tuple[Change, ...] = ()

    @property
    def step(self) -> str:
        """The step's name; behind it may stand which of its wordings or copies this is."""
        return self.name.partition("#")[0].partition("@")[0]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "state": self.state,
            "locked": self.locked.version if self.locked else None,
            "now": self.now.version if self.now else None,
            "changes": {one.part: {"locked": one.locked, "now": one.now} for one in self.changes},
        }


def differences(lock: Lock | None, now: Mapping[str, LockedPrompt], *, all_of_it: bool = True) -> list[Difference]:
    """Return every prompt with what became of it, by name.

    Args:
        lock: What was agreed to, None when there is no lock.
        now: The prompts of the code.
        all_of_it: Whether `now` is everything that the lock is about, so that what is not in it is gone.
    """
    locked: Mapping[str, LockedPrompt] = {} if lock is None else lock.prompts
    names = sorted({*now, *(locked if all_of_it else ())})
    return [_difference(name, locked.get(name), now.get(name)) for name in names]


def _difference(name: str, locked: LockedPrompt | None, now: LockedPrompt | None) -> Difference:
    if locked is None:
        return Difference(name, "new", None, now, compare(LockedPrompt(version="", computed=""), now))
    if now is None:
        return Difference(name, "gone", locked, None)
    if (locked.version, locked.computed) == (now.version, now.computed):
        return Difference(name, "locked", locked, now)
    return Difference(name, "changed", locked, now, compare(locked, now))


def compare(locked: LockedPrompt, now: LockedPrompt | None) -> tuple[Change, ...]:
    """Return the parts that differ, the wording first."""
    if now is None:
        return ()
    found = [
        _text("template", locked.template, now.template),
        _text("body", locked.body, now.body) if locked.body_hash != now.body_hash else None,
        _text("system", locked.system, now.system),
        _text("output", locked.output or None, now.output or None),
        _text("params", _pairs(locked.params), _pairs(now.params)),
        _text("examples", _examples(locked.examples), _examples(now.examples)),
        *_hashed("check", locked.checks, now.checks, locked, now),
        *_hashed("uses", locked.uses, now.uses, locked, now),
    ]
    changes = tuple(one for one in found if one is not None)
    if not changes and locked.computed != now.computed:
        changes = (Change("computed", locked.computed, now.computed),)
    if locked.version != now.version and locked.computed == now.computed:
        changes = (*changes, Change("version", locked.version, now.version))
    return changes


def _text(part: str, locked: str | None, now: str | None) -> Change | None:
    return None if locked == now else Change(part, locked, now)


def _pairs(table: Mapping[str, Any]) -> str | None:
    return "\n".join(f"{name} = {toml.value(one)}" for name, one in table.items()) or None


def _examples(examples: Sequence[tuple[str, str]]) -> str | None:
    return "\n".join(f"{given} -> {output}" for given, output in examples) or None


def _hashed(
    kind: str, locked: Mapping[str, str], now: Mapping[str, str], before: LockedPrompt, after: LockedPrompt
) -> Iterator[Change]:
    """Yield what has another hash, with its source where that shows the difference."""
    for name in sorted({*locked, *now}):
        if locked.get(name) == now.get(name):
            continue
        was = before.sources.get(name, locked.get(name)) if name in locked else None
        is_now = after.sources.get(name, now.get(name)) if name in now else None
        if was == is_now:  # a value that is computed: its line is the same, what came out is not
            was, is_now = f"{was}  # {locked.get(name)}", f"{is_now}  # {now.get(name)}"
        yield Change(f"{kind} {name}", was, is_now)
