"""Around the provider: the request layers, and the record of every physical request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

from llmflow.backend import cancelled_class
from llmflow.context import caller
from llmflow.errors import DefinitionError, ProviderTimeout, StepError
from llmflow.events import AttemptFinished, AttemptStarted
from llmflow.messages import Attempt, CallScope, Chunk, Reply, Request, Sink, Usage
from llmflow.policy import Band, Declared, Site, fold
from llmflow.prices import Price, cost, dollars
from llmflow.records import quick
from llmflow.tokens import worst_case_of

if TYPE_CHECKING:
    from llmflow.models import Model
    from llmflow.ports import Clock, Send

__all__ = ["chain_requests"]

_Reserved: TypeAlias = tuple[Decimal | None, int | None]
"""The dollars and tokens that a request may take; None for what nobody knows."""
_UNKNOWN: _Reserved = (None, None)

# Made on every call.
new_attempt, new_attempt_started, new_attempt_finished = quick(Attempt), quick(AttemptStarted), quick(AttemptFinished)


def chain_requests(
    layers: Sequence[Declared], send: Send, site: Callable[[Declared], Site], runtime: Any, model: Model
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
    announce = _announcer(runtime, model, price)

    async def record(request: Request) -> Reply:
        call = request.call
        if request.model is not model:
            raise DefinitionError(_other_model(request.model, model))
        started = clock.monotonic()
        if started >= request.deadline:
            raise _no_time(model)
        call.started = number = call.started + 1
        if on_started or call.node is not None:
            await announce(request, number)
            started = clock.monotonic()
        if request.sent is not None:
            request.sent.mark(started)
        if request.sink is not None:
            pieces = _Pieces(request.sink, number, clock, started)
            return await _streamed(send, request, pieces, keep)
        try:
            reply = await send(request)
        except BaseException as exc:
            keep(request, number, clock.monotonic() - started, exc)
            raise
        keep(request, number, clock.monotonic() - started, None, usage=reply.usage)
        return reply

    def keep(
        request: Request,
        number: int,
        latency: float,
        exc: BaseException | None,
        *,
        usage: Usage | None = None,
        pieces: _Pieces | None = None,
    ) -> None:
        call = request.call
        error = exc if isinstance(exc, StepError) else None
        # An error in the middle of a stream follows an answer that was begun, and may be billed.
        first_at = pieces.first_at if pieces is not None else None
        attempt = new_attempt(
            model=model.name,
            number=number,
            outcome="ok" if exc is None else _outcome(exc, overdue=clock.monotonic() >= request.deadline),
            latency_s=latency,
            usage=usage,
            cost_usd=_cost(usage, price, error if first_at is None else None),
            status=error.status if error is not None else None,
            hedge=request.hedge,
            first_token_s=None if first_at is None or pieces is None else first_at - pieces.started,
            error=error,
        )
        call.attempts.append(attempt)
        if on_finished:
            runtime.emit(_finished(call, attempt, sent=error is None or error.sent))

    return record


def _announcer(runtime: Any, model: Model, price: Price | None) -> Callable[[Request, int], Awaitable[None]]:
    """Return what tells that a request is about to be sent.

    In a recorded run it waits until that, and all that was before it, is on disk.
    """
    worst_case, recorder = _worst_case(runtime, model, price), runtime.recorder
    is_durable: bool = recorder.is_durable
    in_memory = hasattr(recorder.journal, "note")  # it hears of requests when they end; of these it has to know before

    async def announce(request: Request, number: int) -> None:
        is_node = request.call.node is not None
        event = _started(request, number, *(worst_case(request) if is_durable or is_node else _UNKNOWN))
        runtime.emit(event)
        if is_node and in_memory:
            recorder.journal.write(event)
        if is_node:
            await _on_record(request, number, runtime)

    return announce


async def _on_record(request: Request, number: int, runtime: Any) -> None:
    """Wait until all that the run has so far is on disk, as what is sent now has to be paid."""
    call = request.call
    assert call.run is not None  # a call with a node is one of a run
    try:
        await call.run.record.settled()
    except BaseException as exc:
        call.started -= call.started == number  # it was not sent
        runtime.emit(_unsent(request, number, exc))
        raise


async def _streamed(send: Send, request: Request, pieces: _Pieces, keep: Callable[..., None]) -> Reply:
    """Send a request whose answer is read while it comes; the time that its reader takes is not the provider's."""
    try:
        reply = await send(replace(request, sink=pieces.put))
    except BaseException as exc:
        keep(request, pieces.number, pieces.elapsed(), exc, pieces=pieces)
        raise
    keep(request, pieces.number, pieces.elapsed(), None, usage=reply.usage, pieces=pieces)
    if pieces.first_at is None and reply.text and reply.finish_reason == "stop":
        await pieces.put(Chunk(reply.text, pieces.number))  # whoever does not stream gives the answer in one piece
    return reply


