"""What travels through the onions: asks and answers, requests and replies, and their records.

All of them are frozen; a policy that wants to change one uses `dataclasses.replace`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias, TypeVar

from llmflow.models import Model, Params
from llmflow.records import quick

if TYPE_CHECKING:
    from decimal import Decimal

    from llmflow.context import Run
    from llmflow.errors import StepError

__all__ = [
    "Answer",
    "Ask",
    "Attempt",
    "CallScope",
    "Chunk",
    "File",
    "FinishReason",
    "Message",
    "Outcome",
    "OutputFormat",
    "Reply",
    "Request",
    "Result",
    "Sent",
    "Sink",
    "Usage",
]

S = TypeVar("S")
T_co = TypeVar("T_co", covariant=True)

FinishReason: TypeAlias = Literal["stop", "length", "refusal", "content_filter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """An image, a sound or a PDF that goes with a prompt; either its bytes or an address the provider fetches.

    Args:
        media_type: Such as `image/png`, `audio/wav`, `application/pdf`.
        data: The content.
        url: An `https://` address, given to the provider as it is; llmflow itself never fetches it.
        name: A file name for providers that want one.
    """

    media_type: str
    data: bytes | None = field(default=None, repr=False)
    url: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation that is sent."""

    role: Literal["system", "user", "assistant"]
    content: str
    files: tuple[File, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as the provider counted them; None where it did not say.

    `input_tokens` includes `cached_tokens` (read from the provider's prompt cache) and `cache_write_tokens` (written to
    it), and `output_tokens` includes `reasoning_tokens`.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cache_write_tokens: int | None = None

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=_sum(self.input_tokens, other.input_tokens),
            output_tokens=_sum(self.output_tokens, other.output_tokens),
            cached_tokens=_sum(self.cached_tokens, other.cached_tokens),
            reasoning_tokens=_sum(self.reasoning_tokens, other.reasoning_tokens),
            cache_write_tokens=_sum(self.cache_write_tokens, other.cache_write_tokens),
        )

    @property
    def total_tokens(self) -> int | None:
        """Input and output together, None when either is unknown."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens


def _sum(one: int | None, other: int | None) -> int | None:
    """Add what is known; unknown plus known is what is known, a lower bound."""
    if one is None:
        return other
    return one if other is None else one + other


class OutputFormat(Protocol):
    """The shape an answer must have, as a provider needs it."""

    @property
    def name(self) -> str:
        """A name fit for a tool or a schema."""
        ...

    @property
    def is_text(self) -> bool:
        """True when the step returns `str`: no schema is sent and the answer is taken as it is."""
        ...

    @property
    def json_schema(self) -> Mapping[str, Any]:
        """JSON Schema of the answer. Types that are not objects are wrapped in one field, `content`."""
        ...

    @property
    def model(self) -> type[Any]:
        """The pydantic model behind `json_schema`, for libraries that want a class."""
        ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a streamed answer; `attempt` tells a restart from a continuation."""

    text: str
    attempt: int


Sink: TypeAlias = Callable[[Chunk], Awaitable[None]]


