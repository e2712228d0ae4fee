"""A task made ready: its body alone, or its body under the policies that are named on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from llmflow.backend import cancelled_class
from llmflow.context import Frame, frame, new_id
from llmflow.errors import DeadlineExceeded, PluginCallError, ProviderTimeout, StepError
from llmflow.messages import Answer, Ask, Attempt, CallScope, Reply, Request, Result
from llmflow.models import Model
from llmflow.policy import Band, Declared, fold
from llmflow.records import quick
from llmflow.step import BoundSite, shortest_deadline

if TYPE_CHECKING:
    from llmflow.context import Scope
    from llmflow.ports import Clock, Send

__all__ = ["Body", "FoldedTask", "PlainTask", "TaskReply", "TaskRequest"]

_quick_result = quick(Result)

Body: TypeAlias = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest(Request):
    """What the request layers of a task see: no messages, but the arguments."""

    inputs: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReply(Reply):
    """What the body of a task returned."""

    value: Any = None


class _NoOutput:
    """Stands where a step has the shape of its answer; a task's value has none that llmflow checks."""

    name = "task"
    is_text = False
    json_schema: Mapping[str, Any] = {}
    model = object


_NO_OUTPUT = _NoOutput()


async def _no_provider(request: Request) -> Reply:
    raise NotImplementedError(request)


def _task_model(name: str) -> Model:
    """Return what stands for a task where policies look at the model.

    All tasks are one connection, so that a limit with a name is shared by those that name it; each is its own model.
    """
    return Model(f"task/{name}", handler=_no_provider)


class PlainTask:
    """A task without policies: nothing stands between the call and the body."""

    __slots__ = ("_body", "_monotonic", "_name")

    def __init__(self, name: str, body: Body, clock: Clock) -> None:
        self._name = name
        self._body = body
        self._monotonic = clock.monotonic

    async def invoke(self, inputs: dict[str, object], around: Frame) -> Result[Any]:
        """Run the body."""
        started = self._monotonic()
        try:
            value = await self._body(**inputs)
        except Exception as exc:
            _say_where(exc, self._name)
            raise
        latency = self._monotonic() - started
        return _quick_result(value=value, latency_s=latency, run_id=around.run.id, step=self._name)


