"""Which policies act on a step: the nearest declaration of a setting, every declaration of a limit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llmflow.errors import DefinitionError
from llmflow.policy._bands import Band
from llmflow.policy._policy import Off, Policy

__all__ = ["Declared", "check_policies", "kind_of", "resolve"]


def kind_of(policy: object) -> type[Any]:
    """Return the class of a policy, also when it is switched off."""
    return policy.policy if isinstance(policy, Off) else type(policy)


@dataclass(frozen=True, slots=True)
class Declared:
    """A policy and who supplied it."""

    policy: Any
    source: str
    """`step:triage`, `flow:support`, `runtime`, `plugin:llmflow-redact`, `default`."""
    plugin: str = ""
    """The distribution of a third party, empty for the author's and llmflow's own."""

    @property
    def kind(self) -> type[Any]:
        """The policy's class, also when it is switched off."""
        given: object = self.policy
        return given.policy if isinstance(given, Off) else type(given)

    @property
    def band(self) -> Band:
        """Where the policy stands."""
        return self.policy.band  # type: ignore[no-any-return]


def check_policies(policies: Iterable[object], owner: str) -> tuple[Any, ...]:
    """Return `policies` as a tuple, refusing what is not one and two of one kind.

    Raises:
        DefinitionError: Naming `owner`, the value, and what was probably meant.
    """
    if not isinstance(policies, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]  # a program may give one bare
        msg = f"{owner} is given {policies!r} as its policies; write a list: [{policies!r}]"
        raise DefinitionError(msg)
    checked: list[Any] = []
    kinds: set[type[Any]] = set()
    for policy in policies:
        kind = _kind(policy, owner)
        if kind in kinds and _stacking(kind) == "nearest":
            msg = f"{owner} has {kind.__name__} twice; keep one of them"
            raise DefinitionError(msg)
        kinds.add(kind)
        checked.append(policy)
    return tuple(checked)


def _kind(policy: object, owner: str) -> type[Any]:
    if isinstance(policy, Off):
        return policy.policy
    if isinstance(policy, type):
        msg = f"{owner} is given the class {policy.__name__}, not a policy; write {policy.__name__}()"
        raise DefinitionError(msg)
    if not isinstance(policy, Policy) or not isinstance(getattr(policy, "band", None), Band):
        msg = f"{owner} is given {policy!r}, which is not a policy: a policy has a `band` and a method `wrap(proceed, site)`"
        raise DefinitionError(msg)
    return type(policy)


def _stacking(kind: type[Any]) -> str:
    return getattr(kind, "stacking", "nearest")


def resolve(levels: Sequence[Sequence[Declared]], defaults: Sequence[Declared] = ()) -> tuple[Declared, ...]:
    """Return the policies that act, outermost first.

    Args:
        levels: Declarations from the nearest (the step) to the farthest (plugins).
        defaults: What is filled in, type by type, where no level says anything.
    """
    chosen: list[Declared] = []
    decided: set[type[Any]] = set()
    for level in levels:
        chosen.extend(one for one in level if one.kind not in decided and not isinstance(one.policy, Off))
        decided.update(_decided_by(level))
    declared = {one.kind for level in levels for one in level}
    chosen.extend(one for one in defaults if one.kind not in declared)
    return tuple(sorted(_each_once(chosen), key=lambda one: (one.band, one.plugin)))


def _each_once(chosen: Iterable[Declared]) -> Iterator[Declared]:
    """Leave out a limit that is met again: a request must not take two places of one bulkhead, or pay one pot twice."""
    met: list[tuple[object, Any]] = []
    for one in chosen:
        if _stacking(one.kind) == "all":
            place = one.source if getattr(one.kind, "per_place", True) else None
            pot = (getattr(one.policy, "name", None) or place, one.policy)
            if pot in met:
                continue
            met.append(pot)
        yield one


def _decided_by(level: Sequence[Declared]) -> Iterator[type[Any]]:
    """Yield the kinds that farther levels no longer have a say in."""
    for one in level:
        if isinstance(one.policy, Off) or _stacking(one.kind) == "nearest":
            yield one.kind
