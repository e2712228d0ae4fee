"""Finding the step that gave an answer in the flow that its run was of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from llmflow.graph import Flow
from llmflow.policy import kind_of
from llmflow.step import Step, read_signature

if TYPE_CHECKING:
    from llmflow.graph import Node
    from llmflow.journal import RecordedAnswer
    from llmflow.step import Unit

__all__ = ["inheriting", "step_in", "whole"]

_SELF = "self"


def step_in(unit: Unit[..., Any], past: RecordedAnswer) -> Step[..., Any] | None:
    """Return the step of an answer, as it stands in a step or flow; None when it is not there, or cannot be seen.

    The policies of the flows around it act on it as they do there, but one call at a time.
    """
    if isinstance(unit, Step):
        return whole(unit) if unit.name == past.name else None
    if not isinstance(unit, Flow) or unit.eager:
        return None
    nodes = [node for node in unit.graph().walk() if node.unit is not None]
    same = [node for node in nodes if isinstance(node.unit, Step) and node.unit.name == past.name]
    if same:
        return _at(next((node for node in same if _is_place(node.key, past.key)), same[0]))
    for node in nodes:
        if isinstance(node.unit, Flow) and (found := step_in(node.unit, past)) is not None:
            return inheriting(found, (*node.unit.policies, *_policies(node)))
    return None


def inheriting(step: Step[..., Any], policies: Iterable[Any]) -> Step[..., Any]:
    """Return a step with policies of what is around it, where it has none of their kind."""
    kinds = {kind_of(one) for one in step.policies}
    more: list[Any] = []
    for policy in policies:
        if kind_of(policy) not in kinds:
            kinds.add(kind_of(policy))
            more.append(policy)
    return step.with_(*more) if more else step


def _at(node: Node) -> Step[..., Any]:
    assert isinstance(node.unit, Step)
    return inheriting(whole(node.unit), _policies(node))


def _policies(node: Node) -> list[Any]:
    return [policy for scope in node.scope.path() for policy in scope.policies]


def _is_place(node: str, key: str) -> bool:
    return key == node or key.startswith(f"{node}[")


def whole(step: Step[..., Any]) -> Step[..., Any]:
    """Return a step that takes all of its arguments, as recorded inputs hold the fixed ones too; but for its object.

    It has no run id of its own: a replay is another run.
    """
    if not step.fixed and step.run_id is None:
        return step
    kept = {name: value for name, value in step.fixed.items() if name == _SELF}
    made = step.with_()
    signature = read_signature(step.function, kind="step", name=step.name)
    made.fixed, made.signature, made.run_id = kept, signature.without(kept) if kept else signature, None
    return made