class _Pieces:
    """What one request streams: each piece is numbered with its attempt on its way.

    Attributes:
        started: When the request was sent.
        first_at: When the first piece came, None before.
        number: Of the attempt.
    """

    __slots__ = ("_clock", "_held_s", "_sink", "first_at", "number", "started")

    def __init__(self, sink: Sink, number: int, clock: Clock, started: float) -> None:
        self._sink = sink
        self.number = number
        self._clock = clock
        self.started = started
        self.first_at: float | None = None
        self._held_s = 0.0

    def elapsed(self) -> float:
        """Return the seconds since it was sent, without those that whoever reads kept the provider waiting."""
        return self._clock.monotonic() - self.started - self._held_s

    async def put(self, chunk: Chunk) -> None:
        """Pass a piece on; this is the sink that the provider is given."""
        if not chunk.text:
            return
        came = self._clock.monotonic()
        if self.first_at is None:
            self.first_at = came
        try:
            await self._sink(Chunk(chunk.text, self.number))
        finally:
            self._held_s += self._clock.monotonic() - came


def _cost(usage: Usage | None, price: Price | None, error: StepError | None) -> Decimal | None:
    """Return what a request cost: nothing when the provider answered it with an error, which is not billed.

    One that was cut off, whose connection broke, or whose answer cannot be read may have been billed: that is unknown.
    """
    if price is not None and error is not None and (_is_refusal(error.status) or not error.sent):
        return Decimal(0)
    return cost(usage, price)


def _is_refusal(status: int | None) -> bool:
    return status is not None and status >= 400  # noqa: PLR2004  # where the errors of HTTP begin


def _outcome(exc: BaseException, *, overdue: bool) -> str:
    if isinstance(exc, StepError):
        return "cut" if isinstance(exc, ProviderTimeout) and exc.cut else exc.kind
    if isinstance(exc, cancelled_class()):
        # The deadline of the flow around may ring in the same instant as the one kept here; it is a cut all the same.
        return "cut" if overdue else "cancelled"
    return type(exc).__name__


def _worst_case(runtime: Any, model: Model, price: Price | None) -> Callable[[Request], _Reserved]:
    """Return what says how much a request may take."""
    worst_case = worst_case_of(_Place(runtime, model), price, counted=True)

    def reserved(request: Request) -> _Reserved:
        nano, tokens = worst_case(request)
        return (None if price is None else dollars(nano)), tokens

    return reserved


class _Place:
    __slots__ = ("model", "shared")

    def __init__(self, runtime: Any, model: Model) -> None:
        self.model = model
        self.shared = runtime.shared


def _started(request: Request, number: int, usd: Decimal | None, tokens: int | None) -> AttemptStarted:
    call, who = request.call, caller.get()
    return new_attempt_started(
        run_id=call.run_id,
        call_id=call.call_id,
        step=call.step,
        model=request.model.name,
        number=number,
        hedge=request.hedge,
        reserved_usd=usd,
        reserved_tokens=tokens,
        prompt_version=call.prompt_version,
        tenant=who.tenant,
        node=call.node,
    )


def _unsent(request: Request, number: int, exc: BaseException) -> AttemptFinished:
    attempt = Attempt(
        model=request.model.name,
        number=number,
        outcome=_outcome(exc, overdue=False),
        latency_s=0.0,
        cost_usd=Decimal(0),
        hedge=request.hedge,
    )
    return _finished(request.call, attempt, sent=False)


def _finished(call: CallScope, attempt: Attempt, *, sent: bool) -> AttemptFinished:
    who = caller.get()
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
        sent=sent,
        hedge=attempt.hedge,
        first_token_s=attempt.first_token_s,
        prompt_version=call.prompt_version,
        label=call.label,
        tenant=who.tenant,
        tags=who.tags or None,
        node=call.node,
    )


def _other_model(asked: Model, connected: Model) -> str:
    return (
        f"a policy changed the model of a request to {asked.name!r}, but its chain ends at {connected.name!r}; "
        f"choose the model further out, in the bands up to Band.FALLBACK"
    )


def _no_time(model: Model) -> ProviderTimeout:
    msg = f"no time is left to ask {model.name}"
    return ProviderTimeout(msg, cut=True, provider=model.provider, model=model.name)
