"""Finding plugins, registering them, and asking them.

pluggy is the registry; nothing here is on the path of a call. Entry points are loaded one by one, so that one that is
broken is reported and does not take the others with it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import pluggy

from llmflow import hookspecs
from llmflow.errors import DefinitionError, PluginDefinitionError
from llmflow.policy import Declared, check_policies
from llmflow.prompts import Wording
from llmflow.signals import HOOK_OF, Listener, Signals

if TYPE_CHECKING:
    from llmflow.journal import Redactor
    from llmflow.models import Model
    from llmflow.ports import Provider
    from llmflow.prices import Price

__all__ = ["GROUP", "PluginInfo", "Registry", "shown"]

GROUP = "llmflow"
DISABLE_VARIABLE = "LLMFLOW_DISABLE_PLUGINS"

logger = logging.getLogger("llmflow")


def shown(url: object) -> str:
    """Return a store's address as messages and reports may show it: without the user and password it may hold."""
    text = url if isinstance(url, str) else repr(url)
    scheme, slashes, rest = text.partition("://")
    place, slash, path = rest.partition("/")
    who, at, host = place.rpartition("@")
    return f"{scheme}{slashes}{'***' if who else ''}{at}{host}{slash}{path}"


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What is known about one plugin.

    Attributes:
        name: Its name in the entry-point group, or the name of the object that was handed over.
        distribution: The package it was installed with, empty for one that was handed over.
        hooks: The hooks it implements.
        status: `active`, `disabled` or `broken`.
        error: Why it is broken.
    """

    name: str
    distribution: str = ""
    version: str = ""
    hooks: tuple[str, ...] = ()
    status: str = "active"
    error: str = ""
    builtin: bool = field(default=False, repr=False)

    @property
    def label(self) -> str:
        """What plans and errors call it: the distribution and its version where there is one."""
        return f"{self.distribution} {self.version}".strip() or self.name


class Registry:
    """The plugins of one runtime.

    Args:
        builtins: llmflow's own, by name; they are asked last.
        plugins: Handed over by the author.
        discover: Whether installed plugins are looked up in the entry-point group `llmflow`.

    Raises:
        PluginDefinitionError: When a plugin that was handed over is wrong, or two are called the same.
    """

    def __init__(
        self, builtins: Sequence[tuple[str, object]], plugins: Iterable[object] = (), *, discover: bool = True
    ) -> None:
        self._manager = pluggy.PluginManager("llmflow")
        self._manager.add_hookspecs(hookspecs)
        self.plugins: dict[str, PluginInfo] = {}
        self._disabled: list[PluginInfo] = []
        for name, plugin in builtins:
            self._register(plugin, PluginInfo(name, builtin=True))
        if discover:
            self._discover()
        for plugin in plugins:
            self._hand_over(plugin)

    # -- registering ---------------------------------------------------------------------------------------------------

    def _discover(self) -> None:
        disabled = _disabled()
        for entry in sorted(entry_points(group=GROUP), key=lambda one: (one.name, _distribution(one)[0])):
            distribution, version = _distribution(entry)
            info = PluginInfo(entry.name, distribution, version)
            if disabled(entry.name) or disabled(distribution):
                self._disabled.append(replace(info, status="disabled"))
                continue
            self._check_name(info)
            self._load(entry, info)

    def _load(self, entry: EntryPoint, info: PluginInfo) -> None:
        """Import and register one plugin; what goes wrong is kept for the report."""
        try:
            self._register(entry.load(), info)
        except Exception as exc:  # noqa: BLE001  # importing somebody else's module may raise anything
            self.plugins[entry.name] = replace(info, status="broken", error=_one_line(exc))

    def _hand_over(self, plugin: object) -> None:
        if isinstance(plugin, str):
            msg = f"plugins=[{plugin!r}]: expected a module or an object with @hookimpl functions; installed plugins are found by themselves"
            raise PluginDefinitionError(msg, plugin=plugin)
        name = getattr(plugin, "__name__", None) or type(plugin).__name__
        info = PluginInfo(name)
        if (known := self.plugins.get(name)) is not None and known.distribution:
            self._check_name(info)
        if (registered := self._manager.get_name(plugin)) is not None:
            msg = f"plugin {name!r} is registered already, as {self.plugins[registered].label!r}; installed plugins are found by themselves"
            raise PluginDefinitionError(msg, plugin=name)
        while info.name in self.plugins:  # two objects of one class are two plugins
            info = PluginInfo(f"{info.name}+")
        try:
            self._register(plugin, info)
        except (pluggy.PluginValidationError, ValueError) as exc:
            msg = f"plugin {name!r}: {_one_line(exc)}"
            raise PluginDefinitionError(msg, plugin=name) from exc
        if not self.plugins[info.name].hooks:
            msg = f"plugin {name!r} implements no hook; mark its functions with @hookimpl. Policies go into Runtime(policies=[...])"
            raise PluginDefinitionError(msg, plugin=name)

    def add_builtin(self, name: str, plugin: object) -> None:
        """Register one more of llmflow's own, made after the others were asked."""
        self._register(plugin, PluginInfo(name, builtin=True))

    def _check_name(self, info: PluginInfo) -> None:
        known = self.plugins.get(info.name)
        if known is not None:
            mine = info.distribution or "one handed to Runtime(plugins=...)"
            msg = f"two plugins are called {info.name!r}: {known.distribution or 'llmflow itself'} and {mine}; uninstall one or disable it with {DISABLE_VARIABLE}"
            raise PluginDefinitionError(msg, plugin=info.distribution)

    def _register(self, plugin: object, info: PluginInfo) -> None:
        self._manager.register(plugin, name=info.name)
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError:
            self._manager.unregister(plugin)
            raise
        hooks = tuple(sorted(caller.name for caller in self._manager.get_hookcallers(plugin) or ()))
        self.plugins[info.name] = replace(info, hooks=hooks)

    @property
    def all(self) -> tuple[PluginInfo, ...]:
        """Every plugin: active, broken and disabled ones, llmflow's own included."""
        return (*self.plugins.values(), *self._disabled)

    # -- asking --------------------------------------------------------------------------------------------------------

    def _implementations(self, hook: str) -> Iterator[tuple[PluginInfo, Callable[..., Any], tuple[str, ...]]]:
        """Yield who implements a hook, foreign plugins by name and llmflow's own last."""
        found = [
            (self.plugins[one.plugin_name], one.function, one.argnames)
            for one in getattr(self._manager.hook, hook).get_hookimpls()
        ]
        return iter(sorted(found, key=lambda one: (one[0].builtin, one[0].distribution, one[0].name)))

    def policies(self, step: str) -> tuple[list[list[Declared]], list[Declared]]:
        """Return what each plugin contributes to a step, and what llmflow fills in by default.

        Plugins are levels of their own, in the order of their distributions' names: of two that contribute one kind of
        setting, the first decides.
        """
        contributed: list[list[Declared]] = []
        defaults: list[Declared] = []
        for info, function, arguments in self._implementations("llmflow_policies"):
            given = _ask(info, function, **_only(arguments, step=step))
            checked = check_policies(given or (), f"plugin {info.label!r}")
            if info.builtin:
                defaults += [Declared(policy, "default") for policy in checked]
            else:
                name = info.distribution or info.name
                contributed.append([Declared(policy, f"plugin:{info.label}", name) for policy in checked])
        return contributed, defaults

    def provider(self, name: str) -> tuple[Provider, PluginInfo]:
        """Return who reaches the models called `name/...`, and the plugin it comes from.

        Raises:
            DefinitionError: When nobody does, naming broken plugins that might have.
            PluginDefinitionError: When two plugins do.
        """
        found = self._first("llmflow_provider", f"provider {name!r}", name=name)
        if found is None:
            raise DefinitionError(self._no_provider(name))
        return found[1], found[0]

    def price(self, model: Model) -> Price | None:
        """Return what a model costs, None when no plugin knows; llmflow's own table is asked when no other knows."""
        what = f"the price of {model.name!r}"
        found = self._first("llmflow_price", what, builtin=False, model=model) or self._first(
            "llmflow_price", what, builtin=True, model=model
        )
        return None if found is None else found[1]

    def redactors(self, name: str) -> list[Redactor]:
        """Return what changes texts of a step, task or flow before they are stored, in the order of the plugins' names."""
        found: list[Any] = []
        for info, function, arguments in self._implementations("llmflow_redactors"):
            given: Iterable[Any] = _ask(info, function, **_only(arguments, name=name)) or ()
            for one in given:
                if not callable(one):
                    msg = f"plugin {info.label!r}: llmflow_redactors returned {one!r}, expected functions (str) -> str"
                    raise PluginDefinitionError(msg, plugin=info.distribution or info.name)
                found.append(one)
        return found

    def store(self, url: str, option: str) -> object:
        """Return the store that an address names; `option` is the argument of `Runtime` it was given as.

        Raises:
            DefinitionError: When no plugin knows its scheme.
            PluginDefinitionError: When two do.
        """
        found = self._first("llmflow_store", f"the store {shown(url)!r}", url=url)
        if found is None:
            msg = f"Runtime({option}={shown(url)!r}): no plugin supplies this store; built in are 'memory://' and 'sqlite:///path'"
            raise DefinitionError(msg)
        store: object = found[1]
        return store

    def prompt(self, name: str, label: str | None) -> Wording | None:
        """Return what a step asks with, None when no plugin says; llmflow's own files are asked when no other has it.

        Raises:
            PluginDefinitionError: When two plugins do, or one answers with something else.
        """
        what = f"the prompt {name!r}" if label is None else f"the prompt {name!r} with the label {label!r}"
        found = self._first("llmflow_prompt", what, builtin=False, name=name, label=label) or self._first(
            "llmflow_prompt", what, builtin=True, name=name, label=label
        )
        return None if found is None else _wording(*found, what)

    def _first(
        self, hook: str, what: str, *, builtin: bool | None = None, **arguments: object
    ) -> tuple[PluginInfo, Any] | None:
        """Return the only answer to a hook, of all plugins or of those that are built in or not."""
        answers = [
            (info, answer)
            for info, function, names in self._implementations(hook)
            if builtin in (None, info.builtin)
            and (answer := _ask(info, function, **_only(names, **arguments))) is not None
        ]
        if len(answers) > 1:
            one, other = answers[0][0].label, answers[1][0].label
            msg = f"two plugins supply {what}: {one} and {other}; disable one with {DISABLE_VARIABLE}"
            raise PluginDefinitionError(msg, plugin=one)
        return answers[0] if answers else None

    def _no_provider(self, name: str) -> str:
        broken = [one for one in self.all if one.status != "active"]
        hint = "; ".join(
            f"plugin {one.label!r} is {one.status}{': ' + one.error if one.error else ''}" for one in broken
        )
        ways = "use 'openai', 'anthropic' or 'google', Model(..., base_url=...) for an OpenAI-compatible service, Model(..., handler=...), or install its plugin"
        if name == "local":
            ways = "the embedded model is in the plugin llmflow-local: pip install llmflow-local"
        return f"no provider is called {name!r}; {ways}{f' ({hint})' if hint else ''}"

    # -- telling -------------------------------------------------------------------------------------------------------

    def signals(self) -> Signals:
        """Return the notify hooks as tuples of functions that never raise."""
        listeners = {kind: tuple(self._listeners(hook)) for kind, hook in HOOK_OF.items()}
        return Signals({kind: functions for kind, functions in listeners.items() if functions})

    def _listeners(self, hook: str) -> Iterator[Listener]:
        for info, function, arguments in self._implementations(hook):
            yield _guarded(function if arguments else _without_event(function), info, hook)


