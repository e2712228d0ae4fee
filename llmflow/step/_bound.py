"""A step made ready: its prompt, its chain of policies, its provider, folded into one function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from llmflow.context import caller, new_id
from llmflow.errors import InvalidOutput
from llmflow.events import CallFinished, CallStarted
from llmflow.messages import Answer, Ask, CallScope, Result
from llmflow.models import DEFAULT_MAX_TOKENS, Model, Params
from llmflow.policy import Band, Declared, fold
from llmflow.prompts import Prompt
from llmflow.records import quick
from llmflow.step._attempts import chain_requests
from llmflow.step._parse import parser, reader, refuse_to_parse
from llmflow.step._record import annotate, explained, say_where, total_cost, total_usage

if TYPE_CHECKING:
    from llmflow.context import Frame, Scope
    from llmflow.ports import CacheStore, Clock
    from llmflow.prices import Price
    from llmflow.schema import OutputSchema
    from llmflow.step._feed import Feed
    from llmflow.step._step import Step

__all__ = ["BoundSite", "BoundStep", "shortest_deadline"]

S = TypeVar("S")

_free = Decimal(0)

new_ask, new_result, new_call_finished = quick(Ask), quick(Result), quick(CallFinished)  # made on every call


@dataclass(frozen=True, slots=True)
class BoundSite:
    """The `Site` a policy is given."""

    step: str
    flow: str | None
    model: Model
    models: tuple[Model, ...]
    policies: tuple[Any, ...]
    declared: str
    runtime: Any
    params: Params
    price: Price | None = None
    parse: Callable[[str, Ask], tuple[Any, bool]] = refuse_to_parse

    def identity(self) -> str:
        return self.runtime.identity(self.model)  # type: ignore[no-any-return]

    @property
    def cache_store(self) -> CacheStore:
        return self.runtime.cache_store  # type: ignore[no-any-return]

    @property
    def clock(self) -> Clock:
        return self.runtime.clock  # type: ignore[no-any-return]

    @property
    def random(self) -> Random:
        return self.runtime.random  # type: ignore[no-any-return]

    def emit(self, event: object, /) -> None:
        self.runtime.emit(event)

    def listens(self, kind: type, /) -> bool:
        return bool(self.runtime.listeners(kind))

    def shared(self, key: Hashable, make: Callable[[], S], /) -> S:
        return self.runtime.shared(key, make)  # type: ignore[no-any-return]


def shortest_deadline(layers: Iterable[Declared]) -> float:
    """Return how many seconds a call within these policies may take."""
    said = [getattr(one.policy, "seconds", None) for one in layers if one.band == Band.DEADLINE]
    return min((float(one) for one in said if isinstance(one, int | float)), default=float("inf"))


class BoundStep:
    """One step in one runtime at one place; `invoke` is the path of every call."""

    __slots__ = (
        "_chain",
        "_clock",
        "_finished",
        "_read",
        "_started",
        "label",
        "layers",
        "limit",
        "model",
        "models",
        "output",
        "runtime",
        "scope",
        "step",
        "version",
    )

    def __init__(self, step: Step[..., Any], runtime: Any, scope: Scope | None, label: str | None = None) -> None:
        self.step = step
        self.label = label
        self.runtime = runtime
        self.scope = scope
        self.output: OutputSchema = step.output
        self.model: Model = runtime.model_for(step.name, step.model)
        self.layers: tuple[Declared, ...] = runtime.layers(step, scope)
        self.limit = shortest_deadline(self.layers)
        self.models: tuple[Model, ...] = (self.model, *runtime.further_models(self.layers))
        self.version = step.prompt_version
        self._clock: Clock = runtime.clock
        self._started = runtime.listeners(CallStarted)
        self._finished = runtime.listeners(CallFinished)
        repairs = any(one.band.rank == Band.REPAIR.rank for one in self.layers)
        self._read = reader(self.output, step.checks, local_repair=repairs)
        self._chain = self._fold()

    @property
    def versions(self) -> tuple[str, ...]:
        """The prompt versions its calls may have."""
        return (self.version,)

    @property
    def prompts(self) -> tuple[tuple[Step[..., Any], str | None], ...]:
        """The steps whose prompts its calls may use, with the labels of variants."""
        return ((self.step, self.label),)

    # -- building ------------------------------------------------------------------------------------------------------

    def _fold(self) -> Callable[[Ask], Awaitable[Answer]]:
        outer = [one for one in self.layers if one.band <= Band.FALLBACK]
        inner = [one for one in self.layers if one.band > Band.FALLBACK]
        routes = {model: self._fold_route(inner, model) for model in self.models}
        if len(routes) == 1 and all(type(one.policy).__module__.startswith("llmflow.") for one in outer):
            dispatch = routes[self.model]
        else:
            dispatch = _dispatch(routes, lambda model: self._fold_route(inner, model))
        return fold(outer, dispatch, self._sites(self.model))  # type: ignore[no-any-return]

    def _fold_route(self, layers: Sequence[Declared], model: Model) -> Callable[[Ask], Awaitable[Answer]]:
        """Fold what stands between the choice of a model and that model's provider."""
        calls = [one for one in layers if one.band.wraps_calls]
        requests = [one for one in layers if not one.band.wraps_calls]
        sites = self._sites(model)
        send = chain_requests(requests, self.runtime.connect(model, self.output), sites, self.runtime, model)
        parse = parser(send, self._read, self.params(model))
        return fold(calls, parse, sites)  # type: ignore[no-any-return]

    def params(self, model: Model) -> Params:
        """Return what every request to `model` carries."""
        defaults: Params = self.runtime.default_params(model)
        return {"max_tokens": DEFAULT_MAX_TOKENS, **defaults, **self.step.params}

    def _sites(self, model: Model) -> Callable[[Declared], BoundSite]:
        """Return what gives each layer its site; all but who declared it is looked up once for a model."""
        site = BoundSite(
            step=self.step.name,
            flow=self.scope.flow if self.scope else None,
            model=model,
            models=self.models,
            policies=tuple(one.policy for one in self.layers),
            declared="",
            runtime=self.runtime,
            params=self.params(model),
            price=self.runtime.price(model),
            parse=self._read,
        )
        return lambda layer: replace(site, declared=layer.source)

    # -- calling -------------------------------------------------------------------------------------------------------

    async def invoke(self, inputs: dict[str, object], around: Frame, feed: Feed | None = None) -> Result[Any]:
        """Build the prompt, ask, and return the validated value with its record; `feed` gets the answer as it comes."""
        step, clock, run = self.step, self._clock, around.run
        started = clock.monotonic()
        call = CallScope(
            step=step.name,
            run_id=run.id,
            call_id=new_id(),
            node=None if run.record is None else around.node,
            run=run,
            prompt_version=self.version,
            label=self.label,
        )
        try:
            built: Any = step.body(**inputs)
            if step.is_async:
                built = await built
        except Exception as exc:
            say_where(exc, f"raised in the body of step {step.name!r}")
            raise
        if type(built) is not Prompt:
            return self._without_asking(built, call, around)
        ask = new_ask(
            messages=step.messages(built, inputs),
            model=self.model,
            output=self.output,
            inputs=inputs,
            deadline=around.deadline,
            call=call,
            context=built.context,
            sink=None if feed is None else feed.of(call),
        )
        if self._started:
            self.runtime.emit(CallStarted(run_id=run.id, call_id=call.call_id, step=step.name))
        try:
            answer = await self._chain(ask)
        except BaseException as exc:
            latency = clock.monotonic() - started
            failure = explained(exc, call, latency)
            if self._finished:
                error = type(failure).__name__ if isinstance(failure, Exception) else "cancelled"
                self._tell(call, latency, error)
            if failure is exc:
                raise
            raise failure from exc
        return self._record(answer, call, clock.monotonic() - started, around)

    def _record(self, answer: Answer, call: CallScope, latency: float, around: Frame) -> Result[Any]:
        attempts = tuple(call.attempts)
        result: Result[Any] = new_result(
            value=answer.value,
            usage=total_usage(attempts),
            cost_usd=_free if answer.cached and not attempts else total_cost(attempts),
            attempts=attempts,
            latency_s=latency,
            cached=answer.cached,
            repaired=answer.repaired,
            model=answer.model.name,
            prompt_version=self.version,
            prompt_label=self.label,
            run_id=call.run_id,
            step=call.step,
            saved_usd=answer.saved_usd,
        )
        around.run.add(result)
        if self._finished:
            self._tell(call, latency, None, result)
        return result

    def _without_asking(self, value: object, call: CallScope, around: Frame) -> Result[Any]:
        """Take a value that the body returned instead of a prompt, checked like an answer."""
        try:
            checked = self.output.validate_value(value)
        except InvalidOutput as error:
            annotate(error, call.step, call.run_id, ())
            if value is None:
                error.add_note("A body returns prompt(...); is a `return` missing?")
            raise
        result: Result[Any] = Result(
            value=checked,
            prompt_version=self.version,
            prompt_label=self.label,
            run_id=around.run.id,
            step=self.step.name,
        )
        around.run.add(result)
        return result

    def _tell(self, call: CallScope, latency: float, error: str | None, result: Result[Any] | None = None) -> None:
        attempts = tuple(call.attempts)
        who = caller.get()
        self.runtime.emit(
            new_call_finished(
                run_id=call.run_id,
                call_id=call.call_id,
                step=call.step,
                latency_s=latency,
                attempts=call.started,
                reasks=call.reasks,
                model=result.model if result else None,
                error=error,
                repaired=result.repaired if result else False,
                cached=result.cached if result else False,
                usage=result.usage if result else total_usage(attempts),
                cost_usd=result.cost_usd if result else total_cost(attempts),
                prompt_version=self.version,
                label=self.label,
                tenant=who.tenant,
                tags=who.tags or None,
                saved_usd=result.saved_usd if result else None,
                waited_s=call.waited_s,
                throttled=call.throttled,
                node=call.node,
            )
        )


def _dispatch(
    routes: dict[Model, Callable[[Ask], Awaitable[Answer]]],
    connect: Callable[[Model], Callable[[Ask], Awaitable[Answer]]],
) -> Callable[[Ask], Awaitable[Answer]]:
    """Return what sends an ask down the chain of its model; a model that a policy brings in is connected when it comes."""

    async def dispatch(ask: Ask) -> Answer:
        route = routes.get(ask.model)
        if route is None:
            route = routes[ask.model] = connect(ask.model)
        return await route(ask)

    return dispatch
