"""Every hook, implemented by an installed plugin; `tests/meta` sees to it that none is left out."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from llmflow import (
    Budget,
    BudgetExceeded,
    Cache,
    CircuitBreaker,
    CircuitOpen,
    Fallback,
    Price,
    ProviderUnavailable,
    Repair,
    Reply,
    Retry,
    Runtime,
    Step,
    Usage,
    context,
    plan,
    prompt,
    step,
)
from llmflow.testing._scripted import ScriptedModel, scripted

from .conftest import SitePackages

pytestmark = pytest.mark.anyio

RECORDER = """
from llmflow import hookimpl

events = []

@hookimpl
def {hook}(event):
    events.append(event)
"""


def asking(model: Any, *policies: Any) -> Step[[str], str]:
    """Return a step that asks this model."""

    @step(model, *policies, name="question")
    def question(word: str) -> str:
        return prompt(f"About {word}?")

    return question


class Recorder:
    """A plugin that listens to one hook."""

    def __init__(self, site_packages: SitePackages, hook: str) -> None:
        self._module = site_packages.module(site_packages.install("acme-recorder", RECORDER.format(hook=hook)))

    @property
    def events(self) -> list[Any]:
        """What it was told."""
        told: list[Any] = self._module.events
        return told


def busy() -> ScriptedModel:
    """Return a model that fails once and then answers."""
    return scripted(ProviderUnavailable("busy", status=503), "fine", usage=Usage(input_tokens=3, output_tokens=2))


QUICK = Retry(2, wait_initial=0)


async def test_hook_llmflow_policies(site_packages: SitePackages) -> None:
    """A plugin's policies act on the steps it names, and the plan says whose they are."""
    site_packages.install(
        "acme-retry",
        """
        from llmflow import Retry, hookimpl

        @hookimpl
        def llmflow_policies(step):
            return [Retry(7)] if step == "question" else None
        """,
        version="2.3",
    )
    with Runtime():
        (node,) = plan(asking(scripted("fine"))).nodes

    assert [("Retry(attempts=7)", "plugin:acme-retry 2.3")] == [
        (layer.policy, layer.source) for layer in node.layers if layer.band == "RETRY"
    ]


async def test_hook_llmflow_provider(site_packages: SitePackages) -> None:
    """A plugin reaches the models of its own name."""
    site_packages.install(
        "acme-provider",
        """
        from llmflow import Reply, hookimpl

        class Acme:
            def connect(self, model, output, /):
                async def send(request):
                    return Reply(text=f"{model.model} says {request.messages[-1].content}")
                return send

            async def aclose(self):
                pass

        @hookimpl
        def llmflow_provider(name):
            return Acme() if name == "acme" else None
        """,
    )
    with Runtime():
        answer = await asking("acme/large")("rain")

    assert "large says About rain?" == answer


async def test_hook_llmflow_price(site_packages: SitePackages) -> None:
    """A plugin's price makes an unpriced model's cost known."""
    site_packages.install(
        "acme-price",
        """
        from llmflow import Price, hookimpl

        @hookimpl
        def llmflow_price(model):
            return Price(input=1, output=10) if model.name == "scripted/model" else None
        """,
    )
    with Runtime():
        reply = Reply(text="fine", usage=Usage(input_tokens=1_000_000, output_tokens=100_000))
        result = await asking(scripted(reply)).run("rain")

    assert 2 == result.cost_usd


async def test_a_price_of_the_runtime_goes_before_a_plugin_s(site_packages: SitePackages) -> None:
    """What the author says in `Runtime(prices=...)` is not asked of plugins."""
    site_packages.install(
        "acme-price",
        """
        from llmflow import hookimpl

        @hookimpl
        def llmflow_price(model):
            raise AssertionError("nobody needs to ask")
        """,
    )
    with Runtime(prices={"scripted/model": Price(input=0, output=0)}):
        result = await asking(scripted("fine", usage=Usage(input_tokens=1, output_tokens=1))).run("rain")

    assert 0 == result.cost_usd


