"""How plugins are found, refused, switched off and told apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import llmflow
from llmflow import DefinitionError, PluginDefinitionError, PluginError, Retry, Runtime, hookimpl, plan, prompt, step
from llmflow.plugins import PluginInfo, Registry

from .conftest import SitePackages

POLICY = """
from llmflow import Retry, hookimpl

@hookimpl
def llmflow_policies(step):
    return [Retry(7)]
"""

LISTENER = """
from llmflow import hookimpl

events = []

@hookimpl
def llmflow_call_finished(event):
    events.append(event)
"""

PROVIDER = """
from llmflow import hookimpl

class Acme:
    def connect(self, model, output, /):
        async def send(request):
            raise AssertionError("no request is sent")
        return send

    async def aclose(self):
        pass

@hookimpl
def llmflow_provider(name):
    return Acme() if name == "acme" else None
"""

BROKEN = {
    "an import error": ("import no_such_module_anywhere\n", "no_such_module_anywhere"),
    "a syntax error": ("def (:\n", "SyntaxError"),
    "an error while it is imported": ("raise RuntimeError('no licence')\n", "RuntimeError: no licence"),
    "an argument that the hook does not have": (
        "from llmflow import hookimpl\n\n@hookimpl\ndef llmflow_policies(step, colour):\n    return []\n",
        "colour",
    ),
    "a hook that does not exist": (
        "from llmflow import hookimpl\n\n@hookimpl\ndef llmflow_polices(step):\n    return []\n",
        "llmflow_polices",
    ),
}


@step("acme/large", name="question")
def question(word: str) -> str:
    return prompt(f"About {word}?")


def found(runtime: Runtime, name: str) -> PluginInfo:
    """Return what the runtime knows about one plugin."""
    (info,) = [one for one in runtime.plugins if one.name == name]
    return info


# -- finding -----------------------------------------------------------------------------------------------------------


def test_an_installed_plugin_is_found(site_packages: SitePackages) -> None:
    """An entry point of the group `llmflow` is enough."""
    site_packages.install("acme-policies", POLICY, entry="acme", version="2.3")

    assert PluginInfo("acme", "acme-policies", "2.3", ("llmflow_policies",)) == found(Runtime(), "acme")


def test_an_installed_plugin_is_found_in_a_fresh_interpreter(site_packages: SitePackages) -> None:
    """Nothing but the distribution on the path is needed, and `import llmflow` alone does not load it."""
    module = site_packages.install("acme-policies", POLICY)
    code = f"""
import sys, json, llmflow
before = {module!r} in sys.modules
runtime = llmflow.Runtime()
print(json.dumps([before, [one.name for one in runtime.plugins if not one.builtin and one.status == "active"]]))
"""
    root = Path(llmflow.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(site_packages.folder)])}
    done = subprocess.run((sys.executable, "-c", code), env=environment, capture_output=True, text=True, check=True)
    loaded, names = json.loads(done.stdout)

    assert not loaded
    assert "acme-policies" in names


def test_llmflow_s_own_plugins_are_listed() -> None:
    """Built-in policies, providers and observers are plugins like any other."""
    hooks = {one.name: one.hooks for one in Runtime().plugins if one.builtin}

    assert ("llmflow_policies",) == hooks["llmflow-policies"]
    assert "llmflow_provider" in hooks["llmflow-providers"]


# -- broken ones -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_plugin_is_reported_and_the_others_work(site_packages: SitePackages, what: str) -> None:
    """One that cannot be loaded or registered says why, and takes nobody with it."""
    source, reason = BROKEN[what]
    site_packages.install("acme-broken", source, version="0.9")
    site_packages.install("zeta-policies", POLICY)
    runtime = Runtime()
    broken = found(runtime, "acme-broken")

    assert ("broken", "acme-broken 0.9") == (broken.status, broken.label)
    assert reason in broken.error
    assert "\n" not in broken.error
    assert "active" == found(runtime, "zeta-policies").status
    with runtime:
        assert "plugin:zeta-policies 1.0" in str(plan(question.with_(model=silent())))


def silent() -> llmflow.Model:
    """Return a model that must not be asked."""

    async def handler(request: llmflow.Request) -> str:
        raise AssertionError(f"asked {request.messages}")

    return llmflow.Model("fake/silent", handler=handler)


def test_a_broken_plugin_acts_in_no_part(site_packages: SitePackages) -> None:
    """When one hook of a plugin is wrong, its others are not called either."""
    site_packages.install(
        "acme-half",
        """
        from llmflow import hookimpl

        @hookimpl
        def llmflow_call_finished(event):
            raise AssertionError("a broken plugin was told")

        @hookimpl
        def llmflow_policies(step, colour):
            return []
        """,
    )
    runtime = Runtime()

    assert "broken" == found(runtime, "acme-half").status
    assert [] == [
        one for one in runtime._registry._implementations("llmflow_call_finished") if one[0].name == "acme-half"
    ]


def test_a_broken_provider_is_named_when_it_is_used(site_packages: SitePackages) -> None:
    """Who asks for a model that a broken plugin would reach is told which plugin, and what is wrong with it."""
    site_packages.install("acme-provider", "import no_such_module_anywhere\n", entry="acme", version="0.9")
    with Runtime(), pytest.raises(DefinitionError) as raised:
        plan(question)

    message = str(raised.value)
    assert "'acme'" in message
    assert "'acme-provider 0.9' is broken: ModuleNotFoundError: No module named 'no_such_module_anywhere'" in message


def test_a_missing_provider_is_named() -> None:
    """Without any plugin for it, the message says what there is instead."""
    with Runtime(), pytest.raises(DefinitionError, match=r"no provider is called 'acme'.*base_url.*handler.*plugin"):
        plan(question)


def test_a_plugin_that_fails_when_it_is_asked_is_named(site_packages: SitePackages) -> None:
    """A hook that raises ends the binding of the step with the plugin's name, not with its bare exception."""
    site_packages.install(
        "acme-policies",
        """
        from llmflow import hookimpl

        @hookimpl
        def llmflow_policies(step):
            raise KeyError("colour")
        """,
    )
    with (
        Runtime(),
        pytest.raises(PluginDefinitionError, match=r"acme-policies 1\.0.*llmflow_policies.*colour") as raised,
    ):
        plan(question.with_(model=silent()))

    assert "acme-policies" == raised.value.plugin
    assert isinstance(raised.value.__cause__, KeyError)


