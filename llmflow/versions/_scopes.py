"""Which names a function or class takes from outside of itself, by Python's own rules of scope.

The compiler knows them too, but its lists differ between versions: since 3.12 a comprehension is no scope of its own.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from llmflow.versions._normal import CodeNode, FunctionNode, annotation_of

__all__ = ["Chain", "Imported", "Reads", "reads_of"]

Chain: TypeAlias = tuple[str, ...]
"""A name and the attributes behind it: `("texts", "INTRO", "upper")`."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import in a body binds a name to: `module`, or what is called `name` in it."""

    module: str
    name: str | None = None
    level: int = 0


@dataclass(slots=True)
class Reads:
    """What a piece of code takes from outside.

    Attributes:
        free: The names that it does not bind itself, each with the attributes behind it.
        imports: What its own imports bind; names of these are among `free`.
        bound: Attributes read from its own first parameter, which for a method is its object.
        attributes: Every name behind a dot.
    """

    free: set[Chain] = field(default_factory=set[Chain])
    imports: dict[str, Imported] = field(default_factory=dict[str, Imported])
    bound: set[str] = field(default_factory=set[str])
    attributes: set[str] = field(default_factory=set[str])


def reads_of(node: CodeNode) -> Reads:
    """Return what a function, lambda or class takes from outside; a function's own decorators are not looked at."""
    found = Reads()
    around = _Scope(found)
    if isinstance(node, ast.ClassDef):
        around.class_definition(node)
    else:
        around.function(node, first=_first_parameter(node))
    found.free = around.free()
    return found


def _first_parameter(node: FunctionNode) -> str | None:
    parameters = (*node.args.posonlyargs, *node.args.args)
    return parameters[0].arg if parameters else None


class _Scope:
    """One scope: the names it binds and reads; what is free in the scopes inside it counts as read here."""

    def __init__(self, found: Reads, *, function: _Scope | None = None, of_class: bool = False) -> None:
        self.found = found
        self.of_class = of_class
        self.function_around = function or self
        self.first: str | None = None
        self.stored: set[str] = set()
        self.passed_on: set[str] = set()
        self.chains: set[Chain] = set()
        self.globals: set[Chain] = set()
        self.global_names: set[str] = set()

    def free(self) -> set[Chain]:
        """Return what comes from outside; what a class binds is not seen inside its methods."""
        bound: set[str] = set() if self.of_class else self.stored - self.passed_on - self.found.imports.keys()
        free = {one for one in self.chains if one[0] not in bound and one[0] not in self.global_names}
        return free | self.globals | {one for one in self.chains if one[0] in self.global_names}

    def take(self, inner: _Scope) -> None:
        """Count what is free in a scope inside this one as read here."""
        declared = {one for one in inner.chains if one[0] in inner.global_names} | inner.globals
        self.globals |= declared
        self.chains |= inner.free() - declared

    # -- reading -------------------------------------------------------------------------------------------------------

    def _add(self, chain: Chain) -> None:
        """Note what is read; in a class, what it has not bound yet comes from outside."""
        if not (self.of_class and chain[0] in self.stored):
            self.chains.add(chain)

    def read(self, node: Any) -> None:
        """Read a node, or a list of them."""
        if isinstance(node, list):
            for one in node:  # pyright: ignore[reportUnknownVariableType]
                self.read(one)
        elif isinstance(node, ast.AST):
            self._read(node)

    def _read(self, node: ast.AST) -> None:  # noqa: C901, PLR0912  # one case for each way Python has to bind a name
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                self._add((name,))
            case ast.Name(id=name):
                self.stored.add(name)
            case ast.Attribute():
                self._attribute(node)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self.stored.add(node.name)
                self.read(node.decorator_list)
                self.function(node)
            case ast.Lambda():
                self.function(node)
            case ast.ClassDef():
                self.stored.add(node.name)
                self.class_definition(node)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                self._comprehension(node)
            case ast.NamedExpr():
                self.function_around.stored.add(node.target.id)
                self.read(node.value)
            case ast.Import() | ast.ImportFrom():
                self._import(node)
            case ast.Global():
                self.global_names.update(node.names)
            case ast.Nonlocal():
                self.passed_on.update(node.names)
            case ast.AnnAssign():
                self._annotated(node)
            case ast.Assign():
                self.read(node.value)
                self.read(node.targets)
            case ast.AugAssign(target=ast.Name(id=name)):
                self._add((name,))
                self.stored.add(name)
                self.read(node.value)
            case _:
                self._bound_by_text(node)
                for child in ast.iter_child_nodes(node):
                    self._read(child)

    def _bound_by_text(self, node: ast.AST) -> None:
        """Take the names that stand as texts: of caught exceptions, of patterns, of type parameters."""
        match node:
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                self.stored.add(name)
            case ast.MatchMapping(rest=str(name)):
                self.stored.add(name)
            case _:
                pass

    def _attribute(self, node: ast.Attribute) -> None:
        names: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            names.append(inner.attr)
            inner = inner.value
        self.found.attributes.update(names)
        if not isinstance(inner, ast.Name):
            self.read(inner)
            return
        self._add((inner.id, *reversed(names)))
        if inner.id == self.function_around.first:
            self.found.bound.add(names[-1])

    def _annotated(self, node: ast.AnnAssign) -> None:
        self.read(node.value)
        if self.of_class:
            self.read(annotation_of(node.annotation))
        self.read(node.target)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for one in node.names:
            if isinstance(node, ast.ImportFrom):
                self.found.imports[one.asname or one.name] = Imported(node.module or "", one.name, node.level)
            elif one.asname is not None:
                self.found.imports[one.asname] = Imported(one.name)
            else:
                top = one.name.partition(".")[0]
                self.found.imports[top] = Imported(top)

    # -- scopes inside -------------------------------------------------------------------------------------------------

    def function(self, node: FunctionNode, *, first: str | None = None) -> None:
        """Read a function; its defaults belong to the scope around it, its annotations do nothing."""
        arguments = node.args
        self.read([*arguments.defaults, *arguments.kw_defaults])
        inner = _Scope(self.found)
        # An inner function or comprehension that does not bind the name again speaks of the same object.
        inner.first = first or self.function_around.first
        parameters = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
        own = {one.arg for one in parameters if one is not None}
        if first is None and inner.first in own:
            inner.first = None
        inner.stored |= own | _type_parameters(node)
        inner.read(node.body)
        self.take(inner)

    def class_definition(self, node: ast.ClassDef) -> None:
        """Read a class; what its body binds is not seen by its methods."""
        self.read(node.decorator_list)
        inner = _Scope(self.found, of_class=True)
        inner.read([*node.bases, *node.keywords])
        inner.read(node.body)
        hidden = _type_parameters(node)
        inner.chains = {one for one in inner.chains if one[0] not in hidden}
        self.take(inner)

    def _comprehension(self, node: Any) -> None:
        first, *others = node.generators
        self.read(first.iter)
        inner = _Scope(self.found, function=self.function_around)
        inner.read([first.target, *first.ifs, *others])
        inner.read([getattr(node, name) for name in ("elt", "key", "value") if hasattr(node, name)])
        self.take(inner)


def _type_parameters(node: Any) -> set[str]:
    """Return the names in the brackets of `def f[T]()` and `class C[T]`, which Python has since 3.12."""
    return {one.name for one in getattr(node, "type_params", ())}
