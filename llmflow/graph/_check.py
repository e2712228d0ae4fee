"""Finding in the source what Python hides from a placeholder.

A placeholder notices most of what is done to it, because Python calls one of its methods. It never hears of `is`, of
`match` on its shape, of `type()`, of a constructor that just stores it, of a `try` whose step cannot fail yet, or of a
`with` that has ended long before the step runs. The body, and every function it gives such a value to, is searched for
these before it is traced.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any, cast

from llmflow.errors import DefinitionError
from llmflow.graph._calls import Calls
from llmflow.graph._source import FunctionNode, Source, find_source
from llmflow.graph._taint import (
    PLAIN,
    Env,
    Level,
    Taint,
    element,
    holder,
    join,
    own_nodes,
    pairs,
    parameter_names,
    root_of,
)
from llmflow.step import Unit

__all__ = ["Closure", "check_source"]

_EAGER = "or use @flow(eager=True)"
_WAYS_OUT = f"decide it in a @task, with when() or switch(), {_EAGER}"


def check_source(function: Callable[..., Any], flow: str, parameters: Sequence[str], origin: str) -> str:
    """Raise for what would go wrong unnoticed if the function were traced; return where its result comes from.

    Raises:
        DefinitionError: Naming the line, and also when the source cannot be read.
    """
    source = find_source(function)
    if source is None:
        msg = (
            f"flow {flow!r} ({origin}): its source cannot be read, as in a REPL, with exec, or when the file changed after the import; "
            f"a flow is checked before it is traced, so put it into a file, {_EAGER}"
        )
        raise DefinitionError(msg)
    names = parameter_names(source.node.args)
    given = {name: Taint(Level.VALUE, f"parameter {name!r}") for name in (*parameters, *names)}
    for extra in (source.node.args.vararg, source.node.args.kwarg):  # the body is wrapped by a decorator
        if extra is not None:
            given[extra.arg] = Taint(Level.HOLDER, f"parameter {extra.arg!r}", container=True)
    Checker(flow, source, Memory(), ()).function(source.node, Env(given))
    returns = [one for one in own_nodes(source.node) if isinstance(one, ast.Return)]
    return source.location(returns[0] if len(returns) == 1 else source.node)


@dataclass(frozen=True, slots=True)
class Closure:
    """A lambda or a function defined in a body, with what it sees."""

    node: FunctionNode | ast.Lambda
    checker: Checker
    env: Env


class Memory:
    """What is known about the functions that were looked at, so that each is looked at once for each use."""

    def __init__(self) -> None:
        self.returns: dict[tuple[object, ...], tuple[Taint, dict[str, Taint]]] = {}
        self.running: set[int] = set()


class Checker:
    """Walks through one function in the order in which it runs, keeping track of what its variables may hold."""

    def __init__(self, flow: str, source: Source, memory: Memory, callers: tuple[tuple[Source, ast.AST], ...]) -> None:
        self.flow = flow
        self.source = source
        self.memory = memory
        self.callers = callers
        self.returned: list[Taint] = []
        self.calls = Calls(self)

    def function(self, node: FunctionNode, env: Env) -> Taint:
        """Check a body and return what it returns."""
        outer, self.returned = self.returned, []
        self.block(node.body, env)
        result, self.returned = join(self.returned), outer
        return result

    def fail(self, node: ast.AST, message: str) -> DefinitionError:
        """Return the error for a piece of the source."""
        lines = [*self.callers, (self.source, node)]
        own = [source.location(one) for source, one in lines if source.package == lines[0][0].package]
        others = [source.location(one) for source, one in lines if source.location(one) != own[-1]]
        through = f" (through {', '.join(others)})" if others else ""
        return DefinitionError(f"{own[-1]}: flow {self.flow!r}: {message}{through}")

    # -- statements ----------------------------------------------------------------------------------------------------

    def block(self, statements: Sequence[ast.stmt], env: Env) -> None:
        """Check statements one after the other."""
        for statement in statements:
            self._statement(statement, env)

    def _statement(self, node: ast.stmt, env: Env) -> None:  # noqa: C901, PLR0912  # one case for each kind of statement
        match node:
            case ast.Assign(targets, value):
                for target in targets:
                    self._assign(target, value, env)
            case ast.AnnAssign(target, _, ast.expr() as value):
                self._assign(target, value, env)
            case ast.AugAssign(target, _, value):
                added, now = self.value(value, env), self._current(target, env)
                if now.container and isinstance(target, ast.Name):  # += of a list changes it for all who have it
                    env.add(target.id, added)
                else:
                    self._bind(target, join((added, now)), env)
            case ast.Return(ast.expr() as value):
                self.returned.append(self.value(value, env))
            case ast.If(test, body, orelse):
                self.value(test, env)
                self._either(env, body, orelse)
            case ast.For(target, iterable, body, orelse):
                self._loop(target, self.value(iterable, env), body, env, iterable)
                self.block(orelse, env)
            case ast.While(test, body, orelse):
                self.value(test, env)
                self._loop(None, PLAIN, body, env)
                self.value(test, env)
                self.block(orelse, env)
            case ast.Try() | ast.TryStar():
                self._try(node, env)
            case ast.With(items, body):
                self._with(node, items, body, env)
            case ast.AsyncFor() | ast.AsyncWith():
                word = "async for" if isinstance(node, ast.AsyncFor) else "async with"
                raise self.fail(node, f"`{word}` needs real values; fan out with .map(), do it in a @task, {_EAGER}")
            case ast.Match(subject, arms):
                self._match(node, subject, arms, env)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                env.functions[node.name] = node
                self.function(node, self._inside(node, env))
            case ast.Import() | ast.ImportFrom():
                for name, found in self.source.imported(node).items():
                    env.variables[name] = Taint(targets=(found,))
            case ast.ClassDef() | ast.Global() | ast.Nonlocal():
                pass
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self.value(child, env)

    def _either(self, env: Env, *branches: Sequence[ast.stmt]) -> None:
        """Check blocks of which one runs."""
        forks = [env.fork() for _ in branches]
        for fork, statements in zip(forks, branches, strict=True):
            self.block(statements, fork)
        merged = forks[0]
        merged.merge(*forks[1:])
        env.variables, env.functions = merged.variables, merged.functions

    def _loop(
        self,
        target: ast.expr | None,
        iterable: Taint,
        body: Sequence[ast.stmt],
        env: Env,
        over: ast.expr | None = None,
    ) -> None:
        """Check a body that runs any number of times; what it leaves behind, it may find the next time."""
        for _ in Level:  # a variable can become less known no more often than there are levels
            fork = env.fork()
            if target is not None:
                self._bind(target, element(iterable), fork)
                if over is not None:
                    self._alias(target, over, fork)
            self.block(body, fork)
            env.merge(fork)

    def _try(self, node: ast.Try | ast.TryStar, env: Env) -> None:
        if any(isinstance(one, ast.Await) for one in own_nodes(node)):
            raise self.fail(
                node,
                f"`try` around an `await` has no effect: the step runs later, when the block has been left; "
                f"catch its failure with or_else(call, value_or_call), handle it in a @task, {_EAGER}",
            )
        self.block(node.body, env)
        self._either(env, [], *(handler.body for handler in node.handlers))
        self.block([*node.orelse, *node.finalbody], env)

    def _with(self, node: ast.With, items: Sequence[ast.withitem], body: Sequence[ast.stmt], env: Env) -> None:
        if any(isinstance(one, ast.Await) for statement in body for one in (statement, *own_nodes(statement))):
            raise self.fail(
                node,
                f"`with` around an `await` has no effect: the step runs later, when the block has been left; "
                f"put the block around the call of the flow, or into a @task, {_EAGER}",
            )
        for item in items:
            taint = self.value(item.context_expr, env)
            if taint.is_value:
                raise self.hidden(node, "`with`", item.context_expr, taint)
            if item.optional_vars is not None:
                self._bind(item.optional_vars, taint, env)
        self.block(body, env)

    def _match(self, node: ast.Match, subject: ast.expr, arms: Sequence[ast.match_case], env: Env) -> None:
        taint = self.value(subject, env)
        if taint:
            raise self.hidden(node, "`match`", subject, taint)
        for arm in arms:
            if arm.guard is not None:
                self.value(arm.guard, env)
        self._either(env, *(arm.body for arm in arms), [])

    def hidden(self, node: ast.AST, construct: str, subject: ast.expr, taint: Taint) -> DefinitionError:
        """Return the error for a construct that a placeholder does not notice."""
        text = ast.unparse(subject)
        known = "" if taint.origin in (text, f"parameter {text!r}") else f" (from {taint.origin})"
        return self.fail(
            node, f"{construct} needs a real value, but `{text}`{known} is only known when the flow runs; {_WAYS_OUT}"
        )

    # -- assignments ---------------------------------------------------------------------------------------------------

    def _assign(self, target: ast.expr, value: ast.expr, env: Env) -> None:
        written = pairs(target, value)
        if written is None:
            self._bind(target, self.value(value, env), env)
            self._alias(target, value, env)
            return
        taints = [self.value(one, env) for _, one in written]
        for (one, _), taint in zip(written, taints, strict=True):
            self._bind(one, taint, env)
        for one, part in written:
            self._alias(one, part, env)

    def _alias(self, target: ast.expr, value: ast.expr, env: Env) -> None:
        """Note that what the target is now may be part of what the variables in the value are."""
        others = [name for name in self._shared(value) if name in env.variables]
        if root := root_of(target):
            env.alias(root, others)
        elif isinstance(target, ast.Tuple | ast.List):
            for one in target.elts:
                self._alias(one, value, env)

    def _shared(self, value: ast.expr) -> list[str]:
        """Return the variables whose objects an expression may give; what llmflow and the built-ins give is new."""
        if isinstance(value, ast.Name):
            return [value.id]
        if isinstance(value, ast.Await | ast.Constant | ast.JoinedStr | ast.Compare | ast.Lambda):
            return []
        if isinstance(value, ast.Call) and not isinstance(value.func, ast.Attribute):
            found = self.source.resolve(value.func)
            if str(getattr(found, "__module__", None)).partition(".")[0] in ("builtins", "llmflow", "itertools"):
                return []
        if isinstance(value, ast.Subscript):
            return self._shared(value.value)
        return [
            name for child in ast.iter_child_nodes(value) if isinstance(child, ast.expr) for name in self._shared(child)
        ]

    def _bind(self, target: ast.expr, taint: Taint, env: Env) -> None:
        match target:
            case ast.Name(name):
                if taint and name in self.source.global_names:
                    raise self.fail(
                        target,
                        f"`{name}` is a global variable, and the flow runs many times; return the value, {_EAGER}",
                    )
                env.variables[name] = taint
                env.functions.pop(name, None)
                for other in env.aliases.pop(name, ()):
                    env.aliases.get(other, set()).discard(name)
            case ast.Tuple(targets) | ast.List(targets):
                for one in targets:
                    self._bind(one, element(taint), env)
            case ast.Starred(inner):
                self._bind(inner, holder((taint,)), env)
            case ast.Subscript(base) | ast.Attribute(base):
                self.value(base, env)
                root = root_of(base)
                if root is not None:
                    env.add(root, taint)
                elif taint:
                    raise self.hidden(target, "an assignment to what is no local variable", base, taint)
            case _:
                pass

    def _current(self, target: ast.expr, env: Env) -> Taint:
        return env.variables.get(target.id, PLAIN) if isinstance(target, ast.Name) else PLAIN

    def _inside(self, node: FunctionNode, env: Env) -> Env:
        """Return what a function defined in the body sees: its surroundings, without what its parameters hide."""
        inner = env.fork()
        for name in parameter_names(node.args):
            inner.variables[name] = PLAIN
        return inner

    # -- expressions ---------------------------------------------------------------------------------------------------

    def value(self, node: ast.expr, env: Env) -> Taint:  # noqa: C901, PLR0911  # one case for each kind of expression
        """Check an expression and return what it gives."""
        match node:
            case ast.Name(name):
                return self._named(node, name, env)
            case ast.Attribute(base):
                inside = element(self.value(base, env))
                return Taint(inside.level, inside.origin, targets=self._resolved(node))
            case ast.Subscript(base, index):
                inside = self.value(base, env)
                self.value(index, env)
                return inside if isinstance(index, ast.Slice) else element(inside)
            case ast.Await(inner):
                return self.calls.awaited(inner, env)
            case ast.Call():
                return self.calls.called(node, env)
            case ast.Compare(left, operators, rights):
                self._compare(node, [left, *rights], operators, env)
                return PLAIN
            case ast.IfExp(test, body, orelse):
                self.value(test, env)
                return join((self.value(body, env), self.value(orelse, env)))
            case ast.NamedExpr(target, inner):
                taint = self.value(inner, env)
                self._bind(target, taint, env)
                self._alias(target, inner, env)
                return taint
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                return self._comprehension(node, env)
            case ast.Lambda(arguments, result):
                lambda_env = env.fork()
                lambda_env.variables.update((name, PLAIN) for name in parameter_names(arguments))
                self.value(result, lambda_env)
                return Taint(targets=(Closure(node, self, env),))
            case _:
                return self._compound(node, env)

    def _named(self, node: ast.expr, name: str, env: Env) -> Taint:
        if name in env.functions:
            return Taint(targets=(Closure(env.functions[name], self, env),))
        if name in env.variables:
            return env.variables[name]
        return Taint(targets=self._resolved(node))

    def _resolved(self, node: ast.expr) -> tuple[Any, ...]:
        """Return the function or unit that a name stands for, or those in a dict or list of the module."""
        found: Any = self.source.resolve(node)
        if type(found) is dict:
            table: dict[Any, Any] = found  # pyright: ignore[reportUnknownVariableType]  # whatever the module holds
            inside = list(table.values())
        else:
            inside = list(cast("list[Any]", found)) if type(found) in (list, tuple) else [found]
        return tuple(inside) if inside and all(isinstance(one, Unit | FunctionType) for one in inside) else ()

    def _compound(self, node: ast.expr, env: Env) -> Taint:
        """Check an expression that is made of others and nothing else."""
        taints = [self.value(child, env) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
        match node:
            case ast.Dict(keys, values):
                for key in keys:
                    if key is not None:
                        self.value(key, env)
                return holder([self.value(one, env) for one in values])
            case ast.List() | ast.Tuple() | ast.Set():
                return holder(taints)
            case ast.BoolOp() | ast.BinOp() | ast.Starred():
                return join(taints)
            case _:
                return PLAIN

    def _compare(self, node: ast.expr, operands: Sequence[ast.expr], operators: Sequence[ast.cmpop], env: Env) -> None:
        taints = [self.value(one, env) for one in operands]
        for position, operator in enumerate(operators):
            if not isinstance(operator, ast.Is | ast.IsNot | ast.In | ast.NotIn):
                continue
            for one in (position, position + 1):
                if taints[one].is_value:
                    word = {ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in"}[type(operator)]
                    raise self.hidden(node, f"`{word}`", operands[one], taints[one])

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp, env: Env) -> Taint:
        inner = env.fork()
        for generator in node.generators:
            if generator.is_async:
                raise self.fail(node, f"`async for` needs real values; fan out with .map(), do it in a @task, {_EAGER}")
            self._bind(generator.target, element(self.value(generator.iter, inner)), inner)
            for condition in generator.ifs:
                self.value(condition, inner)
        made = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        return holder([self.value(one, inner) for one in made])