def test_a_plugin_that_contributes_nonsense_is_named(site_packages: SitePackages) -> None:
    """What is no policy is refused with the name of the plugin that gave it."""
    site_packages.install(
        "acme-policies",
        """
        from llmflow import hookimpl

        @hookimpl
        def llmflow_policies(step):
            return ["retry"]
        """,
    )
    with Runtime(), pytest.raises(DefinitionError, match=r"acme-policies 1\.0.*'retry'.*not a policy"):
        plan(question.with_(model=silent()))


# -- switched off ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["acme", "acme-policies", "all", "other, acme", "1"])
def test_a_plugin_is_switched_off_by_the_environment(
    site_packages: SitePackages, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    """By its name, by its distribution, or with every other one; it is not even imported, and it is still listed."""
    module = site_packages.install("acme-policies", POLICY, entry="acme")
    monkeypatch.setenv("LLMFLOW_DISABLE_PLUGINS", said)
    runtime = Runtime()

    assert "disabled" == found(runtime, "acme").status
    assert module not in sys.modules
    with runtime:
        assert "acme" not in str(plan(question.with_(model=silent())))


def test_others_are_not_switched_off(site_packages: SitePackages, monkeypatch: pytest.MonkeyPatch) -> None:
    """The switch takes whole names."""
    site_packages.install("acme-policies", POLICY, entry="acme")
    monkeypatch.setenv("LLMFLOW_DISABLE_PLUGINS", "acm,policies")

    assert "active" == found(Runtime(), "acme").status


def test_llmflow_s_own_plugins_are_never_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """`all` is about what was installed: without the default policies no call would be safe."""
    monkeypatch.setenv("LLMFLOW_DISABLE_PLUGINS", "all,llmflow-policies")
    runtime = Runtime()

    assert {"active"} == {one.status for one in runtime.plugins if one.builtin}
    with runtime:
        assert "Retry(attempts=3)" in str(plan(question.with_(model=silent())))


def test_a_provider_that_is_switched_off_is_named_when_it_is_used(
    site_packages: SitePackages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks for its models is told that the plugin is there, and disabled."""
    site_packages.install("acme-provider", PROVIDER)
    monkeypatch.setenv("LLMFLOW_DISABLE_PLUGINS", "all")
    with Runtime(), pytest.raises(DefinitionError, match=r"'acme-provider 1\.0' is disabled"):
        plan(question)


# -- collisions --------------------------------------------------------------------------------------------------------


def test_two_plugins_of_one_name_are_refused(site_packages: SitePackages) -> None:
    """Two distributions with the same entry-point name: both are named."""
    site_packages.install("acme-one", POLICY, entry="acme")
    site_packages.install("acme-two", POLICY, entry="acme")
    with pytest.raises(PluginDefinitionError) as raised:
        Runtime()

    assert {"acme-one", "acme-two", "'acme'"} <= {word.strip(";:,") for word in str(raised.value).split()}


def test_one_of_two_plugins_of_one_name_can_be_switched_off(
    site_packages: SitePackages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the message advises helps."""
    site_packages.install("acme-one", POLICY, entry="acme")
    site_packages.install("acme-two", POLICY, entry="acme")
    monkeypatch.setenv("LLMFLOW_DISABLE_PLUGINS", "acme-two")

    assert {("acme-one", "active"), ("acme-two", "disabled")} == {
        (one.distribution, one.status) for one in Runtime().plugins if one.name == "acme"
    }


def test_two_providers_of_one_name_are_refused(site_packages: SitePackages) -> None:
    """Two plugins that reach the same models: both are named, when such a model is first used."""
    site_packages.install("acme-one", PROVIDER)
    site_packages.install("acme-two", PROVIDER)
    with Runtime(), pytest.raises(PluginDefinitionError, match=r"'acme'.*acme-one 1\.0 and acme-two 1\.0"):
        plan(question)


def test_a_provider_of_llmflow_s_own_is_not_replaced(site_packages: SitePackages) -> None:
    """A plugin that also answers to `openai` collides with the built-in one; it never takes over in silence."""
    site_packages.install("acme-openai", PROVIDER.replace('"acme"', '"openai"'))
    with Runtime(), pytest.raises(PluginDefinitionError, match=r"'openai'.*acme-openai 1\.0 and llmflow-providers"):
        plan(question.with_(model="openai/gpt-5"))


# -- handed over -------------------------------------------------------------------------------------------------------


class Tenfold:
    """A plugin as an object."""

    @hookimpl
    def llmflow_policies(self, step: str) -> list[object]:
        return [Retry(10)] if step == "question" else []


def test_an_object_is_a_plugin() -> None:
    """`Runtime(plugins=[...])` takes an object with hooks, called as its class."""
    with Runtime(plugins=[Tenfold()]) as runtime:
        assert "plugin:Tenfold" in str(plan(question.with_(model=silent())))

    assert PluginInfo("Tenfold", hooks=("llmflow_policies",)) == found(runtime, "Tenfold")


def test_a_module_is_a_plugin(site_packages: SitePackages) -> None:
    """`Runtime(plugins=[...])` takes a module with hooks, called as the module."""
    name = "throw_away_handed_over"
    (site_packages.folder / f"{name}.py").write_text(POLICY)
    runtime = Runtime(plugins=[site_packages.module(name)])

    assert PluginInfo(name, hooks=("llmflow_policies",)) == found(runtime, name)


def test_two_objects_of_one_class_are_two_plugins() -> None:
    """Each is registered and asked."""

    class Listener:
        @hookimpl
        def llmflow_call_finished(self, event: object) -> None:
            """Listen."""

    names = [one.name for one in Runtime(plugins=[Listener(), Listener()]).plugins if not one.builtin]

    assert ["Listener", "Listener+"] == [one for one in names if one.startswith("Listener")]


def test_a_name_is_not_a_plugin() -> None:
    """Who writes a name where an object belongs is told that installed ones are found by themselves."""
    with pytest.raises(PluginDefinitionError, match="installed plugins are found by themselves"):
        Runtime(plugins=["llmflow_redact"])


def test_a_wrong_hook_of_an_object_is_refused_when_the_runtime_is_made() -> None:
    """An argument that the hook does not have is no error at the first call: it is one here."""

    class Wrong:
        @hookimpl
        def llmflow_call_finished(self, event: object, colour: str) -> None:
            """Never called."""

    with pytest.raises(PluginDefinitionError, match=r"'Wrong'.*colour"):
        Runtime(plugins=[Wrong()])


def test_an_unknown_hook_of_an_object_is_refused_when_the_runtime_is_made() -> None:
    """A hook's name that is misspelt would otherwise be a plugin that does nothing."""

    class Wrong:
        @hookimpl
        def llmflow_call_finnished(self, event: object) -> None:
            """Never called."""

    with pytest.raises(PluginDefinitionError, match=r"'Wrong'.*llmflow_call_finnished"):
        Runtime(plugins=[Wrong()])


def test_an_installed_plugin_need_not_be_handed_over(site_packages: SitePackages) -> None:
    """Who hands over a module that was found as well is told that one of the two is enough."""
    module = site_packages.install("acme-policies", POLICY, entry="acme")
    with pytest.raises(PluginDefinitionError, match=rf"'{module}' is registered already, as 'acme-policies 1\.0'"):
        Runtime(plugins=[site_packages.module(module)])


def test_plugin_errors_are_caught_as_what_they_are() -> None:
    """A plugin that cannot be registered is a DefinitionError for who wrote the program and a PluginError for who asks whose fault it is."""
    assert issubclass(PluginDefinitionError, DefinitionError)
    assert issubclass(PluginDefinitionError, PluginError)


def test_a_registry_without_discovery_sees_what_it_is_given(site_packages: SitePackages) -> None:
    """Tests of a plugin need not depend on what else is installed."""
    site_packages.install("acme-policies", POLICY)

    assert ["Tenfold"] == list(Registry([], [Tenfold()], discover=False).plugins)
