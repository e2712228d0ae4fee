"""The entry point: light to load, and answering only for its own models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import llmflow_local
import pluggy
import pytest
from llmflow_local._provider import LocalProvider

from llmflow import hookspecs
from llmflow.errors import DefinitionError
from llmflow.models import Model
from llmflow.prices import Price

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    from conftest import Asker


def test_hook_llmflow_provider() -> None:
    """The plugin is found through pluggy, and leaves other names to others."""
    manager = pluggy.PluginManager("llmflow")
    manager.add_hookspecs(hookspecs)
    manager.register(import_module("llmflow_local"))

    assert isinstance(manager.hook.llmflow_provider(name="local"), LocalProvider)
    assert manager.hook.llmflow_provider(name="openai") is None


def test_hook_llmflow_price() -> None:
    """A local answer costs nothing, which is not the same as an unknown price."""
    assert Price(input=0.0, output=0.0) == llmflow_local.llmflow_price(Model("local/smollm2"))
    assert llmflow_local.llmflow_price(Model("openai/gpt-5-mini")) is None


def test_connecting_loads_nothing(run_program: Callable[..., CompletedProcess[str]]) -> None:
    """Neither the plugin nor a bound step loads the engine or starts a thread."""
    done = run_program(
        'llmflow_provider("local").connect(Model("local/smollm2"), Output(None))\n'
        'print("xllamacpp" in sys.modules, threading.active_count())'
    )

    assert ("False 1\n", "") == (done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("local/llama", {}, "only 'local/smollm2' and"),
        ("local/smollm2", {"thread": 2}, "no option 'thread'; there are threads, context, constrained"),
        ("local/smollm2", {"threads": 0}, "threads=0, expected a whole number from 1"),
        ("local/smollm2", {"context": True}, "context=True, expected a whole number from 1"),
        ("local/smollm2", {"constrained": "no"}, "constrained='no', expected True or False"),
        ("local/smollm2", {"base_url": "http://localhost"}, "takes no base_url"),
    ],
)
def test_a_wrong_model_is_refused_when_bound(
    asker: Callable[..., Asker], name: str, options: dict[str, object], message: str
) -> None:
    """What is written wrongly is said before the first request."""
    with pytest.raises(DefinitionError, match=message):
        asker(None, name, **options)
