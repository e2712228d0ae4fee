"""What a call in a flow's body does with the values it is given, as far as the source says."""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from llmflow.graph._drive import EVENT_LOOPS, INSTEAD
from llmflow.graph._source import UNKNOWN, FunctionNode, Source, find_source
from llmflow.graph._taint import PLAIN, Env, Level, Taint, element, holder, join
from llmflow.step import Unit

if TYPE_CHECKING:
    from llmflow.graph._check import Checker

__all__ = ["Calls"]

_BLIND = (isinstance, issubclass, type, id, callable)
_KNOWN_RESULT = (len, str, int, float, bool, print, any, all, repr, hash, range, format, isinstance)
_ONE_OF = (next, max, min, getattr)
_STORES = {"append", "appendleft", "add", "insert", "extend", "update", "setdefault"}
_TAKES_ONE = {"pop", "popleft", "get", "setdefault"}
_CONTAINERS = {"builtins", "itertools", "collections", "functools"}
_DEEPEST = 25


class Calls:
    """The part of a `Checker` that looks into calls."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker

    def awaited(self, node: ast.expr, env: Env) -> Taint:
        """Return what awaiting an expression gives: a placeholder, unless it is a plain function that returns none."""
        origin = f"`await {ast.unparse(node)}`, line {node.lineno}"
        if not isinstance(node, ast.Call):
            self._checker.value(node, env)
            return Taint(Level.VALUE, origin)
        arguments = self._arguments(node, env)
        local = self._local(node, env)
        if local is not None:
            return self._enter_local(local, arguments, env)
        target = self._target(node)
        if _is_plain_function(target):
            return self._enter(node, target, arguments)
        self._check_arguments(node, target, arguments)
        return Taint(Level.VALUE, origin)

    def called(self, node: ast.Call, env: Env) -> Taint:
        """Return what a call gives."""
        arguments = self._arguments(node, env)
        local = self._local(node, env)
        if local is not None:
            return self._enter_local(local, arguments, env)
        target = self._target(node)
        if target is UNKNOWN:
            return self._method(node, arguments, env)
        if _is_ours(target):
            return PLAIN
        if _is_plain_function(target):
            if not arguments.any and not inspect.iscoroutinefunction(_function(target)):
                return PLAIN
            return self._enter(node, target, arguments)
        self._check_arguments(node, target, arguments)
        return _result(target, arguments.all)

    # -- what is called ------------------------------------------------------------------------------------------------

    def _target(self, node: ast.Call) -> Any:
        return self._checker.source.resolve(node.func)

    def _local(self, node: ast.Call, env: Env) -> FunctionNode | None:
        return env.functions.get(node.func.id) if isinstance(node.func, ast.Name) else None

    def _arguments(self, node: ast.Call, env: Env) -> _Arguments:
        if not isinstance(node.func, ast.Name | ast.Attribute):
            self._checker.value(node.func, env)
        positional = [(one, self._checker.value(one, env)) for one in node.args]
        named = [(one, self._checker.value(one.value, env)) for one in node.keywords]
        return _Arguments(positional, named)

    def _check_arguments(self, node: ast.Call, target: Any, arguments: _Arguments) -> None:
        """Raise for what takes a value without looking at it."""
        if not arguments.any or target is UNKNOWN or _is_ours(target):
            return
        if _is_one(target, _BLIND) and arguments.positional and arguments.positional[0][1].is_value:
            subject, taint = arguments.positional[0]
            raise self._checker.hidden(node, f"{target.__name__}()", subject, taint)
        if isinstance(target, type) and target.__module__ not in _CONTAINERS and not issubclass(target, BaseException):
            raise self._checker.fail(
                node,
                f"{target.__name__}(...) is constructed from {join(arguments.all).origin}, which is only known when the flow runs; "
                f"write `await build({target.__name__}, ...)`, construct it in a @task, or use @flow(eager=True)",
            )

    def _method(self, node: ast.Call, arguments: _Arguments, env: Env) -> Taint:
        """Return what a method of a variable gives; the methods that matter are those of containers."""
        if not isinstance(node.func, ast.Attribute):
            base = self._checker.value(node.func, env)
            return element(join((base, *arguments.all)))
        base = self._checker.value(node.func.value, env)
        name = node.func.attr
        if arguments.any and isinstance(node.func.value, ast.Name) and not base.is_value:
            env.add(node.func.value.id, join(arguments.all))
            if name in _STORES:
                return element(base) if name in _TAKES_ONE else PLAIN
        if base.level is Level.HOLDER:
            return element(base) if name in _TAKES_ONE else (PLAIN if name in {"keys", "index", "count"} else base)
        return element(join((base, *arguments.all)))

    # -- going into functions ------------------------------------------------------------------------------------------

    def _enter_local(self, node: FunctionNode, arguments: _Arguments, env: Env) -> Taint:
        """Check a function defined in the body with what it is given here."""
        if len(self._checker.callers) > _DEEPEST:
            return PLAIN
        inner = env.fork()
        inner.functions.pop(node.name, None)  # one that calls itself is seen once
        inner.variables.update(arguments.bound(node.args))
        return self._checker.function(node, inner)

    def _enter(self, node: ast.Call, target: Any, arguments: _Arguments) -> Taint:
        """Check another function with what it is given here."""
        function = _function(target)
        if inspect.iscoroutinefunction(function) and function.__module__.partition(".")[0] in EVENT_LOOPS:
            raise self._checker.fail(
                node,
                f"{function.__module__}.{function.__name__}() needs an event loop, and none runs while the flow is built; {INSTEAD}",
            )
        source = find_source(function)
        if source is None:
            return self._without_source(node, function, arguments)
        given = arguments.bound(source.node.args, skip=1 if isinstance(target, functools.partial | MethodType) else 0)
        key = (function.__code__, tuple(taint.level for taint in given.values()))
        memory = self._checker.memory.returns
        if key not in memory and len(self._checker.callers) < _DEEPEST:
            memory[key] = PLAIN  # for one that calls itself
            memory[key] = self._inner(node, source).function(source.node, Env(given))
        return memory.get(key, PLAIN)

    def _inner(self, node: ast.Call, source: Source) -> Checker:
        checker = self._checker
        callers = (*checker.callers, (checker.source, node))
        return type(checker)(checker.flow, source, checker.memory, callers)

    def _without_source(self, node: ast.Call, function: FunctionType, arguments: _Arguments) -> Taint:
        if not arguments.any:
            return Taint(Level.VALUE, f"{function.__name__}()") if inspect.iscoroutinefunction(function) else PLAIN
        raise self._checker.fail(
            node,
            f"{function.__name__}() is given {join(arguments.all).origin}, which is only known when the flow runs, and its source "
            f"cannot be read to see what it does with it; make it a @task, or use @flow(eager=True)",
        )


class _Arguments:
    """The arguments of a call."""

    def __init__(self, positional: list[tuple[ast.expr, Taint]], named: list[tuple[ast.keyword, Taint]]) -> None:
        self.positional = positional
        self._named = named
        self.all = [taint for _, taint in (*positional, *named)]
        self.any = any(self.all)

    def bound(self, parameters: ast.arguments, *, skip: int = 0) -> dict[str, Taint]:
        """Return what each parameter is given; `skip` of them are given something else."""
        ordered = [one.arg for one in (*parameters.posonlyargs, *parameters.args)][skip:]
        found = dict.fromkeys(
            [one.arg for one in (*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs)], PLAIN
        )
        rest: list[Taint] = []
        for position, (node, taint) in enumerate(self.positional):
            if isinstance(node, ast.Starred):
                rest.append(taint)
                found.update((name, element(taint)) for name in ordered[position:])
            elif position < len(ordered):
                found[ordered[position]] = taint
            else:
                rest.append(taint)
        extra = self._bind_named(found)
        if parameters.vararg is not None:
            found[parameters.vararg.arg] = holder(rest)
        if parameters.kwarg is not None:
            found[parameters.kwarg.arg] = holder(extra)
        return found

    def _bind_named(self, found: dict[str, Taint]) -> list[Taint]:
        """Bind what is given by name and return what no parameter takes."""
        extra: list[Taint] = []
        for keyword, taint in self._named:
            if keyword.arg is None:
                found.update((name, join((now, element(taint)))) for name, now in found.items())
                extra.append(taint)
            elif keyword.arg in found:
                found[keyword.arg] = taint
            else:
                extra.append(taint)
        return extra


def _is_one(target: Any, among: tuple[Any, ...]) -> bool:
    return any(target is one for one in among)


def _function(target: Any) -> Any:
    """Return the function behind a method."""
    if isinstance(target, MethodType):
        return _function(target.__func__)
    return target.func if isinstance(target, functools.partial) else target


def _is_method(target: Any) -> bool:
    """Whether it is a method as `Source.resolve` gives them: a function with its object."""
    return isinstance(target, functools.partial)


def _receiver(target: Any) -> Any:
    """Return the object whose method it is."""
    if (method := getattr(target, "args", None)) and _is_method(target):
        return method[0]
    return getattr(target, "__self__", None)


def _is_plain_function(target: Any) -> bool:
    return not _is_ours(target) and isinstance(_function(target), FunctionType)


def _is_ours(target: Any) -> bool:
    """Whether it is a step, task or flow, or one of llmflow's functions, which know placeholders."""
    if isinstance(target, Unit):
        return True
    owner = _receiver(target)
    module = getattr(_function(target), "__module__", None) or ""
    return isinstance(owner, Unit) or module == "llmflow" or module.startswith("llmflow.")


def _result(target: Any, taints: list[Taint]) -> Taint:
    """Return what a built-in function or class makes of its arguments."""
    if _is_one(target, _KNOWN_RESULT) or _is_one(target, _BLIND):
        return PLAIN
    if _is_one(target, _ONE_OF):
        return element(join(taints))
    if isinstance(target, type) or getattr(target, "__module__", None) == builtins.__name__:
        return holder(taints)
    return element(join(taints))
