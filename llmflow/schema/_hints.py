"""Type hints of a function, also when they are strings and the classes they name are local."""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any, get_type_hints

from llmflow.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["local_namespace", "resolve_hints"]


def resolve_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the type hints of `function`, `Annotated` kept, strings evaluated where the function was written.

    Names are looked up as Python would have: in the functions and classes around the definition, then in its module.
    Call it while those are still running, that is in the decorator.

    Raises:
        DefinitionError: For a name that cannot be resolved.
    """
    try:
        return get_type_hints(function, localns=local_namespace(function), include_extras=True)
    except NameError as error:
        msg = (
            f"step {_name(function)!r}: {_culprit(function, error.name)} names {error.name!r}, which cannot be resolved"
        )
        problem = DefinitionError(msg)
        problem.add_note("Import or define it before the step, and not under `if TYPE_CHECKING:`.")
        raise problem from error
    except (TypeError, AttributeError, SyntaxError, ValueError) as error:
        msg = f"step {_name(function)!r}: its annotations cannot be read: {error}"
        raise DefinitionError(msg) from error


def local_namespace(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the names that the functions and classes around `function` can see, while they are still running."""
    names: dict[str, Any] = {}
    around = _enclosing(getattr(function, "__qualname__", ""))
    frame = inspect.currentframe() if around else None
    scopes: list[FrameType] = []
    while frame is not None:
        if frame.f_code.co_qualname in around and frame.f_globals is getattr(function, "__globals__", None):
            scopes.append(frame)
        frame = frame.f_back
    for scope in reversed(scopes):
        names.update(scope.f_locals)
    names.update(_closure(function))
    return names


def _closure(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the variables that the body shares with the functions around it."""
    if not inspect.isfunction(function):
        return {}
    names: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        # A cell stays empty until its variable is assigned, as that of a function defined further down.
        with contextlib.suppress(ValueError):
            names[name] = cell.cell_contents
    return names


def _enclosing(qualified_name: str) -> set[str]:
    """Return the qualified names of what is around: `a.<locals>.b` for `a.<locals>.b.<locals>.c`, and `a`."""
    parts = qualified_name.split(".")[:-1]
    prefixes = {".".join(parts[: end + 1]) for end in range(len(parts))}
    return {prefix for prefix in prefixes if not prefix.endswith("<locals>")}


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _culprit(function: Callable[..., Any], name: str | None) -> str:
    """Say which annotation mentions `name`."""
    annotations: dict[str, object] = getattr(function, "__annotations__", {})
    parameter = next((key for key, annotation in annotations.items() if str(name) in str(annotation)), None)
    return "the return annotation" if parameter in {"return", None} else f"the annotation of {parameter!r}"
