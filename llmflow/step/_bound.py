"""A step made ready: its prompt, its chain of policies, its provider, folded into one function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from llmflow.backend import cancelled_class
from llmflow.errors import (
    ContentFiltered,
    DeadlineExceeded,
    FallbackExhausted,
    InvalidOutput,
    LLMFlowError,
    ProviderTimeout,
    Refused,
    StepError,
    Truncated,
)
from llmflow.events import AttemptFinished, AttemptStarted, CallFinished, CallStarted
from llmflow.messages import Answer, Ask, Attempt, CallScope, Reply, Request, Result, Usage
from llmflow.models import Model, Params
from llmflow.policy import Band, Declared, fold
from llmflow.prices import Price, cost
from llmflow.prompts import Prompt
from llmflow.records import quick

from llmflow.context import new_id

if TYPE_CHECKING:
    from llmflow.context import Frame, Scope
    from llmflow.ports import Clock, Send
    from llmflow.schema import OutputSchema
    from llmflow.step._step import Step

__all__ = ["BoundSite", "BoundStep", "annotate", "chain_requests", "total_cost", "total_usage"]

S = TypeVar("S")

DEFAULT_MAX_TOKENS = 4096

# These are made on every call.
new_answer, new_ask, new_attempt = quick(Answer), quick(Ask), quick(Attempt)
new_request, new_result = quick(Request), quick(Result)
new_attempt_started, new_attempt_finished = quick(AttemptStarted), quick(AttemptFinished)
new_call_finished = quick(CallFinished)


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


class BoundStep:
    """One step in one runtime at one place; `invoke` is the path of every call."""

    __slots__ = (
        "_chain",
        "_clock",
        "_finished",
        "_started",
        "layers",
        "model",
        "models",
        "output",
        "runtime",
        "scope",
        "step",
        "version",
    )

    def __init__(self, step: Step[..., Any], runtime: Any, scope: Scope | None) -> None:
        self.step = step
        self.runtime = runtime
        self.scope = scope
        self.output: OutputSchema = step.output
        self.model: Model = runtime.model_for(step.name, step.model)
        self.layers: tuple[Declared, ...] = runtime.layers(step, scope)
        self.models: tuple[Model, ...] = (self.model, *runtime.further_models(self.layers))
        self.version = step.prompt_version
        self._clock: Clock = runtime.clock
        self._started = runtime.listeners(CallStarted)
        self._finished = runtime.listeners(CallFinished)
        self._chain = self._fold()

    # -- building ------------------------------------------------------------------------------------------------------

    def _fold(self) -> Callable[[Ask], Awaitable[Answer]]:
        outer = [one for one in self.layers if one.band <= Band.FALLBACK]
        inner = [one for one in self.layers if one.band > Band.FALLBACK]
        routes = {model: self._fold_route(inner, model) for model in self.models}
        return fold(outer, _dispatch(routes), lambda layer: self._site(layer, self.model))  # type: ignore[no-any-return]

    def _fold_route(self, layers: Sequence[Declared], model: Model) -> Callable[[Ask], Awaitable[Answer]]:
        """Fold what stands between the choice of a model and that model's provider."""
        calls = [one for one in layers if one.band.wraps_calls]
        requests = [one for one in layers if not one.band.wraps_calls]
        send = chain_requests(requests, self.runtime.connect(model, self.output), self._sites(model), self.runtime, model)
        repairs = any(one.band.rank == Band.REPAIR.rank for one in calls)
        params = self._params(model)
        parse = _parser(send, self.output, self.step.checks, params, local_repair=repairs)
        return fold(calls, parse, self._sites(model))  # type: ignore[no-any-return]

    def _params(self, model: Model) -> Params:
        defaults: Params = self.runtime.default_params(model)
        return {"max_tokens": DEFAULT_MAX_TOKENS, **defaults, **self.step.params}

    def _sites(self, model: Model) -> Callable[[Declared], BoundSite]:
        return lambda layer: self._site(layer, model)

    def _site(self, layer: Declared, model: Model) -> BoundSite:
        return BoundSite(
            step=self.step.name,
            flow=self.scope.flow if self.scope else None,
            model=model,
            models=self.models,
            policies=tuple(one.policy for one in self.layers),
            declared=layer.source,
            runtime=self.runtime,
        )

    # -- calling -------------------------------------------------------------------------------------------------------

    async def invoke(self, inputs: dict[str, object], around: Frame) -> Result[Any]:
        """Build the prompt, ask, and return the validated value with its record."""
        step, clock, run = self.step, self._clock, around.run
        started = clock.monotonic()
        call = CallScope(step=step.name, run_id=run.id, call_id=new_id())
        try:
            built = step.body(**inputs)
            if step.is_async:
                built = await built
        except Exception as exc:
            _say_where(exc, f"raised in the body of step {step.name!r}")
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
        )
        if self._started:
            self.runtime.emit(CallStarted(run_id=run.id, call_id=call.call_id, step=step.name))
        try:
            answer = await self._chain(ask)
        except BaseException as exc:
            failure = _explained(exc, call)
            if self._finished:
                error = type(failure).__name__ if isinstance(failure, Exception) else "cancelled"
                self._tell(call, clock.monotonic() - started, error)
            if failure is exc:
                raise
            raise failure from exc
        return self._record(answer, call, clock.monotonic() - started, around)

    def _record(self, answer: Answer, call: CallScope, latency: float, around: Frame) -> Result[Any]:
        attempts = tuple(call.attempts)
        result: Result[Any] = new_result(
            value=answer.value,
            usage=total_usage(attempts),
            cost_usd=total_cost(attempts),
            attempts=attempts,
            latency_s=latency,
            cached=answer.cached,
            repaired=answer.repaired,
            model=answer.model.name,
            prompt_version=self.version,
            run_id=call.run_id,
            step=call.step,
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
            raise
        result: Result[Any] = Result(value=checked, prompt_version=self.version, run_id=around.run.id, step=self.step.name)
        around.run.add(result)
        return result

    def _tell(self, call: CallScope, latency: float, error: str | None, result: Result[Any] | None = None) -> None:
        attempts = tuple(call.attempts)
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
            )
        )


