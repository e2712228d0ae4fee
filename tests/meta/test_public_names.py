"""The public names: what `__all__` says is what is there, and a package only re-exports."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import llmflow
from llmflow import errors

# The package itself also imports what is not needed before a step runs only when it is asked for (PEP 562).
MAY_DO_MORE = {"llmflow"}


ROOT = Path(llmflow.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = [_name(path) for path in FILES if path.stem != "__main__"]
PACKAGES = [path for path in FILES if path.stem == "__init__" and _name(path) not in MAY_DO_MORE]
PUBLIC = [getattr(llmflow, name) for name in llmflow.__all__]


@pytest.mark.parametrize("name", NAMES)
def test_all_is_sorted_and_importable(name: str) -> None:
    """Each module's `__all__` is sorted as ruff sorts it, without repetition, and every name of it can be imported."""
    module = import_module(name)
    exported = list(getattr(module, "__all__", ()))

    assert sorted(set(exported), key=_place) == exported
    assert [] == [one for one in exported if not hasattr(module, one)]


def _place(name: str) -> tuple[bool, bool, str]:
    """Constants first, then classes, then functions."""
    return not name.isupper(), not name[0].isupper(), name


def test_all_is_what_is_importable() -> None:
    """Every public name that `llmflow` has is in `__all__`, apart from its modules and what it needs to be written."""
    public = {name for name in dir(llmflow) if not name.startswith("_")}
    modules = {name for name in public if isinstance(getattr(llmflow, name), ModuleType)}

    assert set(llmflow.__all__) == public - modules - {"TYPE_CHECKING", "Any", "annotations", "import_module"}


@pytest.mark.parametrize("path", PACKAGES, ids=_name)
def test_a_package_only_reexports(path: Path) -> None:
    """The `__init__` of a package holds a docstring, imports and `__all__`, nothing else."""
    statements = ast.parse(path.read_text(encoding="utf-8")).body

    assert [] == [ast.unparse(one)[:60] for one in statements if not _belongs(one)]


def _belongs(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Assign):
        return [ast.unparse(target) for target in statement.targets] == ["__all__"]
    is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return is_docstring or isinstance(statement, ast.Import | ast.ImportFrom)


@pytest.mark.parametrize("public", PUBLIC, ids=llmflow.__all__)
def test_a_public_object_says_what_it_does(public: object) -> None:
    """The docstring of every public object begins with a sentence."""
    if not (inspect.isclass(public) or inspect.isroutine(public)):
        return
    first = (inspect.getdoc(public) or "").partition("\n")[0]

    assert first.endswith((".", ":", "?")), f"{public!r}: {first!r}"


@pytest.mark.parametrize("public", [one for one in PUBLIC if inspect.isclass(one)], ids=lambda one: one.__name__)
def test_public_methods_say_what_they_do(public: type) -> None:
    """The public methods and properties that a public class defines have docstrings."""
    members = {name: one for name, one in vars(public).items() if not name.startswith("_")}
    described = (classmethod, staticmethod, property)

    assert [] == [
        name
        for name, one in members.items()
        if (inspect.isfunction(one) or isinstance(one, described)) and not inspect.getdoc(one)
    ]


def test_the_tree_of_errors_is_complete() -> None:
    """The tree that opens errors.py names every class of the module, and `llmflow` exports every one."""
    assert errors.__doc__ is not None
    tree = errors.__doc__.partition("```text")[2].partition("```")[0]

    assert [] == [name for name in errors.__all__ if name not in tree]
    assert set() == set(errors.__all__) - set(llmflow.__all__)