class CallScope:
    """What one call of a step has seen so far: the only mutable thing in the onions, shared by all its requests.

    Attributes:
        step: Name of the step.
        run_id: The run the call belongs to.
        call_id: Unique within the process.
        node: Its place in a run that is recorded, None in one that is not.
        attempts: One record for each physical request, in the order they ended.
        started: How many physical requests have been started.
        reasks: How many of the asks were repeats for an invalid answer.
        run: The run itself, whose `shared(key, make)` holds what policies keep for it.
        prompt_version: Version of the prompt that is asked.
        label: Which variant of the prompt it is, None for a step without variants.
        waited_s: Seconds that its requests waited in limits, budgets and queues.
        throttled: How many retries were not made because too many of the connection's requests were retries.
        estimated: What `llmflow.tokens` counted for the prompt of the call, kept so that it counts once.
    """

    __slots__ = (
        "_shared",
        "attempts",
        "call_id",
        "estimated",
        "label",
        "node",
        "prompt_version",
        "reasks",
        "run",
        "run_id",
        "started",
        "step",
        "throttled",
        "waited_s",
    )

    def __init__(
        self,
        *,
        step: str,
        run_id: str,
        call_id: str,
        node: str | None = None,
        run: Run | None = None,
        prompt_version: str | None = None,
        label: str | None = None,
    ) -> None:
        self.step = step
        self.run_id = run_id
        self.call_id = call_id
        self.node = node
        self.run = run
        self.prompt_version = prompt_version
        self.label = label
        self.attempts: list[Attempt] = []
        self.started = 0
        self.reasks = 0
        self.waited_s = 0.0
        self.throttled = 0
        self.estimated: object | None = None
        self._shared: dict[Hashable, Any] | None = None

    def shared(self, key: Hashable, make: Callable[[], S], /) -> S:
        """Return the one object of this call under `key`, made by `make` at the first use; it goes with the call."""
        if self._shared is None:
            self._shared = {}
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question of a step, as the call layers see it."""

    messages: tuple[Message, ...]
    model: Model
    output: OutputFormat
    inputs: Mapping[str, object]
    deadline: float
    """The point of the runtime's monotonic clock by which the answer must be there; `inf` for none."""
    call: CallScope
    turns: tuple[object, ...] = ()
    """What follows `messages` in a repeated ask, in the provider's own form (see `Reply.reask`)."""
    context: object | None = None
    """Pydantic's validation context, from `prompt(context=...)`."""
    sink: Sink | None = None

    def until(self, deadline: float, model: Model | None = None) -> Ask:
        """Return this ask with another deadline, or model; what `dataclasses.replace` does, at a third of its price."""
        return _new_ask(
            messages=self.messages,
            model=model or self.model,
            output=self.output,
            inputs=self.inputs,
            deadline=deadline,
            call=self.call,
            turns=self.turns,
            context=self.context,
            sink=self.sink,
        )


_new_ask = quick(Ask)


