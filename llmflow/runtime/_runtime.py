"""The runtime: plugins, policies and models for the calls made while it is current."""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from llmflow.context import Scope, runtimes
from llmflow.errors import DefinitionError
from llmflow.events import RunFinished, RunStarted
from llmflow.graph import abandoned_threads
from llmflow.models import Model, Params, as_model
from llmflow.observers import Ledger, LogObserver, Stats, StatsObserver, journal_observer
from llmflow.plugins import PluginInfo, Registry
from llmflow.policies import _defaults as default_policies
from llmflow.policies._breaker import Breaker
from llmflow.policies._rate_limiter import Limiter
from llmflow.policies._retry_bucket import RetryBucket
from llmflow.policy import Band, Declared, Off, Policy, State, check_policies, resolve
from llmflow.prices import Price
from llmflow.providers import _plugin as provider_plugin
from llmflow.providers._price_table import PriceTable
from llmflow.runtime._clock import SystemClock
from llmflow.runtime._config import read_config
from llmflow.runtime._connect import connect_foreign, connect_handler
from llmflow.runtime._identity import identity
from llmflow.runtime._stores import Stores
from llmflow.runtime._wordings import Wordings
from llmflow.step import OnChange, Recorder, close_portals, steps_of
from llmflow.stores import StorePlugin
from llmflow.wordings import PromptFiles

if TYPE_CHECKING:
    from os import PathLike
    from types import TracebackType
    from typing import Self

    from llmflow.engine import LocalEngine
    from llmflow.messages import OutputFormat
    from llmflow.ports import CacheStore, Clock, Journal, Provider, Send
    from llmflow.signals import Listener
    from llmflow.step import Bound, Unit

__all__ = ["Runtime", "default_runtime"]

S = TypeVar("S")

_PATIENCE = 2.0
"""Seconds that `close` waits for threads nobody waits for any more."""