def _dispatch(routes: Mapping[Model, Callable[[Ask], Awaitable[Answer]]]) -> Callable[[Ask], Awaitable[Answer]]:
    """Return what sends an ask down the chain of its model."""
    if len(routes) == 1:
        return next(iter(routes.values()))

    async def dispatch(ask: Ask) -> Answer:
        return await routes[ask.model](ask)

    return dispatch


# -- between the onions ------------------------------------------------------------------------------------------------


def _parser(
    send: Send, output: OutputSchema, checks: Sequence[Callable[..., None]], params: Params, *, local_repair: bool
) -> Callable[[Ask], Awaitable[Answer]]:
    """Return what turns an ask into a request and its reply into a value."""

    async def parse(ask: Ask) -> Answer:
        reply = await send(
            new_request(
                messages=ask.messages,
                model=ask.model,
                output=output,
                params=params,
                deadline=ask.deadline,
                call=ask.call,
                turns=ask.turns,
                sink=ask.sink,
            )
        )
        text = _text_of(reply, params)
        try:
            value, repaired = output.parse_or_repair(text, context=ask.context) if local_repair else (output.parse(text, context=ask.context), False)
            if checks:
                _run_checks(checks, value, ask.inputs, text)
        except InvalidOutput as error:
            error.reply = reply
            raise
        return new_answer(value=value, text=text, reply=reply, model=ask.model, repaired=repaired or bool(ask.turns))

    return parse


def _text_of(reply: Reply, params: Params) -> str:
    """Return the answer's text, or raise what the reply says went wrong."""
    if reply.finish_reason == "stop" and reply.text is not None:
        return reply.text
    error = _unfinished(reply, params)
    error.reply = reply
    raise error


def _unfinished(reply: Reply, params: Params) -> InvalidOutput:
    if reply.finish_reason == "length":
        limit = params.get("max_tokens")
        error: InvalidOutput = Truncated(f"the answer was cut after {limit} tokens", text=reply.text)
        error.add_note('Raise the limit with params={"max_tokens": ...} on the step, or ask for a shorter answer.')
        return error
    if reply.finish_reason == "refusal":
        return Refused("the model declined to answer", text=reply.text)
    if reply.finish_reason == "content_filter":
        return ContentFiltered("the provider's content filter withheld the answer", text=reply.text)
    return InvalidOutput("the reply holds no answer", problems=("the reply holds no answer",))


def _run_checks(checks: Sequence[Callable[..., None]], value: object, inputs: Mapping[str, object], text: str) -> None:
    for check in checks:
        try:
            check(value, inputs)
        except ValueError as exc:
            name = getattr(check, "__name__", type(check).__name__)
            msg = f"the answer does not pass the check {name!r}: {exc}"
            raise InvalidOutput(msg, text=text, problems=(str(exc),)) from exc


# -- around the provider -----------------------------------------------------------------------------------------------


def chain_requests(
    layers: Sequence[Declared], send: Send, site: Callable[[Declared], BoundSite], runtime: Any, model: Model
) -> Send:
    """Fold the request layers round a provider, with the record of every physical request just outside of `TIMEOUT`."""
    outside = [one for one in layers if one.band < Band.TIMEOUT]
    inside = [one for one in layers if one.band >= Band.TIMEOUT]
    recorded = _recorder(fold(inside, send, site), runtime, model)
    return fold(outside, recorded, site)  # type: ignore[no-any-return]


