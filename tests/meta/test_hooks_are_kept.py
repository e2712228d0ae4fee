"""What a hook must come with: one sentence, typed arguments, a test of its own, a heading in the reference."""

from __future__ import annotations

import ast
import inspect
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmflow.journal
import llmflow.ports
import llmflow.prices
import llmflow.prompts
from llmflow import events, hookspecs, models, policy
from llmflow.signals import HOOK_OF

TESTS = Path(__file__).parent.parent
PAGE = (TESTS.parent / "docs" / "reference" / "hooks.md").read_text(encoding="utf-8")

HOOKS: dict[str, Callable[..., Any]] = {
    name: function for name, function in vars(hookspecs).items() if name.startswith("llmflow_")
}
NOTIFY = {name: function for name, function in HOOKS.items() if "event" in inspect.signature(function).parameters}

hook = pytest.mark.parametrize("name", HOOKS)


def hints(name: str) -> dict[str, Any]:
    """Return a hook's resolved annotations; hookspecs.py imports what they name for type checkers only."""
    names = {
        "events": events,
        "CacheStore": llmflow.ports.CacheStore,
        "Journal": llmflow.ports.Journal,
        "Redactor": llmflow.journal.Redactor,
        "Store": llmflow.ports.Store,
        "Iterable": typing.Iterable,
        "Model": models.Model,
        "Policy": policy.Policy,
        "Provider": llmflow.ports.Provider,
        "Price": llmflow.prices.Price,
        "Wording": llmflow.prompts.Wording,
    }
    return typing.get_type_hints(HOOKS[name], globalns=names)


def section(name: str) -> str:
    """Return what the reference says about a hook."""
    return PAGE.partition(f"\n### {heading(name)}\n")[2].partition("\n## ")[0].partition("\n### ")[0]


def heading(name: str) -> str:
    """Return a hook's signature as it stands in the reference."""
    return f"{name}({', '.join(inspect.signature(HOOKS[name]).parameters)})"


@hook
def test_a_hook_has_one_sentence(name: str) -> None:
    """The docstring is one line, and says it all."""
    said = HOOKS[name].__doc__ or ""

    assert re.fullmatch(r"[A-Z][^\n]+\.", said), f"{name}: {said!r}"


@hook
def test_a_hook_s_arguments_are_typed(name: str) -> None:
    """Each argument and the result have a type, and none of them is Any."""
    known = hints(name)

    assert {*inspect.signature(HOOKS[name]).parameters, "return"} == set(known)
    assert Any not in known.values()


@hook
def test_a_hook_has_a_test_of_its_name(name: str) -> None:
    """`tests/plugins/test_hooks.py` implements it in an installed plugin."""
    tree = ast.parse((TESTS / "plugins" / "test_hooks.py").read_text(encoding="utf-8"))
    tests = {one.name for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}

    assert f"test_hook_{name}" in tests


@hook
def test_a_hook_has_a_heading_with_its_signature(name: str) -> None:
    """The reference shows how it is called, word for word."""
    assert f"\n### {heading(name)}\n" in PAGE


@hook
def test_the_reference_of_a_hook_is_complete(name: str) -> None:
    """It repeats the one sentence, says when the hook is called, names every argument and shows an example that runs."""
    text = " ".join(section(name).split())

    assert (HOOKS[name].__doc__ or "") in text
    assert "**When**:" in text
    assert all(f"**`{argument}`**" in text for argument in inspect.signature(HOOKS[name]).parameters)
    assert "```python" in text


@pytest.mark.parametrize("name", NOTIFY)
def test_the_reference_names_every_field_of_an_event(name: str) -> None:
    """A new field of an event is documented where its hook is."""
    event = hints(name)["event"]
    text = section(name)

    assert f"`{event.__name__}`" in text
    assert [] == [field for field in event.__dataclass_fields__ if f"`{field}`" not in text]


def test_the_reference_has_no_hook_that_is_gone() -> None:
    """Every heading that looks like a hook is one."""
    assert {heading(name) for name in HOOKS} == set(re.findall(r"^#+ (llmflow_\w+\(.*\))$", PAGE, flags=re.MULTILINE))


def test_every_notify_hook_is_sent_its_events() -> None:
    """`HOOK_OF` says for each class of event which hook is told, and leaves out no hook and no event."""
    by_hook = {name: hints(name)["event"] for name in NOTIFY}

    assert by_hook == {name: kind for kind, name in HOOK_OF.items()}
    assert {getattr(events, name) for name in events.__all__} == set(HOOK_OF)


@hook
def test_a_hook_is_of_one_of_the_three_kinds(name: str) -> None:
    """Facts are told and nobody answers; of what is provided the first answer is taken; the rest is collected."""
    options = getattr(HOOKS[name], "llmflow_spec")
    returns = hints(name)["return"]

    if name in NOTIFY:
        assert (returns, options["firstresult"]) == (type(None), False)
    else:
        assert options["firstresult"] == (name not in ("llmflow_policies", "llmflow_redactors"))
        assert type(None) in typing.get_args(returns)