async def test_hook_llmflow_prompt(site_packages: SitePackages) -> None:
    """A plugin's prompt is asked instead of the step's own, under the label that the run has."""
    site_packages.install(
        "acme-prompts",
        """
        from llmflow import Wording, hookimpl

        @hookimpl
        def llmflow_prompt(name, label):
            return Wording(f"{name} {label}: {{{{ word }}}}") if label == "canary" else None
        """,
        version="2.3",
    )
    model = scripted(default="fine")

    @step(model, name="question")
    def question(word: str) -> str:
        """About {{ word }}?"""
        return prompt()

    with Runtime():
        await question("rain")
    with Runtime(variants={"question": {"canary": 1}}):
        result = await question.run("rain")
        (node,) = plan(question).nodes

    assert ["About rain?", "question canary: rain"] == [one.messages[-1].content for one in model.requests]
    assert ("canary", "plugin acme-prompts 2.3") == (result.prompt_label, node.wording)


async def test_hook_llmflow_run_started(site_packages: SitePackages) -> None:
    """A run is announced once, with the name of what was called."""
    recorder = Recorder(site_packages, "llmflow_run_started")
    with Runtime():
        result = await asking(scripted("fine")).run("rain")

    assert [("question", result.run_id)] == [(one.target, one.run_id) for one in recorder.events]


async def test_hook_llmflow_run_finished(site_packages: SitePackages) -> None:
    """The end of a run says how it went, also when it went badly."""
    recorder = Recorder(site_packages, "llmflow_run_finished")
    with Runtime():
        await asking(scripted("fine"))("rain")
        with pytest.raises(ProviderUnavailable):
            await asking(scripted(ProviderUnavailable("down")), Retry.off)("rain")

    assert [None, "ProviderUnavailable"] == [one.error for one in recorder.events]
    assert all(one.latency_s >= 0 for one in recorder.events)


async def test_hook_llmflow_call_started(site_packages: SitePackages) -> None:
    """A call of a step is announced once, however many requests it takes."""
    recorder = Recorder(site_packages, "llmflow_call_started")
    with Runtime():
        await asking(busy(), QUICK)("rain")

    assert ["question"] == [one.step for one in recorder.events]


async def test_hook_llmflow_call_finished(site_packages: SitePackages) -> None:
    """The end of a call sums up its requests."""
    recorder = Recorder(site_packages, "llmflow_call_finished")
    with Runtime():
        result = await asking(busy(), QUICK).run("rain")
    (event,) = recorder.events

    assert ("question", 2, 0, "scripted/model", None) == (
        event.step,
        event.attempts,
        event.reasks,
        event.model,
        event.error,
    )
    assert (result.run_id, result.usage, result.prompt_version) == (event.run_id, event.usage, event.prompt_version)


async def test_hook_llmflow_attempt_started(site_packages: SitePackages) -> None:
    """Each physical request is announced with its number."""
    recorder = Recorder(site_packages, "llmflow_attempt_started")
    with Runtime():
        await asking(busy(), QUICK)("rain")

    assert [("scripted/model", 1), ("scripted/model", 2)] == [(one.model, one.number) for one in recorder.events]


async def test_hook_llmflow_attempt_finished(site_packages: SitePackages) -> None:
    """The end of each physical request says what became of it."""
    recorder = Recorder(site_packages, "llmflow_attempt_finished")
    with Runtime():
        await asking(busy(), QUICK)("rain")

    assert [("ProviderUnavailable", 503), ("ok", None)] == [(one.outcome, one.status) for one in recorder.events]
    assert Usage(input_tokens=3, output_tokens=2) == recorder.events[-1].usage


async def test_hook_llmflow_retry_scheduled(site_packages: SitePackages) -> None:
    """A retry is announced with the failure it follows and the wait before it."""
    recorder = Recorder(site_packages, "llmflow_retry_scheduled")
    with Runtime():
        await asking(busy(), QUICK)("rain")
    (event,) = recorder.events

    assert (1, 0.0, ProviderUnavailable) == (event.attempt, event.wait_s, type(event.error))


async def test_hook_llmflow_fallback_taken(site_packages: SitePackages) -> None:
    """A change of model is announced with both models and the failure."""
    recorder = Recorder(site_packages, "llmflow_fallback_taken")
    down = scripted(ProviderUnavailable("down"), name="scripted/down")
    with Runtime():
        await asking(down, Fallback(scripted("fine", name="scripted/up")), Retry.off, Repair.off)("rain")
    (event,) = recorder.events

    assert ("scripted/down", "scripted/up", ProviderUnavailable) == (
        event.from_model,
        event.to_model,
        type(event.error),
    )