def _recorder(send: Send, runtime: Any, model: Model) -> Send:
    """Return `send` with a record kept of each request, whatever becomes of it."""
    clock: Clock = runtime.clock
    on_started = runtime.listeners(AttemptStarted)
    on_finished = runtime.listeners(AttemptFinished)
    price: Price | None = runtime.price(model)

    async def record(request: Request) -> Reply:
        call = request.call
        started = clock.monotonic()
        if started >= request.deadline:
            raise _no_time(model)
        call.started = number = call.started + 1
        if on_started:
            event = new_attempt_started(run_id=call.run_id, call_id=call.call_id, step=call.step, model=model.name, number=number)
            runtime.emit(event)
        try:
            reply = await send(request)
        except BaseException as exc:
            keep(request, number, clock.monotonic() - started, exc)
            raise
        keep(request, number, clock.monotonic() - started, None, reply.usage)
        return reply

    def keep(request: Request, number: int, latency: float, exc: BaseException | None, usage: Usage | None = None) -> None:
        call = request.call
        error = exc if isinstance(exc, StepError) else None
        attempt = new_attempt(
            model=model.name,
            number=number,
            outcome="ok" if exc is None else _outcome(exc, overdue=clock.monotonic() >= request.deadline),
            latency_s=latency,
            usage=usage,
            cost_usd=cost(usage, price),
            status=error.status if error is not None else None,
            error=error,
        )
        call.attempts.append(attempt)
        if on_finished:
            runtime.emit(_finished(call, attempt))

    return record


def _outcome(exc: BaseException, *, overdue: bool) -> str:
    if isinstance(exc, StepError):
        return "cut" if isinstance(exc, ProviderTimeout) and exc.cut else exc.kind
    if isinstance(exc, cancelled_class()):
        # The deadline of the flow around may ring in the same instant as the one kept here; it is a cut all the same.
        return "cut" if overdue else "cancelled"
    return type(exc).__name__


def _finished(call: CallScope, attempt: Attempt) -> AttemptFinished:
    return new_attempt_finished(
        run_id=call.run_id,
        call_id=call.call_id,
        step=call.step,
        model=attempt.model,
        number=attempt.number,
        outcome=attempt.outcome,
        latency_s=attempt.latency_s,
        usage=attempt.usage,
        cost_usd=attempt.cost_usd,
        status=attempt.status,
    )


def _no_time(model: Model) -> ProviderTimeout:
    msg = f"no time is left to ask {model.name}"
    return ProviderTimeout(msg, cut=True, provider=model.provider, model=model.name)


# -- records -----------------------------------------------------------------------------------------------------------


def total_usage(attempts: Sequence[Attempt]) -> Usage | None:
    """Add up what the attempts used, None when none of them said."""
    if len(attempts) == 1:
        return attempts[0].usage
    known = [one.usage for one in attempts if one.usage is not None]
    return sum(known[1:], known[0]) if known else None


def total_cost(attempts: Sequence[Attempt]) -> Decimal | None:
    """Add up what the attempts cost, None as soon as one is unknown."""
    if not attempts:
        return None
    total = Decimal(0)
    for one in attempts:
        if one.cost_usd is None:
            return None
        total += one.cost_usd
    return total


def annotate(error: StepError, step: str, run_id: str, attempts: Sequence[Attempt]) -> None:
    """Tell a failure which call it ended, unless a call further in has done so."""
    if error.step is not None:
        return
    error.step = step
    error.run_id = run_id
    error.attempts = tuple(attempts)
    error.cost_usd = total_cost(attempts)
    error.args = (f"step {step!r}: {error.args[0]}", *error.args[1:])


def _explained(exc: BaseException, call: CallScope) -> BaseException:
    """Return what to raise for what ended a call, saying which call it was."""
    if isinstance(exc, StepError):
        failure = _overdue(exc)
        annotate(failure, call.step, call.run_id, call.attempts)
        return failure
    if isinstance(exc, Exception) and not isinstance(exc, LLMFlowError):
        _say_where(exc, f"raised in a call of step {call.step!r}")
    return exc


def _overdue(error: StepError) -> StepError:
    """Return what to raise: a request that was cut because the call's time was up is the deadline's failure."""
    last = error.causes[-1] if isinstance(error, FallbackExhausted) and error.causes else error
    if isinstance(last, ProviderTimeout) and last.cut:
        return DeadlineExceeded("the deadline has passed")
    return error


def _say_where(exc: Exception, note: str) -> None:
    if note not in getattr(exc, "__notes__", ()):
        exc.add_note(note)

