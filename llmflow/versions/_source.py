"""The source of modules, parsed once, and where functions, classes and constants stand in it."""

from __future__ import annotations

import ast
import functools
import linecache
import sys
import textwrap
from dataclasses import dataclass, field
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeAlias

from llmflow.versions._normal import CodeNode, FunctionNode, normal_form

__all__ = ["ModuleSource", "class_node", "function_node", "module_source", "source_of", "source_text"]

Origin: TypeAlias = tuple[str, str, int]
"""Where a name was imported from: module, name in it, number of dots in front."""


@dataclass(slots=True)
class ModuleSource:
    """A parsed file.

    Attributes:
        text: The file.
        functions: Every function by name and first line, decorators included.
        lambdas: All of them.
        classes: Every class by its qualified name; a name that is defined again has several.
        assigned: The statement that gives a name of the module its value; the last one.
        imported: Where each imported name of the module comes from.
    """

    text: str
    functions: dict[tuple[str, int], list[FunctionNode]] = field(default_factory=dict[Any, Any])
    lambdas: list[ast.Lambda] = field(default_factory=list[ast.Lambda])
    classes: dict[str, list[ast.ClassDef]] = field(default_factory=dict[Any, Any])
    assigned: dict[str, ast.stmt] = field(default_factory=dict[str, ast.stmt])
    imported: dict[str, Origin] = field(default_factory=dict[str, Origin])


def source_of(filename: str, names: dict[str, Any]) -> ModuleSource | None:
    """Return the parsed file, None when there is none to read or it is no Python."""
    linecache.checkcache(filename)
    lines = linecache.getlines(filename, names)
    return _parsed("".join(lines)) if lines else None


def module_source(module: ModuleType) -> ModuleSource | None:
    """Return the parsed file of a module, None when it has none."""
    filename: object = getattr(module, "__file__", None)
    return source_of(filename, vars(module)) if isinstance(filename, str) else None


@functools.lru_cache(maxsize=128)
def _parsed(text: str) -> ModuleSource | None:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None
    found = ModuleSource(text)
    _index(tree, found)
    for statement in tree.body:
        _index_names(statement, found)
    return found


def _index(tree: ast.Module, found: ModuleSource) -> None:
    """Note the functions and classes of a module; without recursion, as one long expression must not be in the way."""
    waiting: list[tuple[ast.AST, str]] = [(tree, "")]
    while waiting:
        around, path = waiting.pop()
        for node in ast.iter_child_nodes(around):
            inside = path
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
                found.functions.setdefault((node.name, first), []).append(node)
                inside = f"{path}{node.name}.<locals>."
            elif isinstance(node, ast.ClassDef):
                found.classes.setdefault(f"{path}{node.name}", []).append(node)
                inside = f"{path}{node.name}."
            elif isinstance(node, ast.Lambda):
                found.lambdas.append(node)
            waiting.append((node, inside))


def _index_names(statement: ast.stmt, found: ModuleSource) -> None:  # noqa: C901  # one case for each statement that names
    """Note what a statement at the top of the module gives names to, inside `if` and `try` too."""
    match statement:
        case ast.ImportFrom():
            for one in statement.names:
                found.imported[one.asname or one.name] = (statement.module or "", one.name, statement.level)
        case ast.Assign() | ast.AnnAssign():
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                for node in ast.walk(target):
                    if isinstance(node, ast.Name):
                        found.assigned[node.id] = statement
        case ast.If() | ast.Try() | ast.With():
            for node in ast.iter_child_nodes(statement):
                for inner in node.body if isinstance(node, ast.ExceptHandler) else [node]:
                    if isinstance(inner, ast.stmt):
                        _index_names(inner, found)
        case _:
            pass


# -- functions ---------------------------------------------------------------------------------------------------------