class Runtime:
    """What calls are made in: which plugins act, which policies hold for all, which model is asked when none is named.

    Enter it (`with` or `async with`) or `install()` it; the outermost one that is entered is the default of the whole
    process until it exits. Without any, one is made from `[tool.llmflow]` in pyproject.toml and `LLMFLOW_*` variables.

    Args:
        plugins: Modules or objects with `@hookimpl` functions, beside those that are installed.
        policies: For every step; a declaration on a step or its flow goes before.
        store: Where caches live: `memory://`, `sqlite:///path/to/file.db`, or what a plugin supplies.
        cache: A store for the cache alone.
        journal: A store for the journal alone.
        shared: A store for shared state alone.
        default_model: The model of steps that name none.
        models: Models to use instead of others, by name: `{"openai/gpt-5-mini": Model(...)}`.
        prices: Dollars per million tokens, by model name; goes before every price table.
        prompts: A folder of prompt files, `<step>.md` and `<step>@<label>.md`. A file is read once, when its step is
            bound, so that an edit needs a new process.
        variants: By step, the weights of its prompt's labels: `{"triage": {"production": 9, "canary": 1}}`. Beside them
            `"sticky"` may name the tag of `llmflow.context(tags=...)` whose values keep their variant.
        engine: Where flows run; `local` is this process.
        clock: Where time comes from; for tests.
        seed: Makes the jitter of retries repeatable.
        store_content: Whether the journal stores inputs and outputs, or only their hashes. Unless said, a file stores
            them; in memory they are stored for runs with an id, which cannot be taken up without.
        on_change: What to do when a run is taken up again and a prompt, the graph or the inputs of a node are not what
            they were: `refuse` with a `RunConflict` that names them, `use-recorded` answers all the same, or
            `rerun-changed` nodes, which pays for them again.

    Raises:
        DefinitionError: For options that do not fit.
        PluginDefinitionError: For a plugin that cannot be registered.
    """

    def __init__(
        self,
        *,
        plugins: Iterable[object] = (),
        policies: Iterable[Policy | Off] = (),
        store: str = "memory://",
        cache: str | None = None,
        journal: str | None = None,
        shared: str | None = None,
        default_model: Model | str | None = None,
        models: Mapping[str, Model | str] | None = None,
        prices: Mapping[str, Price] | None = None,
        prompts: str | PathLike[str] | None = None,
        variants: Mapping[str, Mapping[str, float | str]] | None = None,
        engine: str = "local",
        clock: Clock | None = None,
        seed: int | None = None,
        store_content: bool | None = None,
        on_change: OnChange = "refuse",
    ) -> None:
        if engine != "local":
            msg = f"no plugin supplies the engine {engine!r}; built in is 'local'"
            raise DefinitionError(msg)
        self.policies = check_policies(policies, "the runtime")
        self.default_model = None if default_model is None else as_model(default_model)
        self.models = {name: as_model(model) for name, model in (models or {}).items()}
        self.prices = _check_prices(prices or {})
        self.clock: Clock = clock or SystemClock()
        self.random = Random(seed)  # noqa: S311  # jitter, not secrets
        self._stats = StatsObserver()
        self._ledger = Ledger(self.clock.time)
        files = None if prompts is None else PromptFiles(prompts)
        self._registry = Registry(self._builtins(files), plugins)
        self.wordings = Wordings(self._registry, files, variants or {})
        self._stores = Stores(self._registry, self.clock, store=store, cache=cache, journal=journal, shared=shared)
        self.recorder = Recorder(
            self._stores.journal,
            self.clock,
            store_content=_checked(store_content, "store_content", (None, True, False)),
            on_change=_checked(on_change, "on_change", get_args(OnChange)),
            redactors=self._registry.redactors,
            versions=lambda step: [one.prompt_version for one in steps_of(step, self).values()],
        )
        observer = journal_observer(self.recorder.journal)
        self._registry.add_builtin("llmflow-journal", observer)
        self._signals = self._registry.signals()
        # Asked by every call:
        self.hears_starts = bool(self.listeners(RunStarted))
        self.hears_ends = bool(self.listeners(RunFinished))
        self.watches_runs = self.hears_starts or self.hears_ends
        self.records_runs = self.recorder.is_durable
        self.override_model: Model | None = None
        self.override_policies: tuple[Any, ...] = ()
        self._providers: dict[str, tuple[Provider, PluginInfo]] = {}
        self._shared: dict[Hashable, Any] = {}
        self._origins: dict[str, weakref.ref[Any]] = {}
        self._lock = threading.RLock()
        self._leave: list[Callable[[], None]] = []

    def _builtins(self, files: PromptFiles | None) -> list[tuple[str, object]]:
        return [
            ("llmflow-policies", default_policies),
            ("llmflow-providers", provider_plugin),
            ("llmflow-stores", StorePlugin(self.clock)),
            ("llmflow-prices", PriceTable(self.clock.time)),
            ("llmflow-stats", self._stats),
            ("llmflow-ledger", self._ledger),
            ("llmflow-log", LogObserver()),
            *([] if files is None else [("llmflow-prompts", files)]),
        ]

    @cached_property
    def engine(self) -> LocalEngine:
        """What runs the graphs of flows."""
        from llmflow.engine import LocalEngine  # a program of single steps never needs it

        return LocalEngine()

    # -- being current -------------------------------------------------------------------------------------------------

    def install(self) -> Self:
        """Make this the runtime of the whole process, until another is entered or `close()` is called."""
        self._leave.append(runtimes.enter(self))
        return self

    def __enter__(self) -> Self:
        return self.install()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self.install()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._step_down()
        await self.aclose()

    def _step_down(self) -> None:
        if self._leave:
            self._leave.pop()()

    def close(self) -> None:
        """Stop being current, close the connections of past `.sync()` calls and stop their event loops.

        What waits to be written to a file is written.
        Threads of tasks that were abandoned are waited for, a few seconds at most.
        """
        self._step_down()
        close_portals(self.aclose)
        self._stores.close()
        abandoned_threads(self).join(_PATIENCE)

    async def aclose(self) -> None:
        """Close the connections that were opened on the running event loop, and write what waits to be written."""
        for provider, _ in list(self._providers.values()):
            await provider.aclose()
        await self._stores.aclose()

    @contextmanager
    def override(
        self, *, model: Model | str | None = None, policies: Iterable[Policy | Off] = ()
    ) -> Generator[Runtime]:
        """Use another model for every step, and policies that go before all others, while the block runs; for tests."""
        made = copy.copy(self)
        made.override_model = self.override_model if model is None else as_model(model)
        made.override_policies = (*check_policies(policies, "Runtime.override()"), *self.override_policies)
        leave = runtimes.enter(made)
        try:
            yield made
        finally:
            leave()

    # -- what binding a step asks for ----------------------------------------------------------------------------------

    def bind(self, unit: Unit[..., Any], scope: Scope | None) -> Bound:
        """Make a step, task or flow ready; refuses a second one of the same name."""
        with self._lock:
            self._check_origin(unit)
        return unit.bind(self, scope)

    def _check_origin(self, unit: Unit[..., Any]) -> None:
        """Refuse two functions of one name: they could not be told apart in records, limits and reports.

        A function that was defined again (a notebook cell, a reload) takes the place of its older self, and functions
        inside other functions are not compared, as each call of the outer one makes new ones.
        """
        reference = self._origins.get(unit.name)
        known = reference() if reference is not None else None
        function: Any = unit.function
        if (
            known is not None
            and known is not function
            and _place(known) != _place(function)
            and not _is_local(known, function)
        ):
            one, other = f"{known.__module__}:{known.__code__.co_firstlineno}", unit.origin
            msg = f"two functions are called {unit.name!r}: {one} and {other}; give one of them a name, @{unit.kind}(..., name='...')"
            raise DefinitionError(msg)
        self._origins[unit.name] = weakref.ref(function)

    def layers(self, unit: Unit[..., Any], scope: Scope | None) -> tuple[Declared, ...]:
        """Return the policies that act on a unit, outermost first, with who supplied each."""
        contributed, defaults = self._registry.policies(unit.name)
        levels = [
            [Declared(one, "override") for one in self.override_policies],
            [Declared(one, f"{unit.kind}:{unit.name}") for one in unit.policies],
            *(
                [Declared(one, f"flow:{around.flow}") for one in around.policies]
                for around in (scope.path() if scope else ())
            ),
            [Declared(one, "runtime") for one in self.policies],
            *contributed,
        ]
        return tuple(one for one in resolve(levels, defaults) if not _acts_on_the_run(one))

    @property
    def flow_deadline(self) -> float | None:
        """Seconds that a whole flow may take by the runtime's own policies, None without a limit."""
        found = [
            one.seconds
            for one in (*self.override_policies, *self.policies)
            if not isinstance(one, Off) and one.band == Band.DEADLINE
        ]
        return min(found, default=None)

    def model_for(self, step: str, model: Model | None) -> Model:
        """Return the model that a step asks.

        Raises:
            DefinitionError: When neither the step nor the runtime names one.
        """
        chosen = self.override_model or model or self.default_model
        if chosen is None:
            msg = (
                f"step {step!r} has no model and the runtime has no default; write @step('provider/name'), "
                f"Runtime(default_model=...), or set LLMFLOW_DEFAULT_MODEL"
            )
            raise DefinitionError(msg)
        return self._instead_of(chosen)

    def further_models(self, layers: Iterable[Declared]) -> tuple[Model, ...]:
        """Return the models that policies bring in beside the step's own, such as those of `Fallback`."""
        if self.override_model is not None:
            return ()
        return tuple(self._instead_of(model) for one in layers for model in getattr(one.policy, "models", ()))

    def _instead_of(self, model: Model) -> Model:
        if model.handler is not None or model.client is not None:
            return model
        return self.models.get(model.name, model)

    def default_params(self, model: Model) -> Params:
        """Return the parameters a model is given unless the step says otherwise."""
        price = self.price(model)
        return {} if price is None or price.max_output is None else {"max_tokens": price.max_output}

    def connect(self, model: Model, output: OutputFormat) -> Send:
        """Return what sends a step's requests to a model."""
        if model.handler is not None:
            return connect_handler(model)
        provider, plugin = self._provider("client" if model.client is not None else model.provider)
        if plugin.builtin:
            return provider.connect(model, output)
        return connect_foreign(provider, plugin.label, model, output)

    def _provider(self, name: str) -> tuple[Provider, PluginInfo]:
        with self._lock:
            found = self._providers.get(name)
            if found is None:
                found = self._providers[name] = self._registry.provider(name)
            return found

    def price(self, model: Model) -> Price | None:
        """Return what a model costs, None when nobody knows."""
        return model.price or self.prices.get(model.name) or self._registry.price(model)

    def identity(self, model: Model) -> str:
        """Return what tells a model's connection from others in a cache; see `Site.identity`."""
        return identity(model, lambda: self._provider(model.provider)[0])

    @property
    def journal(self) -> Journal:
        """Where runs are recorded."""
        return self.recorder.journal

    @property
    def cache_store(self) -> CacheStore:
        """Where accepted answers are kept."""
        return self._stores.cache

    def shared(self, key: Hashable, make: Callable[[], S]) -> S:
        """Return the one object under `key`, made at the first call."""
        with self._lock:
            if key not in self._shared:
                self._shared[key] = make()
            return self._shared[key]  # type: ignore[no-any-return]

    # -- being watched -------------------------------------------------------------------------------------------------

    def emit(self, event: object) -> None:
        """Tell every listener what happened."""
        self._signals.emit(event)

    def listeners(self, kind: type) -> tuple[Listener, ...]:
        """Return who listens to a class of event."""
        return self._signals.listeners(kind)

    def stats(self) -> Stats:
        """Return counts and latencies since the runtime was made: operations by step, attempts by model."""
        return replace(
            self._stats.snapshot(), abandoned_threads=abandoned_threads(self).running, states=tuple(self._states())
        )

    @property
    def ledger(self) -> Ledger:
        """Every physical request and every answer that took none: the latest rows, and totals since the runtime was made."""
        return self._ledger

    def _states(self) -> Iterator[State]:
        """Yield what the shared objects of policies say about themselves."""
        with self._lock:
            objects = tuple(self._shared.values())
        for one in (self._stores, *objects):
            if (state := getattr(one, "state", None)) is not None and (said := state()) is not None:
                yield said

    def reset_breaker(self, model: Model | str | None = None) -> int:
        """Close the circuit breakers of a model, or every one, and forget what they have counted.

        Args:
            model: Its name, or the model itself to reset only those of its connection.

        Returns:
            How many breakers there were.
        """
        with self._lock:
            found = [one for one in self._shared.values() if isinstance(one, Breaker) and one.guards(model)]
        for one in found:
            one.reset()
        return len(found)

    def reset_limits(self, model: Model | str | None = None) -> int:
        """Forget what the rate limits of a model, or all, have counted and heard, and fill the buckets of its retries.

        Args:
            model: Its name, or the model itself to reset only those of its connection.

        Returns:
            How many rate limits and buckets there were.
        """
        kinds = (Limiter, RetryBucket)
        with self._lock:
            found = [one for one in self._shared.values() if isinstance(one, kinds) and one.guards(model)]
        for one in found:
            one.reset()
        return len(found)

    @property
    def plugins(self) -> tuple[PluginInfo, ...]:
        """Every plugin, active, disabled and broken ones, llmflow's own included."""
        return self._registry.all

    def __repr__(self) -> str:
        return f"<Runtime default_model={self.default_model!r} policies={self.policies!r}>"


