"""What a call in a flow's body does with the values it is given, as far as the source says."""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
from collections import deque
from types import FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, NewType

from llmflow.graph._drive import EVENT_LOOPS, INSTEAD
from llmflow.graph._source import UNKNOWN, FunctionNode, Source, find_source
from llmflow.graph._taint import (
    PLAIN,
    Env,
    Level,
    Taint,
    element,
    holder,
    join,
    own_nodes,
    parameter_names,
    root_of,
)
from llmflow.step import Unit

if TYPE_CHECKING:
    from llmflow.graph._check import Checker, Closure

__all__ = ["Calls"]

_BLIND = (isinstance, issubclass, type, id, callable)
_KNOWN_RESULT = (len, str, int, float, bool, print, any, all, repr, hash, range, format, isinstance)
_ONE_OF = (next, max, min, getattr)
_STORES = {"append", "appendleft", "add", "insert", "extend", "update", "setdefault"}
_TAKES_ONE = {"pop", "popleft", "get", "setdefault"}
_CONTAINERS = {"builtins", "itertools", "collections"}
_CALLS_BACK = {"map", "filter", "starmap", "takewhile", "dropwhile", "filterfalse", "groupby", "accumulate"}
_METHODS = {
    *_STORES,
    *_TAKES_ONE,
    "appendleft",
    "extendleft",
    "popitem",
    "keys",
    "values",
    "items",
    "index",
    "count",
    "copy",
    "clear",
    "remove",
    "discard",
    "union",
    "reverse",
}
_HARMLESS = (
    *_BLIND,
    *_KNOWN_RESULT,
    *_ONE_OF,
    hasattr,
    iter,
    sorted,
    reversed,
    sum,
    abs,
    round,
    divmod,
    pow,
    chr,
    ord,
    bin,
    hex,
)
_GLOBAL_CONTAINERS = (list, dict, set, deque)
_LOOK_AT_ALL = {"_pickle", "_json", "math", "binascii", "zlib", "_struct", "time"}
_CONFIGURES = {"partial", "with_"}
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
        target = self._target(node, env)
        if target is UNKNOWN:
            return self._unknown(node, arguments, env, Taint(Level.VALUE, origin))
        return self._one(node, target, arguments, env, Taint(Level.VALUE, origin))

    def called(self, node: ast.Call, env: Env) -> Taint:
        """Return what a call gives."""
        arguments = self._arguments(node, env)
        local = self._local(node, env)
        if local is not None:
            return self._enter_local(local, arguments, env)
        target = self._target(node, env)
        if target is UNKNOWN:
            return self._unknown(node, arguments, env, None)
        return self._one(node, target, arguments, env, None)

    def _one(self, node: ast.Call, target: Any, arguments: _Arguments, env: Env, awaited: Taint | None) -> Taint:
        """Return what one of the things that may be called gives."""
        if _is_ours(target):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            configured = Taint(targets=(_receiver(target),)) if name in _CONFIGURES else PLAIN
            return awaited or configured
        if _is_plain_function(target):
            if awaited is None and not arguments.any and not inspect.iscoroutinefunction(_function(target)):
                return PLAIN
            return self._enter(node, target, arguments, env)
        self._check_arguments(node, target, arguments)
        return awaited or _result(target, arguments.all)

    def _unknown(self, node: ast.Call, arguments: _Arguments, env: Env, awaited: Taint | None) -> Taint:
        """Return what a call gives whose function is no name of the module."""
        if isinstance(node.func, ast.Attribute):
            base = self._checker.value(node.func.value, env)
            if base.targets and not base.container and all(isinstance(one, Unit) for one in base.targets):
                return awaited or (Taint(targets=base.targets) if node.func.attr in _CONFIGURES else PLAIN)
            if type(self._checker.source.resolve(node.func.value)) in _GLOBAL_CONTAINERS:
                base = Taint(base.level, base.origin, container=True, targets=base.targets)
            if awaited is not None and any(isinstance(one, Unit) for given in arguments.all for one in given.targets):
                steps = Taint(Level.VALUE, "a step, whose value")
                self._refuse_unknown(node, arguments, steps)  # it may have a `try` around it
            found = self._method(node, base, arguments, env)
            return awaited or found
        callee = self._checker.value(node.func, env)
        if not callee.targets or callee.is_value:
            if not callee.is_value:
                self._refuse_unknown(node, arguments, callee)
            return awaited or element(join((callee, *arguments.all)))
        results: list[Taint] = []
        for target in callee.targets:
            if hasattr(target, "checker"):
                results.append(self._enter_closure(target, arguments))
            else:
                results.append(self._one(node, target, arguments, env, awaited))
        return join(results)

    def _refuse_unknown(self, node: ast.Call, arguments: _Arguments, callee: Taint) -> None:
        """Raise when something that is not known yet is given to what nobody can look into."""
        given = join((callee, *arguments.all))
        if given:
            raise self._checker.fail(
                node,
                f"`{ast.unparse(node.func)}` is given {given.origin}, which is only known when the flow runs, and what it calls cannot "
                f"be told from the source to see what it does with it; call a function of a module, make it a @task, "
                f"or use @flow(eager=True)",
            )

    # -- what is called ------------------------------------------------------------------------------------------------

    def _target(self, node: ast.Call, env: Env) -> Any:
        found = self._checker.source.resolve(node.func)
        if found is not UNKNOWN:
            return found
        match node.func:
            case ast.Name(name) if name in env.variables:
                return _only(env.variables[name])
            case ast.Attribute(ast.Name(name), attribute) if name in env.variables:
                owner = _only(env.variables[name])
                return getattr(owner, attribute, UNKNOWN) if isinstance(owner, ModuleType) else UNKNOWN
            case _:
                return UNKNOWN

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
        if isinstance(target, NewType) or _is_one(target, _HARMLESS):
            key = next((taint for one, taint in arguments.named if one.arg == "key"), None)
            if key is not None:
                self._refuse_unknown(node, arguments, PLAIN)
            return
        if getattr(target, "__module__", None) in _LOOK_AT_ALL:
            return
        if not isinstance(target, type) or target.__name__ in _CALLS_BACK:
            self._refuse_unknown(node, arguments, PLAIN)
        if isinstance(target, type) and target.__module__ not in _CONTAINERS and not issubclass(target, BaseException):
            raise self._checker.fail(
                node,
                f"{target.__name__}(...) is constructed from {join(arguments.all).origin}, which is only known when the flow runs; "
                f"write `await build({target.__name__}, ...)`, construct it in a @task, or use @flow(eager=True)",
            )

    def _method(self, node: ast.Call, base: Taint, arguments: _Arguments, env: Env) -> Taint:
        """Return what a method of a variable gives; the methods that matter are those of containers."""
        assert isinstance(node.func, ast.Attribute)
        name = node.func.attr
        if base.is_value and not base.container:
            return element(join((base, *arguments.all)))  # a placeholder, which refuses
        if isinstance(node.func.value, ast.Constant | ast.JoinedStr):
            return PLAIN  # a text, which looks at what it is given
        if not base.container or name not in _METHODS:
            self._refuse_unknown(node, arguments, base)
        if name in _STORES and (root := root_of(node.func.value)) is not None and base.container:
            env.add(root, join(arguments.all))
            return element(join((base, *arguments.all))) if name in _TAKES_ONE else PLAIN
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
        for name in parameter_names(node.args):
            inner.aliases.pop(name, None)
            inner.stored.pop(name, None)
        before = dict(inner.stored)
        result = self._checker.function(node, inner)
        outer = {one for child in own_nodes(node) if isinstance(child, ast.Nonlocal) for one in child.names}
        for name in outer & set(inner.variables):
            env.variables[name] = join((env.variables.get(name, PLAIN), inner.variables[name]))
        own = set(parameter_names(node.args))
        for name, taint in inner.stored.items():
            if name not in own and before.get(name) is not taint and name in env.variables:
                env.add(name, taint)
        self._give_back(inner.stored, arguments, node.args, 0, env)
        return result

    def _give_back(
        self, stored: dict[str, Taint], arguments: _Arguments, parameters: ast.arguments, skip: int, env: Env
    ) -> None:
        """Note for the caller what a function has put into what it was given."""
        for name, given in arguments.nodes(parameters, skip=skip):
            if name in stored and (root := root_of(given)) is not None and root in env.variables:
                env.add(root, stored[name])

    def _enter_closure(self, closure: Closure, arguments: _Arguments) -> Taint:
        checker, running = closure.checker, self._checker.memory.running
        if id(closure.node) in running:
            return PLAIN
        running.add(id(closure.node))
        try:
            if not isinstance(closure.node, ast.Lambda):
                return checker.calls._enter_local(closure.node, arguments, closure.env)  # noqa: SLF001  # of the same class
            inner = closure.env.fork()
            inner.variables.update(arguments.bound(closure.node.args))
            return checker.value(closure.node.body, inner)
        finally:
            running.discard(id(closure.node))

    def _enter(self, node: ast.Call, target: Any, arguments: _Arguments, env: Env) -> Taint:
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
        skip = 1 if isinstance(target, functools.partial | MethodType) else 0
        given = arguments.bound(source.node.args, skip=skip)
        key = (function, *((taint.level, taint.container, *map(id, taint.targets)) for taint in given.values()))
        memory = self._checker.memory.returns
        if key not in memory and len(self._checker.callers) < _DEEPEST:
            memory[key] = PLAIN, {}  # for one that calls itself
            inner = Env(given)
            memory[key] = self._inner(node, source).function(source.node, inner), inner.stored
        result, stored = memory.get(key, (PLAIN, {}))
        self._give_back(stored, arguments, source.node.args, skip, env)
        return result

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
        self.named = named
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

    def nodes(self, parameters: ast.arguments, *, skip: int = 0) -> list[tuple[str, ast.expr]]:
        """Return what is written for each parameter."""
        ordered = [one.arg for one in (*parameters.posonlyargs, *parameters.args)][skip:]
        rest = parameters.vararg.arg if parameters.vararg is not None else ""
        found = [
            (ordered[position] if position < len(ordered) else rest, node)
            for position, (node, _) in enumerate(self.positional)
        ]
        return [*found, *((one.arg, one.value) for one, _ in self.named if one.arg is not None)]

    def _bind_named(self, found: dict[str, Taint]) -> list[Taint]:
        """Bind what is given by name and return what no parameter takes."""
        extra: list[Taint] = []
        for keyword, taint in self.named:
            if keyword.arg is None:
                found.update((name, join((now, element(taint)))) for name, now in found.items())
                extra.append(taint)
            elif keyword.arg in found:
                found[keyword.arg] = taint
            else:
                extra.append(taint)
        return extra


def _only(taint: Taint) -> Any:
    """Return the one thing that a variable can be, if it is one that code of a module made."""
    if len(taint.targets) != 1 or taint.container or hasattr(taint.targets[0], "checker"):
        return UNKNOWN
    return taint.targets[0]


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
    if isinstance(target, type) and target.__module__ not in _CONTAINERS:
        return PLAIN
    if isinstance(target, type) or getattr(target, "__module__", None) == builtins.__name__:
        return holder(taints)
    return element(join(taints))
