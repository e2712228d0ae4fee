"""The law of versions: an edit of what shapes a prompt changes its version, and nothing else does.

Programs are generated, written to files in different styles, and edited in one place.
"""

from __future__ import annotations

import ast
import dataclasses
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import llmflow
from llmflow.versions._normal import normal_form

SETTINGS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
PACKAGE = Path(llmflow.__file__).parent

words = st.text(alphabet="abc {}'\"\\\n#é", min_size=1, max_size=12).map(lambda text: f"x{text}")
plain = st.text(alphabet="abcdef ", min_size=1, max_size=8).map(lambda text: f"x{text}")
names = st.sampled_from(["alpha", "beta", "gamma", "delta", "eta"])


@dataclass(frozen=True)
class Program:
    """What shapes the prompts of a program of two files."""

    template: str
    system: str
    intro: str
    number: int
    helper: str
    table: tuple[tuple[str, int], ...]
    example: str
    limit: int
    fields: tuple[tuple[str, str], ...]
    temperature: int
    loud: bool


programs = st.builds(
    Program,
    template=plain,
    system=plain,
    intro=words,
    number=st.integers(0, 9),
    helper=plain,
    table=st.lists(st.tuples(plain, st.integers(0, 9)), max_size=3, unique_by=lambda one: one[0]).map(tuple),
    example=plain,
    limit=st.integers(1, 9),
    fields=st.lists(
        st.tuples(names, st.sampled_from(["str", "int"])), min_size=1, max_size=3, unique_by=lambda one: one[0]
    ).map(tuple),
    temperature=st.integers(0, 9),
    loud=st.booleans(),
)


@dataclass(frozen=True)
class Style:
    """How a program is written, none of which is what it does."""

    comments: bool = False
    blank_lines: int = 0
    parentheses: bool = False
    split_texts: bool = False
    quoted_types: bool = False
    double_quotes: bool = False
    docstrings: bool = False
    module: str = "texts"
    names: tuple[str, ...] = field(default=())


styles = st.builds(
    Style,
    comments=st.booleans(),
    blank_lines=st.integers(0, 5),
    parentheses=st.booleans(),
    split_texts=st.booleans(),
    quoted_types=st.booleans(),
    double_quotes=st.booleans(),
    docstrings=st.booleans(),
    module=st.sampled_from(["texts", "wording", "zzz"]),
)


