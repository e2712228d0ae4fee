"""Reading a return annotation: what it is called, what is behind its wrappings, what cannot be a schema."""

from __future__ import annotations

import inspect
import re
from enum import Enum
from typing import Annotated, Any, Literal, Never, NewType, NoReturn, TypeVar, get_args, get_origin

from pydantic import BaseModel

from llmflow.errors import DefinitionError

__all__ = ["display", "identifier", "is_choice", "refuse", "unwrap"]

_NOTHING = (None, type(None), NoReturn, Never)


def unwrap(annotation: Any) -> Any:
    """Return what is inside `Annotated`, a `type` alias or a `NewType`."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif type(annotation).__name__ == "TypeAliasType" and not get_args(annotation):
            annotation = annotation.__value__
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        else:
            return annotation


def refuse(annotation: Any, *, step: str) -> None:
    """Raise for an annotation that says nothing about the answer.

    Raises:
        DefinitionError: For a missing annotation, `Any`, `object`, `None`, `NoReturn`, a TypeVar or bare `BaseModel`.
    """
    inner = unwrap(annotation)
    if annotation is inspect.Signature.empty:
        reason = "has no return annotation"
    elif inner in (Any, object, BaseModel) or isinstance(inner, TypeVar):
        reason = f"returns {display(annotation)}, which says nothing about the answer"
    elif inner in _NOTHING:
        reason = f"returns {display(annotation)}, but a step returns the model's answer"
    else:
        return
    msg = f"step {step!r} {reason}; annotate what it returns, such as `-> str` or a pydantic model"
    raise DefinitionError(msg)


def is_choice(annotation: Any) -> bool:
    """Tell whether the value is one of a fixed set: a `Literal` or an `Enum`."""
    inner = unwrap(annotation)
    return get_origin(inner) is Literal or (isinstance(inner, type) and issubclass(inner, Enum))


def display(annotation: Any) -> str:
    """Return the annotation as its author wrote it, without module names."""
    if annotation is None or annotation is type(None):
        return "None"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return display(arguments[0])
    if origin is Literal:
        return f"Literal[{', '.join(repr(value) for value in arguments)}]"
    if origin is not None and arguments:
        return _display_generic(origin, arguments)
    if annotation is Ellipsis:
        return "..."
    return getattr(annotation, "__name__", None) or str(annotation)


def _display_generic(origin: Any, arguments: tuple[Any, ...]) -> str:
    inside = [display(argument) for argument in arguments]
    name: str = getattr(origin, "__name__", str(origin))
    if name in {"Union", "UnionType"}:
        return " | ".join(inside)
    return f"{name}[{', '.join(inside)}]"


def identifier(name: str) -> str:
    """Return `name` in the letters that providers allow in the name of a tool or schema."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:64] or "Output"