def _checked(value: Any, name: str, choices: tuple[Any, ...]) -> Any:
    if value not in choices:
        msg = f"Runtime({name}={value!r}): expected one of {', '.join(map(repr, choices))}"
        raise DefinitionError(msg)
    return value


def _acts_on_the_run(layer: Declared) -> bool:
    """A deadline on a flow is kept by the flow, for the run as a whole."""
    return layer.band == Band.DEADLINE and layer.source.startswith("flow:")


def _place(function: Any) -> tuple[str, str]:
    return function.__module__, function.__qualname__


def _is_local(*functions: Any) -> bool:
    return any("<locals>" in function.__qualname__ for function in functions)


def _check_prices(prices: Mapping[str, Price]) -> dict[str, Price]:
    if not isinstance(prices, Mapping):
        msg = (
            f"Runtime(prices={prices!r}): expected a dict such as {{'openai/gpt-5-mini': Price(input=..., output=...)}}"
        )
        raise DefinitionError(msg)
    for name, price in prices.items():
        if not isinstance(price, Price):
            msg = f"Runtime(prices=...): the price of {name!r} is {price!r}, expected Price(input=..., output=...)"
            raise DefinitionError(msg)
        if "/" not in name:
            msg = f"Runtime(prices=...): {name!r} does not name its provider; write it as 'provider/name'"
            raise DefinitionError(msg)
    return dict(prices)


def default_runtime(**otherwise: Any) -> Runtime:
    """Make the runtime that is used when nobody entered one, from pyproject.toml and the environment.

    Args:
        **otherwise: Options of `Runtime` for what they do not say.
    """
    config = read_config()
    said: dict[str, Any] = {name: one.value for name, one in config.settings.items()}
    said["prices"] = config.prices()
    for port in ("cache", "journal"):
        if "store" in said and port not in said:
            otherwise.pop(port, None)  # it is where everything is
    return Runtime(**(otherwise | said))