class Sent:
    """Learns that a request was handed to the provider: before that, nothing can have been billed.

    Attributes:
        at: The point of the runtime's monotonic clock when it was sent, None before.
        listener: Called once, in the request's own task, when it is sent.
    """

    __slots__ = ("at", "listener")

    def __init__(self, listener: Callable[[], None] | None = None) -> None:
        self.at: float | None = None
        self.listener = listener

    def mark(self, now: float) -> None:
        """Take note; called by the record of physical requests."""
        self.at = now
        if self.listener is not None:
            self.listener()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, as the request layers and the provider see it."""

    messages: tuple[Message, ...]
    model: Model
    output: OutputFormat
    params: Params
    deadline: float
    call: CallScope
    turns: tuple[object, ...] = ()
    attempt: int = 1
    """Which try of this ask it is, counted from 1."""
    sink: Sink | None = None
    hedge: bool = False
    """Whether it is a second request beside a slow one: limits admit it without waiting, or refuse it."""
    sent: Sent | None = None
    """Set by a policy that must know whether this very request reached the provider; each attempt needs its own."""

    def marked(self, sent: Sent, *, hedge: bool = False) -> Request:
        """Return this request with another `sent`; what `dataclasses.replace` does, at a third of its price."""
        if type(self) is not Request:  # one of a kind that has fields of its own
            return replace(self, sent=sent, hedge=hedge)
        return _new_request(
            messages=self.messages,
            model=self.model,
            output=self.output,
            params=self.params,
            deadline=self.deadline,
            call=self.call,
            turns=self.turns,
            attempt=self.attempt,
            sink=self.sink,
            hedge=hedge,
            sent=sent,
        )


_new_request = quick(Request)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a provider answered.

    A handler returns one, or just the text.
    """

    text: str | None
    """The answer: JSON for a schema, plain text for `str`. None when the reply holds no answer at all."""
    usage: Usage | None = None
    finish_reason: FinishReason = "stop"
    model: str | None = None
    """The exact model that answered, as the provider names it."""
    request_id: str | None = None
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    """What the reply's headers say about rate limits, names in lower case; None where they say nothing."""
    reask: Callable[[str], Sequence[object]] | None = field(default=None, repr=False)
    """Builds the turns that repeat the ask with a problem named, in the provider's own form. Without it, plain
    messages are used."""
    raw: object = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A validated answer, as the call layers see it."""

    value: Any
    text: str
    reply: Reply
    model: Model
    repaired: bool = False
    cached: bool = False
    saved_usd: Decimal | None = None
    """What the answer had cost when it was asked for, where it comes from a cache or another call; None when unknown."""

    @staticmethod
    def kept(
        value: Any, text: str, model: Model, *, by: str | None, repaired: bool, saved_usd: Decimal | None
    ) -> Answer:
        """Return an answer that was not asked for by this call; `by` is the exact model that gave it."""
        reply = _new_reply(text=text, model=by)
        return _new_answer(
            value=value, text=text, reply=reply, model=model, repaired=repaired, cached=True, saved_usd=saved_usd
        )


_new_reply, _new_answer = quick(Reply), quick(Answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The record of one physical request."""

    model: str
    number: int
    """Counted from 1 over all requests of the call."""
    outcome: str
    """`ok`, `cancelled`, `cut`, or the name of the error class."""
    latency_s: float
    """Seconds; of a streamed answer without those that whoever read it kept the provider waiting."""
    usage: Usage | None = None
    cost_usd: Decimal | None = None
    status: int | None = None
    hedge: bool = False
    """Whether it was a second request beside a slow one."""
    first_token_s: float | None = None
    """Seconds until the first piece of a streamed answer, None for what was not streamed."""
    error: StepError | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(Generic[T_co]):
    """The value of a call and what it took to get it.

    Attributes:
        value: The validated value.
        usage: Tokens of every attempt together, None when no attempt reported any.
        cost_usd: Dollars of every attempt together, None when unknown.
        attempts: Every physical request, failed ones included.
        latency_s: Wall-clock seconds of the call.
        cached: Whether the value came from a cache, or from another call that asked the same at the same time.
        saved_usd: Dollars that a cached value had cost when it was asked for, None when unknown or not cached.
        repaired: Whether the answer was mended locally or asked for again.
        model: The model that gave the value, None for a flow or task.
        prompt_version: Version of the prompt that was used, None for a flow or task.
        prompt_label: Which variant of the prompt was used, None for a step without variants.
        run_id: The run the call belonged to.
        recorded: Whether the value was read from the journal, as an earlier try of the run had it.
        calls: For a flow, the results of the steps inside, in the order they ended; those that were recorded by an
            earlier try of the run are not among them.
    """

    value: T_co
    usage: Usage | None = None
    cost_usd: Decimal | None = None
    attempts: tuple[Attempt, ...] = ()
    latency_s: float = 0.0
    cached: bool = False
    repaired: bool = False
    model: str | None = None
    prompt_version: str | None = None
    run_id: str = ""
    step: str = ""
    saved_usd: Decimal | None = None
    recorded: bool = False
    prompt_label: str | None = None
    calls: tuple[Result[Any], ...] = ()

    def _repr_html_(self) -> str:
        from llmflow.notebook import result_html  # nobody but a notebook needs it

        return result_html(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[T_co]):
    """What became of one item of a `.map`: `value`, or the `error` that it raised.

    Attributes:
        index: Position of the item, counted from 0.
        key: The item's key: what `key=` gave, else its index as text.
    """

    index: int
    key: str
    value: T_co | None = None
    error: Exception | None = None
    cost_usd: Decimal | None = None

    @property
    def ok(self) -> bool:
        """Whether the item has a value."""
        return self.error is None

    def unwrap(self) -> T_co:
        """Return the value, or raise the item's error."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # without an error there is a value, None included