def function_node(function: FunctionType) -> tuple[FunctionNode, ModuleSource] | None:
    """Return the tree of a function and the file around it, None when its source is not there or not its own."""
    code = function.__code__
    source = source_of(code.co_filename, function.__globals__)
    if source is None:
        return None
    if code.co_name == "<lambda>":
        candidates: list[FunctionNode] = [*_lambdas_of(code, source)]
    else:
        candidates = source.functions.get((code.co_name, code.co_firstlineno), [])
    same = [one for one in candidates if _parameters(one) == _parameters_of(code)]
    alike = len(same) == 1 or len({normal_form(one) for one in same}) == 1
    return (same[0], source) if alike else None


def _lambdas_of(code: CodeType, source: ModuleSource) -> list[ast.Lambda]:
    """Return the lambdas whose body is where the code says it is; some compilers do not say it of a constant."""
    places = {*code.co_positions()}
    exact = [one for one in source.lambdas if _place(one.body) in places]
    if exact:
        return exact
    in_line = [one for one in source.lambdas if one.lineno == code.co_firstlineno]
    return [one for one in in_line if _gives(one, code)] or in_line


def _place(node: ast.expr) -> tuple[int, int | None, int, int | None]:
    return (node.lineno, node.end_lineno, node.col_offset, node.end_col_offset)


def _gives(node: ast.Lambda, code: CodeType) -> bool:
    """Whether a lambda is one that returns a constant of the code."""
    body = node.body
    return isinstance(body, ast.Constant) and any(
        type(one) is type(body.value) and one == body.value for one in code.co_consts
    )


def _parameters(node: FunctionNode) -> list[str]:
    given = node.args
    return [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]


def _parameters_of(code: CodeType) -> list[str]:
    return [*code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]]


# -- classes -----------------------------------------------------------------------------------------------------------


def class_node(of: type[Any]) -> tuple[ast.ClassDef, ModuleSource] | None:
    """Return the tree of a class and the file around it, None when its source is not there."""
    module = sys.modules.get(of.__module__)
    codes = {code for code in map(_code, vars(of).values()) if code is not None and _is_own(code, of)}
    named = {code.co_filename for code in codes}
    if len(named) == 1:
        source = source_of(named.pop(), {} if module is None else vars(module))
    else:
        source = None if module is None else module_source(module)
    if source is None:
        return None
    candidates = source.classes.get(of.__qualname__, [])
    lines = {code.co_firstlineno for code in codes}
    holding = [one for one in candidates if any(one.lineno <= line <= (one.end_lineno or 0) for line in lines)]
    chosen = holding or candidates
    return (max(chosen, key=lambda one: one.lineno), source) if chosen else None


def _code(value: object) -> CodeType | None:
    """Return the code of a method."""
    value = getattr(value, "__func__", value)
    value = value.fget if isinstance(value, property) else value
    code = getattr(value, "__code__", None) if isinstance(value, FunctionType) else None
    return code if isinstance(code, CodeType) else None


def _is_own(code: CodeType, of: type[Any]) -> bool:
    """Whether a method was written in the class, and not made by a decorator such as `dataclass`."""
    return code.co_qualname == f"{of.__qualname__}.{code.co_name}" and code.co_filename != "<string>"


# -- for people --------------------------------------------------------------------------------------------------------


def source_text(node: CodeNode | ast.stmt, source: ModuleSource) -> str:
    """Return the lines of a node as they stand in the file, not indented, without decorators and docstring."""
    if isinstance(node, ast.Lambda):
        return ast.get_source_segment(source.text, node) or ""
    lines = source.text.splitlines()
    start, end = node.lineno - 1, node.end_lineno or node.lineno
    kept = lines[start:end]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        first = node.body[0]
        if _is_docstring(first) and first.lineno > node.lineno and len(node.body) > 1:
            kept = [*lines[start : first.lineno - 1], *lines[first.end_lineno or 0 : end]]
    return textwrap.dedent("\n".join(kept)).strip()


def _is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