class FoldedTask:
    """A task under its own policies, folded exactly as those of a step are."""

    __slots__ = ("_body", "_chain", "_clock", "_model", "_name", "_runtime", "_scope", "layers", "limit")

    def __init__(self, name: str, body: Body, layers: Sequence[Declared], runtime: Any, scope: Scope | None) -> None:
        self._name = name
        self._body = body
        self._model = _task_model(name)
        self._runtime = runtime
        self._scope = scope
        self._clock: Clock = runtime.clock
        self.layers = tuple(layers)
        self.limit = shortest_deadline(layers)
        self._chain: Callable[[Ask], Awaitable[Answer]] = self._fold()

    def _fold(self) -> Callable[[Ask], Awaitable[Answer]]:
        calls = [one for one in self.layers if one.band.wraps_calls]
        outside = [one for one in self.layers if not one.band.wraps_calls and one.band < Band.TIMEOUT]
        inside = [one for one in self.layers if one.band >= Band.TIMEOUT]
        recorded = self._recorder(fold(inside, self._run_body, self._site))
        send: Send = fold(outside, recorded, self._site)
        return fold(calls, self._asker(send), self._site)  # type: ignore[no-any-return]

    def _site(self, layer: Declared) -> BoundSite:
        return BoundSite(
            step=self._name,
            flow=self._scope.flow if self._scope else None,
            model=self._model,
            models=(self._model,),
            policies=tuple(one.policy for one in self.layers),
            declared=layer.source,
            runtime=self._runtime,
            params={},
        )

    def _asker(self, send: Send) -> Callable[[Ask], Awaitable[Answer]]:
        async def ask_body(ask: Ask) -> Answer:
            reply = await send(
                TaskRequest(
                    messages=(),
                    model=self._model,
                    output=_NO_OUTPUT,
                    params={},
                    deadline=ask.deadline,
                    call=ask.call,
                    inputs=ask.inputs,
                )
            )
            if not isinstance(reply, TaskReply):
                msg = f"task {self._name!r}: a policy returned {type(reply).__name__} instead of the reply it was given"
                raise PluginCallError(msg)
            return Answer(value=reply.value, text="", reply=reply, model=self._model)

        return ask_body

    def _recorder(self, send: Send) -> Send:
        """Return `send` with a record kept of each try."""
        monotonic, model = self._clock.monotonic, self._model.name

        async def record(request: Request) -> Reply:
            call, started = request.call, monotonic()
            if started >= request.deadline:
                msg = "its deadline has passed"
                raise DeadlineExceeded(msg)
            call.started = number = call.started + 1
            if request.sent is not None:
                request.sent.mark(started)
            outcome, error = "ok", None
            try:
                return await send(request)
            except BaseException as exc:
                outcome = "cancelled" if isinstance(exc, cancelled_class()) else type(exc).__name__
                error = exc if isinstance(exc, StepError) else None
                raise
            finally:
                latency = monotonic() - started
                call.attempts.append(
                    Attempt(
                        model=model,
                        number=number,
                        outcome=outcome,
                        latency_s=latency,
                        hedge=request.hedge,
                        error=error,
                    )
                )

        return record

    async def _run_body(self, request: Request) -> Reply:
        assert isinstance(request, TaskRequest)
        around = frame.get()
        if around is None or request.deadline >= around.deadline:
            return await self._value_of(request)
        token = frame.set(Frame(around.run, around.scope, request.deadline, around.node))
        try:  # calls in the body see the earlier deadline
            return await self._value_of(request)
        finally:
            frame.reset(token)

    async def _value_of(self, request: TaskRequest) -> Reply:
        try:
            return TaskReply(text=None, value=await self._body(**request.inputs))
        except Exception as exc:
            _say_where(exc, self._name)
            raise

    async def invoke(self, inputs: dict[str, object], around: Frame) -> Result[Any]:
        """Run the body under the policies."""
        started, run_id = self._clock.monotonic(), around.run.id
        call = CallScope(step=self._name, run_id=run_id, call_id=new_id(), run=around.run)
        ask = Ask(messages=(), model=self._model, output=_NO_OUTPUT, inputs=inputs, deadline=around.deadline, call=call)
        try:
            answer = await self._chain(ask)
        except StepError as exc:
            failure = self._overdue(exc)
            self._annotate(failure, call)
            if failure is exc:
                raise
            raise failure from exc
        return Result(
            value=answer.value,
            attempts=tuple(call.attempts),
            latency_s=self._clock.monotonic() - started,
            run_id=run_id,
            step=self._name,
        )

    def _overdue(self, error: StepError) -> StepError:
        """Return what to raise: a try that was cut because the call's time was up is the deadline's failure."""
        if isinstance(error, ProviderTimeout) and error.cut and error.model == self._model.name:
            return DeadlineExceeded("its deadline has passed")
        return error

    def _annotate(self, error: StepError, call: CallScope) -> None:
        """Tell a failure which task it ended, unless it is that of a step in the body."""
        if error.step is not None:
            return
        error.step, error.run_id, error.attempts = self._name, call.run_id, tuple(call.attempts)
        if _raised_in(self._name) not in getattr(error, "__notes__", ()):  # what the author raised stays as it is
            error.args = (f"task {self._name!r}: {error}", *error.args[1:])


def _raised_in(name: str) -> str:
    return f"raised in task {name!r}"


def _say_where(error: Exception, name: str) -> None:
    """Note which task the author's code was running for; once, also when every try raises the same object."""
    note = _raised_in(name)
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
