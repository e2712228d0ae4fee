"""Templates: Jinja2 in its immutable sandbox, compiled once, checked against the parameters."""

from __future__ import annotations

import dis
import inspect
import warnings
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from llmflow.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from jinja2.sandbox import ImmutableSandboxedEnvironment

__all__ = ["Template", "UnusedParameterWarning", "names_used_by"]

_MARKERS = ("{{", "{%", "{#")


class UnusedParameterWarning(UserWarning):
    """A parameter of a step reaches neither its template nor its body, so the model never sees it."""


class Template:
    """A prompt text with Jinja2 expressions over the parameters of a step.

    Values are data: they are put in as they are and never rendered again. Text and numbers appear as `str` gives them,
    pydantic models and dataclasses, and the lists and mappings of a step, as JSON, enums as their value, None as
    nothing. Lines that hold only a `{% block %}` leave no blank line. Private attributes are out of reach.

    Args:
        source: The text; it is dedented like a docstring.
        step: Name of the step, for messages.
        where: What to call the text in messages.
        first_line: For the text of a file, which is not dedented: the line of the file on which it begins.

    Raises:
        DefinitionError: For a syntax error, with its line.
    """

    __slots__ = ("_compiled", "_first_line", "_step", "_where", "is_documentation", "is_literal", "names", "source")

    def __init__(self, source: str, *, step: str, where: str = "its docstring", first_line: int | None = None) -> None:
        self._first_line = first_line
        self.source = inspect.cleandoc(source) if first_line is None else self._without_blank_ends(source)
        self.is_literal = not any(marker in self.source for marker in _MARKERS)
        self.is_documentation = self.is_literal and first_line is None
        """Whether it may be about the step rather than for the model: a docstring that takes nothing from a call."""
        self.names: frozenset[str] = frozenset()
        """The variables that the template takes from the parameters."""
        self._step = step
        self._where = where
        self._compiled: Any = None
        if not self.is_literal:
            self._compile()

    def _without_blank_ends(self, source: str) -> str:
        lines = source.split("\n")
        blank = next((n for n, line in enumerate(lines) if line.strip()), 0)
        self._first_line = (self._first_line or 1) + blank
        return "\n".join(lines[blank:]).rstrip()

    def _line(self, number: int) -> int:
        """Return what a line of the text is called in messages, both counted from 1."""
        return number + (self._first_line or 1) - 1

    def _compile(self) -> None:
        from jinja2 import TemplateSyntaxError, meta, nodes  # only who has a template pays for jinja2

        environment = _environment()
        try:
            tree = environment.parse(self.source)
            self._compiled = environment.from_string(self.source)
        except TemplateSyntaxError as error:
            msg = f"step {self._step!r}: line {self._line(error.lineno)} of {self._where} is no valid template: {error.message}"
            problem = DefinitionError(msg)
            problem.add_note("Braces meant literally stand in {% raw %} ... {% endraw %}.")
            raise problem from error
        if any(True for _ in meta.find_referenced_templates(tree)):
            msg = f"step {self._step!r}: {self._where} refers to another template, but a prompt stands alone"
            raise DefinitionError(msg)
        # Jinja does not count its own functions, but a parameter may have the name of one.
        read = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "load"}
        self.names = frozenset(meta.find_undeclared_variables(tree) | read.intersection(environment.globals))

    def check(self, parameters: Iterable[str], *, used: Collection[str] = (), stacklevel: int = 2) -> tuple[str, ...]:
        """Compare the template with the parameters of its step; call it at decoration.

        Args:
            parameters: Names of the parameters.
            used: Names that need not stand in the template, because the body uses them (see `names_used_by`).
            stacklevel: Which caller the warning points at, 1 being whoever calls `check`.

        Returns:
            The parameters that are never used; each has been warned of.

        Raises:
            DefinitionError: For a name that is no parameter.
        """
        known = tuple(parameters)
        for name in sorted(self.names.difference(known, _globals())) if self.names else ():
            raise self._unknown(name, known)
        unused = tuple(name for name in known if name not in self.names and name not in used)
        for name in unused:
            msg = f"step {self._step!r}: parameter {name!r} is used neither in {self._where} nor in its body"
            self._warn(msg, stacklevel + 2)
        return unused

    def _warn(self, message: str, stacklevel: int) -> None:
        if self._first_line is None:
            warnings.warn(message, UnusedParameterWarning, stacklevel=stacklevel)
        else:  # whoever reads it looks for the file, not for the call at which the file was read
            warnings.warn_explicit(message, UnusedParameterWarning, filename=self._where, lineno=self._first_line)

    def render(self, inputs: Mapping[str, object]) -> str:
        """Return the text with the values in place.

        Raises:
            DefinitionError: When an expression reaches something that is not there or that the sandbox refuses. What
                the values themselves raise is left as it is.
        """
        if self.is_literal:
            return self.source
        from jinja2 import TemplateError  # loaded already, this is a look-up

        try:
            text: str = self._compiled.render(inputs)
        except TemplateError as error:
            msg = f"step {self._step!r}: {self._where} cannot be rendered: {error.message}"
            raise DefinitionError(msg) from error
        return text

    def __repr__(self) -> str:
        return f"Template({self.source!r}, step={self._step!r})"

    def _unknown(self, name: str, parameters: tuple[str, ...]) -> DefinitionError:
        close = get_close_matches(name, parameters, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; parameters are {', '.join(parameters) or 'none'}"
        line = next((n for n, line in enumerate(self.source.splitlines(), 1) if name in line), 1)
        msg = (
            f"step {self._step!r}: line {self._line(line)} of {self._where} uses {name!r}, which is no parameter{hint}"
        )
        return DefinitionError(msg)


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    from llmflow.prompts._environment import make_environment  # imports jinja2

    return make_environment()


def _globals() -> Collection[str]:
    return _environment().globals


def names_used_by(function: Callable[..., Any]) -> frozenset[str]:
    """Return the parameters that the body of `function` reads, inner functions included."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return frozenset()
    names = set(code.co_cellvars)
    for instruction in dis.get_instructions(code):
        if instruction.opname.startswith("LOAD_FAST"):
            argument = instruction.argval
            names.update(cast("tuple[str, ...]", argument) if isinstance(argument, tuple) else (str(argument),))
    return frozenset(names)