STORE = """
from llmflow import Kept, hookimpl

urls = []

class Store:
    def __init__(self):
        self.kept = {}

    async def get(self, key, /):
        return self.kept.get(key)

    async def put(self, key, entry, /, *, seconds):
        self.kept[key] = Kept(entry, 1.0)

    async def aclose(self):
        urls.append("closed")

@hookimpl
def llmflow_store(url):
    urls.append(url)
    return Store() if url.startswith("acme://") else None
"""


async def test_hook_llmflow_store(site_packages: SitePackages) -> None:
    """A plugin's store keeps the answers of its addresses, and is closed with the runtime."""
    plugin = site_packages.module(site_packages.install("acme-store", STORE))
    model = scripted("fine")
    async with Runtime(cache="acme://somewhere"):
        ask = asking(model, Cache("1h"))
        values = [await ask("rain"), await ask("rain")]

    assert (["fine", "fine"], 1) == (values, len(model.requests))
    assert ["acme://somewhere", "closed"] == plugin.urls


REDACTORS = """
from llmflow import hookimpl

names = []

@hookimpl
def llmflow_redactors(name):
    names.append(name)
    return [lambda text: text.replace("rain", "[WEATHER]")]
"""


async def test_hook_llmflow_redactors(site_packages: SitePackages, tmp_path: Path) -> None:
    """What a plugin makes of the texts is what the journal stores; the call itself has the real ones."""
    plugin = site_packages.module(site_packages.install("acme-redactor", REDACTORS))
    path = tmp_path / "runs.db"
    async with Runtime(journal=f"sqlite:///{path}"):
        value = await asking(scripted("no rain"))("rain")
    with sqlite3.connect(path) as connection:
        stored = connection.execute("SELECT inputs, output, content FROM nodes").fetchall()
    connection.close()

    assert (value, ["question"]) == ("no rain", plugin.names)
    assert [('{"word":"[WEATHER]"}', '"no [WEATHER]"', "redacted")] == stored


async def test_hook_llmflow_cache_hit(site_packages: SitePackages) -> None:
    """A call that was answered without a request is announced with what that saved, and for whom."""
    recorder = Recorder(site_packages, "llmflow_cache_hit")
    usage, price = Usage(input_tokens=1000, output_tokens=1000), Price(input=1, output=2)
    with Runtime(), context(tenant="acme"):
        ask = asking(scripted("fine", usage=usage, price=price), Cache("1h"))
        await ask("rain")
        await ask("rain")
    (event,) = recorder.events

    assert ("question", "scripted/model", "hit", "acme", "0.003") == (
        event.step, event.model, event.kind, event.tenant, str(event.saved_usd),
    )  # fmt: skip
    assert event.prompt_version == ask.prompt_version
    assert event.call_id > event.run_id


async def test_hook_llmflow_budget_refused(site_packages: SitePackages) -> None:
    """A request that a budget cannot pay for is announced with who asked, for what, and what is left."""
    recorder = Recorder(site_packages, "llmflow_budget_refused")
    budget = Budget(tokens=4200, per="total", key="tenant", name="tokens")
    with Runtime():
        ask = asking(scripted(default="fine", usage=Usage(input_tokens=100, output_tokens=100)), budget)
        with context(tenant="acme"):
            await ask("rain")
            with pytest.raises(BudgetExceeded):
                await ask("snow")
    (event,) = recorder.events

    assert ("question", "scripted/model", "tokens", "acme", "tokens") == (
        event.step, event.model, event.budget, event.key, event.unit,
    )  # fmt: skip
    assert (4000, True) == (event.left, event.asked > 4096)
    assert event.call_id > event.run_id


async def test_hook_llmflow_breaker_changed(site_packages: SitePackages) -> None:
    """A breaker that opens is announced with the model it guards and both states."""
    recorder = Recorder(site_packages, "llmflow_breaker_changed")
    down = scripted(default=lambda _: _raise(ProviderUnavailable("down")))
    with Runtime():
        with pytest.raises(CircuitOpen):
            await asking(down, CircuitBreaker(min_calls=1), QUICK)("rain")
    (event,) = recorder.events

    assert ("scripted/model", "closed", "open") == (event.name, event.old, event.new)


def _raise(error: Exception) -> None:
    raise error