def _without_event(function: Callable[[], None]) -> Listener:
    return lambda event: function()  # noqa: ARG005  # pluggy lets a hook leave out arguments it does not need


def _guarded(function: Listener, info: PluginInfo, hook: str) -> Listener:
    """Return `function` such that a failure is logged, once, and the call goes on."""
    failed = False

    def tell(event: object) -> None:
        nonlocal failed
        try:
            function(event)
        except Exception:
            if not failed:
                failed = True
                logger.exception(
                    "the hook %s of plugin %r failed; further failures of it are not logged", hook, info.label
                )

    return tell


def _ask(info: PluginInfo, function: Callable[..., Any], **arguments: object) -> Any:
    try:
        return function(**arguments)
    except DefinitionError:
        raise
    except Exception as exc:
        msg = f"plugin {info.label!r} failed in {function.__name__}: {_one_line(exc)}"
        raise PluginDefinitionError(msg, plugin=info.distribution or info.name) from exc


def _wording(info: PluginInfo, answer: object, what: str) -> Wording:
    if not isinstance(answer, Wording):
        msg = f"plugin {info.label!r} gave {type(answer).__name__} as {what}, expected a Wording"
        raise PluginDefinitionError(msg, plugin=info.distribution or info.name)
    return answer if answer.origin else replace(answer, origin=f"plugin {info.label}")


def _only(names: tuple[str, ...], **arguments: object) -> dict[str, object]:
    return {name: value for name, value in arguments.items() if name in names}


def _disabled() -> Callable[[str], bool]:
    """Return the test for names that the environment switches off; `1` or `all` switches off every one."""
    said = {part.strip() for part in os.environ.get(DISABLE_VARIABLE, "").split(",") if part.strip()}
    if said & {"1", "all", "true"}:
        return lambda name: True  # noqa: ARG005
    return said.__contains__


def _distribution(entry: EntryPoint) -> tuple[str, str]:
    return (entry.dist.name, entry.dist.version) if entry.dist is not None else ("", "")


def _one_line(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {' '.join(str(exc).split())}"