def written(text: str, style: Style) -> str:
    """Return a text as an expression, in one piece or several."""
    parts = [text[: len(text) // 2], text[len(text) // 2 :]] if style.split_texts else [text]
    shown = " ".join(quoted(part, style) for part in parts)
    return f"({shown})" if style.parentheses or style.split_texts else shown


def quoted(text: str, style: Style) -> str:
    inside = repr(text)[1:-1]
    if style.double_quotes and '"' not in text and "'" not in text:
        return f'"{inside}"'
    return repr(text)


def files(program: Program, style: Style) -> dict[str, str]:
    """Return the files of a program."""
    mark = '"' if style.quoted_types else ""
    note = "# a comment\n" if style.comments else ""
    gap = "\n" * style.blank_lines
    documented = '    """Say what it is for."""\n' if style.docstrings else ""
    texts = f"""\
{gap}{note}INTRO = {written(program.intro, style)}
{gap}NUMBER = {program.number}
TABLE = {{{", ".join(f"{written(key, style)}: {value}" for key, value in program.table)}}}

{note}
def helper(text: {mark}str{mark}, count: int = 1) -> {mark}str{mark}:
{documented}{gap}    {note}
    return inner(text) + {written(program.helper, style)} * count

def inner(text):
    if not text:
        return helper("x")
    return f"{{text}} {{NUMBER}}"
"""
    fields = "\n".join(f"    {name}: {mark}{kind}{mark}" for name, kind in program.fields)
    example = ", ".join(f"{name!r}: {'1' if kind == 'int' else repr(program.example)}" for name, kind in program.fields)
    app = f"""\
{gap}{note}import {style.module} as texts
from pydantic import BaseModel
from llmflow import prompt, step
from {style.module} import INTRO

class Answer(BaseModel):
{fields}

def short(value: object, inputs: dict) -> None:
{documented}    if len(repr(value)) > {program.limit}:
        {note}
        raise ValueError("too long")
{gap}
@step("acme/one", system={written(program.system, style)}, examples=[({program.example!r}, {{{example}}})],
      params={{"temperature": {program.temperature}}}, checks=[short])
def documented(message: {mark}str{mark}) -> {mark}Answer{mark}:
    {f'''"{program.template} {{{{ message }}}}"'''}
{gap}
@step("acme/two")
def coded(message: str) -> str:
{documented}    {note}
    loud: {mark}bool{mark} = {"(" if style.parentheses else ""}{program.loud}{")" if style.parentheses else ""}
    lines = [texts.helper(line) for line in message.split()]
    return prompt(f"{{INTRO}} {{lines}} {{texts.TABLE}} {{loud}}")
"""
    return {"app": app, style.module: texts}


def versions(module: ModuleType) -> tuple[str, str]:
    """Return the versions of the two steps."""
    return module.documented.prompt_version, module.coded.prompt_version


@SETTINGS
@given(program=programs, style=styles, folder=st.sampled_from(["a/b", "other place", "c"]), other=st.booleans())
def test_nothing_but_an_edit_changes_a_version(load, program: Program, style: Style, folder: str, other: bool) -> None:
    """Comments, blank lines, quotes, parentheses, quoted types, docstrings of code, names and places of files."""
    before = versions(load(**files(program, Style())))
    after = versions(load(into=f"{folder}{other}", **files(program, style)))

    assert before == after


EDITS = {
    "template": (plain, 0),
    "system": (plain, 0),
    "example": (plain, 0),
    "limit": (st.integers(1, 9), 0),
    "temperature": (st.integers(0, 9), 0),
    "fields": (programs.map(lambda one: one.fields), 0),
    "intro": (words, 1),
    "number": (st.integers(0, 9), 1),
    "helper": (plain, 1),
    "table": (programs.map(lambda one: one.table), 1),
    "loud": (st.booleans(), 1),
}
"""What is edited, by what, and which of the two steps it shapes."""


@SETTINGS
@given(program=programs, style=styles, part=st.sampled_from(sorted(EDITS)), data=st.data())
def test_an_edit_changes_the_versions_it_shapes(load, program: Program, style: Style, part: str, data) -> None:
    """And leaves the other's alone."""
    values, shaped = EDITS[part]
    before = getattr(program, part)
    if part == "example":  # it shows only where a field is text
        program = dataclasses.replace(program, fields=(("alpha", "str"),))
    edited = dataclasses.replace(program, **{part: data.draw(values.filter(lambda one: one != before))})
    first, second = versions(load(**files(program, Style()))), versions(load(**files(edited, style)))

    assert (first[0] != second[0], first[1] != second[1]) == (shaped == 0, shaped == 1)


# -- the normal form, on real code -------------------------------------------------------------------------------------

SOURCES = [
    node
    for folder in ("versions", "schema", "policies", "graph")
    for path in sorted((PACKAGE / folder).glob("*.py"))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
]


def anew(node: ast.AST) -> ast.FunctionDef:
    """Return a function as it is after it was printed and read again."""
    return ast.parse(textwrap.dedent(ast.unparse(node))).body[0]  # type: ignore[return-value]


@given(st.sampled_from(SOURCES))
def test_printing_and_reading_changes_no_normal_form(node: ast.FunctionDef) -> None:
    """The printer leaves out comments and parentheses and sets every line and quote its own way."""
    assert normal_form(node) == normal_form(anew(node))


class Changed(ast.NodeTransformer):
    """Changes the n-th thing in a function that does something."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.seen = 0
        self.done = False

    def _is_it(self) -> bool:
        self.seen += 1
        self.done |= self.seen - 1 == self.wanted
        return self.seen - 1 == self.wanted

    def function(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.body = [self.visit(one) for one in node.body]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self.function(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        return node if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if not self._is_it():
            return node
        new = f"{node.value}x" if isinstance(node.value, str) else not node.value
        return ast.copy_location(ast.Constant(new), node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.copy_location(ast.Name(f"{node.id}_x", node.ctx), node) if self._is_it() else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if self._is_it():
            node.attr += "_x"
            return node
        return self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> ast.AST:
        if self._is_it():
            return ast.copy_location(ast.Raise(node.value, None), node) if node.value else ast.Break()
        return self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        if self._is_it():
            node.ops = [ast.NotEq() if isinstance(one, ast.Eq) else ast.Eq() for one in node.ops]
            return node
        return self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        if self._is_it():
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            return node
        return self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        if node.arg is not None and self._is_it():
            node.arg += "_x"
            return node
        return self.generic_visit(node)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SOURCES), st.integers(0, 60))
def test_any_change_of_code_changes_its_normal_form(node: ast.FunctionDef, number: int) -> None:
    """Constants, names, attributes, keywords, comparisons, `and` and `or`, `return`."""
    change = Changed(number)
    edited = change.function(anew(node))

    assert (normal_form(node) != normal_form(edited)) == change.done
