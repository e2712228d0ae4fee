"""Going further into an operand: a field or an item of where a value comes from."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from llmflow.graph._access import Unfit
from llmflow.graph._ir import Constant, Input, Operand, Ref, Structure

__all__ = ["PathStep", "descend"]

PathStep: TypeAlias = tuple[Literal["attr", "item"], Any]


def descend(operand: Operand, *steps: PathStep) -> Operand:
    """Return the operand for something inside another one.

    Raises:
        Unfit: When the operand is known already and has no such thing in it.
    """
    for step in steps:
        operand = _one(operand, step)
    return operand


def _one(operand: Operand, step: PathStep) -> Operand:
    match operand:
        case Ref(node, path):
            return Ref(node, (*path, step))
        case Input(name, path):
            return Input(name, (*path, step))
        case Constant(value):
            return Constant(_known(value, step))
        case Structure(kind, items, keys):
            inside: Any = dict(zip(keys, items, strict=True)) if kind is dict else items
            return _known(inside, step)  # type: ignore[no-any-return]  # what a structure consists of are operands


def _known(value: Any, step: PathStep) -> Any:
    kind, key = step
    try:
        return getattr(value, key) if kind == "attr" else value[key]
    except (AttributeError, LookupError, TypeError) as exc:
        msg = f"it is known while the flow is built, and reading {key!r} of it raises {type(exc).__name__}: {exc}"
        raise Unfit(msg) from exc
