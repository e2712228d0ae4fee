"""Reading a function once, when it is decorated."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from llmflow.errors import DefinitionError
from llmflow.schema import resolve_hints

__all__ = ["Signature", "check_name", "misfit", "origin", "read_signature"]


@dataclass(frozen=True, slots=True)
class Signature:
    """What a decorated function takes and returns."""

    inspected: inspect.Signature
    names: tuple[str, ...]
    hints: Mapping[str, Any]
    returns: Any
    is_async: bool
    positional: tuple[str, ...] = ()
    """All the parameters, when each may be given by position and none is special; empty otherwise."""
    defaults: Mapping[str, object] = field(default_factory=dict[str, object])

    def bind(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """Return the arguments by name, defaults included; raises TypeError as a plain call would."""
        if not kwargs and len(args) == len(self.positional):
            return dict(zip(self.positional, args, strict=True))
        bound = self.inspected.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    def without(self, fixed: Mapping[str, object]) -> Signature:
        """Return the signature that is left when some parameters are fixed.

        Those behind a gap become keyword-only, as a position would no longer say which is meant.
        """
        parameters: list[inspect.Parameter] = []
        keyword_only = False
        for name, parameter in self.inspected.parameters.items():
            if name in fixed:
                keyword_only = bool(parameters)
                continue
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) if keyword_only else parameter)
        return _signature(
            self.inspected.replace(parameters=parameters), self.hints, self.returns, is_async=self.is_async
        )

    @property
    def required(self) -> tuple[str, ...]:
        """Names of the parameters without a default."""
        return tuple(name for name, one in self.inspected.parameters.items() if one.default is inspect.Parameter.empty)


def check_name(name: object, function: object, *, kind: str) -> str:
    """Return what a decorated function is called: the name that was given, else its own."""
    if name is None:
        return getattr(function, "__name__", type(function).__name__)
    if not isinstance(name, str) or not name.strip():
        msg = f"@{kind}(name={name!r}): expected a text"
        raise DefinitionError(msg)
    return name


def misfit(value: object, hint: Any) -> str | None:
    """Say why `value` is none of what a type hint describes; None when it is, or when that cannot be told."""
    if hint is None:
        return None
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
    except PydanticUserError:
        return None  # a type pydantic knows nothing of
    try:
        adapter.validate_python(value)
    except ValidationError as exc:
        return exc.errors(include_url=False, include_input=False)[0]["msg"]
    return None


def origin(function: Callable[..., Any]) -> str:
    """Return `module:line` of a function, for errors that name two of them."""
    code = getattr(function, "__code__", None)
    return f"{function.__module__}:{code.co_firstlineno if code else '?'}"


def read_signature(function: object, *, kind: str, name: str, asynchronous: bool = False) -> Signature:
    """Return the signature of a function that is being decorated.

    Raises:
        DefinitionError: When it is not a plain function or coroutine function, takes `*args` or `**kwargs`, or a type
            hint cannot be resolved.
    """
    _check_function(function, kind=kind, name=name)
    assert callable(function)
    is_async = inspect.iscoroutinefunction(function)
    if asynchronous and not is_async:
        msg = f"{kind} {name!r} must be an `async def`: it awaits the steps it is made of"
        raise DefinitionError(msg)
    inspected = inspect.signature(function)
    _check_parameters(inspected, kind=kind, name=name)
    hints = resolve_hints(function)
    return _signature(inspected, hints, hints.get("return", inspect.Parameter.empty), is_async=is_async)


def _check_function(function: object, *, kind: str, name: str) -> None:
    found = _what_else(function)
    if found is not None:
        msg = f"@{kind} decorates a function with type hints, not {found}"
        raise DefinitionError(msg)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        msg = f"{kind} {name!r} is a generator; return the value instead of yielding (`.stream()` and `.map()` give several)"
        raise DefinitionError(msg)
    if name == "<lambda>":
        where = origin(cast("Callable[..., Any]", function))
        msg = f"@{kind} was given the lambda of {where}, which has no return annotation; write a function with `def`"
        raise DefinitionError(msg)


def _what_else(function: object) -> str | None:
    """Say what `function` is when it is not a plain function."""
    name = _named(function)
    if isinstance(function, functools.partial):
        return f"a functools.partial of {_named(function.func)}; decorate the function and fix arguments with `.partial(name=value)`"
    if isinstance(function, staticmethod | classmethod):
        kind = "staticmethod" if isinstance(function, staticmethod) else "classmethod"
        return f"the {kind} {name}; put @{kind} outside, above this decorator"
    if isinstance(function, type):
        return f"the class {function.__name__!r}; decorate a function that returns it"
    if not inspect.isfunction(function):
        return f"{function!r}; write a function that calls it"
    return None


def _named(function: object) -> str:
    return repr(getattr(function, "__name__", function))


def _check_parameters(signature: inspect.Signature, *, kind: str, name: str) -> None:
    for parameter in signature.parameters.values():
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            msg = f"{kind} {name!r} takes {parameter}; name every parameter, or take one list or dict"
            raise DefinitionError(msg)
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            msg = f"{kind} {name!r}: parameter {parameter.name!r} is positional-only; its body is called by name, so remove the '/'"
            raise DefinitionError(msg)


def _signature(inspected: inspect.Signature, hints: Mapping[str, Any], returns: object, *, is_async: bool) -> Signature:
    parameters = inspected.parameters
    plain = all(one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for one in parameters.values())
    return Signature(
        inspected=inspected,
        names=tuple(parameters),
        hints=hints,
        returns=returns,
        is_async=is_async,
        positional=tuple(parameters) if plain else (),
        defaults={n: p.default for n, p in parameters.items() if p.default is not inspect.Parameter.empty},
    )
