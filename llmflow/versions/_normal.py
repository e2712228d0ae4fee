"""The normal form of a piece of Python: what it does, without how it is written.

It is our own text over the syntax tree, because `ast.dump` and `ast.unparse` differ between versions of Python. It needs
the standard library alone, so it can be compared under any of them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, TypeAlias, cast

__all__ = ["CodeNode", "FunctionNode", "annotation_of", "normal_form"]

FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
CodeNode: TypeAlias = FunctionNode | ast.ClassDef

_LEFT_OUT = frozenset({"ctx", "kind", "type_comment", "simple", "returns", "type_ignores"})


def normal_form(node: CodeNode) -> str:
    """Return the text of a function, lambda or class that only a change of what it does changes.

    Of a function neither its name nor its decorators count: what it is called by stands where it is called, and what a
    decorator makes of it is another function. A class has its name in what it prints.
    """
    if isinstance(node, ast.ClassDef):
        return _class(node)
    if isinstance(node, ast.Lambda):
        return _written(node)
    kind = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    return f"{kind}def({_written(node.args)},{_body(node.body)})"


# -- statements --------------------------------------------------------------------------------------------------------


def _class(node: ast.ClassDef) -> str:
    return f"class({_fields(node, body=_body(node.body, of_class=True))})"


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return a function inside another one or a class, where its name and decorators do something."""
    return f"{type(node).__name__}({_fields(node, body=_body(node.body))})"


def _body(statements: Sequence[ast.stmt], *, of_class: bool = False) -> str:
    kept = (one for one in statements if not _does_nothing(one))
    return _listed(_statement(one, of_class=of_class) for one in kept)


def _does_nothing(statement: ast.stmt) -> bool:
    """Tell docstrings, `...` and `pass`, and in effect what only declares a type."""
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def _statement(statement: ast.stmt, *, of_class: bool) -> str:
    """Return a statement; a type said of a variable does something in a class only."""
    if not isinstance(statement, ast.AnnAssign):
        return _written(statement)
    if of_class:
        annotation = _written(annotation_of(statement.annotation))
        return f"AnnAssign({_fields(statement, annotation=annotation)})"
    if statement.value is None:
        return "~"
    return f"Assign(targets={_listed([_written(statement.target)])},value={_written(statement.value)})"


# -- anything ----------------------------------------------------------------------------------------------------------


def _written(value: object) -> str:
    """Return a node, or what stands in a field of one."""
    if isinstance(value, ast.AST):
        return _node(value)
    if isinstance(value, list):
        return _list(cast("list[object]", value))
    return "~" if value is None else _constant(value)


def _node(node: ast.AST) -> str:  # noqa: PLR0911  # one for each node that has a form of its own
    match node:
        case ast.Constant():
            return _constant(node.value)
        case ast.Name():
            return quoted(node.id)[1:-1]
        case ast.JoinedStr():
            return _joined(node)
        case ast.FormattedValue():
            return f"FormattedValue({_fields(node, format_spec=_format_spec(node.format_spec))})"
        case ast.arg():
            return quoted(node.arg)
        case ast.ClassDef():
            return _class(node)
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return _function(node)
        case ast.AnnAssign():
            return _statement(node, of_class=False)
        case _:
            return f"{type(node).__name__}({_fields(node)})"


def _fields(node: ast.AST, **given: str) -> str:
    """Return the fields of a node by name; those that are empty are left out, as a new version may add some."""
    parts: list[str] = []
    for name in sorted(node._fields):
        if name in given:
            parts.append(f"{name}={given[name]}")
        elif name not in _LEFT_OUT and (value := getattr(node, name, None)) is not None and value != []:
            parts.append(f"{name}={_written(value)}")
    return ",".join(parts)


def _list(values: list[Any]) -> str:
    """Return a list of nodes; one of statements without those that do nothing."""
    if values and isinstance(values[0], ast.stmt):
        return _body(values)
    return _listed(map(_written, values))


def _listed(texts: Iterator[str] | Sequence[str] | map[str]) -> str:
    return f"[{','.join(texts)}]"


# -- constants and f-strings -------------------------------------------------------------------------------------------


def _constant(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bytes):
        return f"b'{value.hex()}'"
    if isinstance(value, int) and not isinstance(value, bool):
        return hex(value)  # repr refuses very long ones
    return repr(value)


def _joined(node: ast.JoinedStr) -> str:
    """Return an f-string, or the plain one that it is; versions cut what is between the braces differently."""
    parts = [*_pieces(node)]
    if all(isinstance(one, str) for one in parts):
        return quoted("".join(cast("list[str]", parts)))
    return f"JoinedStr({_listed([quoted(one) if isinstance(one, str) else _written(one) for one in parts])})"


def _pieces(node: ast.JoinedStr) -> Iterator[str | ast.expr]:
    """Yield the texts and values of an f-string, no two texts side by side and none empty."""
    text = ""
    for one in node.values:
        if isinstance(one, ast.Constant):
            text += str(one.value)
            continue
        if text:
            yield text
        text = ""
        yield one
    if text:
        yield text


def _format_spec(spec: ast.expr | None) -> str:
    """Return what is behind the colon; nothing behind it is the same as no colon."""
    written = "" if spec is None else _written(spec)
    return "" if written == '""' else written


# -- annotations -------------------------------------------------------------------------------------------------------


def annotation_of(node: ast.expr) -> ast.expr:  # noqa: PLR0911  # one for each form that may hold a quoted type
    """Return an annotation as an expression, whether or not it, or a part of it, is in quotes."""
    match node:
        case ast.Constant(value=str(text)):
            try:
                return annotation_of(ast.parse(text.strip(), mode="eval").body)
            except SyntaxError:
                return node
        case ast.Subscript(value=value, slice=inside):
            return ast.Subscript(annotation_of(value), _inside(value, inside), ast.Load())
        case ast.BinOp(left=left, op=op, right=right):
            return ast.BinOp(annotation_of(left), op, annotation_of(right))
        case ast.Tuple(elts=parts):
            return ast.Tuple([annotation_of(one) for one in parts], ast.Load())
        case ast.List(elts=parts):
            return ast.List([annotation_of(one) for one in parts], ast.Load())
        case _:
            return node


def _inside(of: ast.expr, inside: ast.expr) -> ast.expr:
    """Return what is in the brackets; a text is a type in quotes there, unless the brackets hold values."""
    name = getattr(of, "attr", None) or getattr(of, "id", None)
    if name == "Literal":
        return inside
    if name == "Annotated" and isinstance(inside, ast.Tuple) and inside.elts:
        first, *rest = inside.elts
        return ast.Tuple([annotation_of(first), *rest], ast.Load())
    return annotation_of(inside)
