"""Right use of the public surface; mypy and pyright accept every line and infer what `assert_type` says.

Nothing here runs: `test_typing.py` gives this file to both checkers in strict mode.
"""

# pyright: strict

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypedDict, TypeVar, assert_type

import anyio
from pydantic import BaseModel

import llmflow
from llmflow import (
    Answer,
    Ask,
    Attempt,
    AuthenticationFailed,
    BadRequest,
    Band,
    Budget,
    BudgetExceeded,
    BudgetTooSmallWarning,
    Bulkhead,
    Cache,
    CacheStore,
    Call,
    Chunk,
    CircuitBreaker,
    CircuitOpen,
    Clock,
    ContentFiltered,
    ContextTooLong,
    Deadline,
    DeadlineExceeded,
    DefinitionError,
    Fallback,
    FallbackExhausted,
    File,
    Final,
    Flow,
    Hedge,
    InvalidOutput,
    Journal,
    JournalUnavailable,
    Kept,
    Ledger,
    LedgerRow,
    LLMFlowError,
    Message,
    Model,
    Off,
    Outcome,
    Params,
    Partial,
    Plan,
    PluginCallError,
    PluginDefinitionError,
    PluginError,
    Policy,
    Price,
    Provider,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    QueueFull,
    QuotaExceeded,
    RateLimit,
    RateLimited,
    RateLimitTimeout,
    Refused,
    Rejected,
    Repair,
    Reply,
    Request,
    Restarted,
    Result,
    Retry,
    RunConflict,
    Runtime,
    Site,
    Snapshot,
    Stats,
    Step,
    StepError,
    Stream,
    Task,
    Tier,
    Timeout,
    Truncated,
    UnpricedModelWarning,
    UnusedParameterWarning,
    Usage,
    Wording,
    build,
    configure_logging,
    context,
    flow,
    gather,
    hookimpl,
    or_else,
    plan,
    prompt,
    step,
    switch,
    task,
    when,
)
from llmflow.events import CallFinished
from llmflow.ports import Send

T = TypeVar("T")


class Ticket(BaseModel):
    category: Literal["billing", "bug", "other"]
    urgent: bool


class Other(BaseModel):
    reason: str


@dataclass
class Place:
    name: str


class Row(TypedDict):
    name: str
    count: int


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Page(BaseModel, Generic[T]):
    items: list[T]


class Tree(BaseModel):
    children: list[Tree]


# -- the three forms of @step, on def and on async def -----------------------------------------------------------------


@step
def bare(text: str) -> Ticket:
    return prompt(f"Classify: {text}")


@step
async def bare_async(text: str) -> Ticket:
    return prompt(f"Classify: {text}")


@step("openai/gpt-5-mini", Retry(5), Timeout("20s"))
def with_model(text: str, *, language: str = "en") -> Ticket:
    """Classify in {{ language }}: {{ text }}"""
    return prompt()


@step("openai/gpt-5-mini")
async def with_model_async(text: str) -> Ticket:
    return prompt(f"Classify: {text}")


@step(Model("fake/one"), Retry.off, name="classify", system="Be brief.", params={"temperature": 0.0, "max_tokens": 50})
def with_model_object(text: str) -> Ticket:
    return prompt(f"Classify: {text}")


@step(Retry(2), Fallback("openai/gpt-5", Model("fake/two")))
def with_policies(text: str) -> Ticket:
    return prompt(f"Classify: {text}")


@step(Retry(2), model="openai/gpt-5-mini", version="7")
async def with_policies_async(text: str) -> Ticket:
    return prompt(f"Classify: {text}")


def not_too_urgent(value: Ticket, inputs: Mapping[str, object]) -> None:
    if value.urgent and not inputs["text"]:
        raise ValueError("nothing can be urgent about an empty message")


@step(examples=[("It crashed", Ticket(category="bug", urgent=True))], checks=(not_too_urgent,))
def with_examples(text: str) -> Ticket:
    return prompt(f"Classify: {text}")


# -- every kind of output ----------------------------------------------------------------------------------------------


@step
def a_dataclass(text: str) -> Place:
    return prompt(f"Where? {text}")


@step
def a_typed_dict(text: str) -> Row:
    return prompt(f"Count: {text}")


@step
def a_literal(text: str) -> Literal["yes", "no"]:
    return prompt(f"Is it so? {text}")


@step
def an_enum(text: str) -> Colour:
    return prompt(f"Which? {text}")


@step
def a_list(text: str) -> list[Ticket]:
    return prompt(f"All: {text}")


@step
def a_dict(text: str) -> dict[str, int]:
    return prompt(f"Count words: {text}")


@step
def a_tuple(text: str) -> tuple[str, int]:
    return prompt(f"Name and age: {text}")


@step
def a_union(text: str) -> Ticket | Other:
    return prompt(f"Either: {text}")


@step
def an_optional(text: str) -> Ticket | None:
    if not text:
        return None
    return prompt(f"Maybe: {text}")


@step
def a_text(text: str) -> str:
    return prompt(f"Say: {text}")


@step
def an_int(text: str) -> int:
    return prompt(f"How many? {text}")


@step
def a_float(text: str) -> float:
    return prompt(f"How much? {text}")


@step
def a_bool(text: str) -> bool:
    return prompt(f"True? {text}")


@step
def a_decimal(text: str) -> Decimal:
    return prompt(f"Sum: {text}")


@step
def a_generic(text: str) -> Page[Ticket]:
    return prompt(f"Page: {text}")


@step
async def a_tree(text: str) -> Tree:
    return prompt(f"Tree: {text}")


@step
def with_everything(text: str, picture: bytes) -> str:
    return prompt(
        f"Describe: {text}",
        system="You see well.",
        messages=[Message("user", "Hello"), {"role": "assistant", "content": "Hi"}, ("user", "Look")],
        files=[picture, "photo.png", File(media_type="image/png", data=picture)],
        context={"tenant": "acme"},
    )


async def outputs() -> None:
    assert_type(await bare("x"), Ticket)
    assert_type(await bare_async("x"), Ticket)
    assert_type(await with_model("x", language="de"), Ticket)
    assert_type(await with_model_async(text="x"), Ticket)
    assert_type(await with_model_object("x"), Ticket)
    assert_type(await with_policies("x"), Ticket)
    assert_type(await with_policies_async("x"), Ticket)
    assert_type(await with_examples("x"), Ticket)
    assert_type(await a_dataclass("x"), Place)
    assert_type(await a_typed_dict("x"), Row)
    assert_type(await a_literal("x"), Literal["yes", "no"])
    assert_type(await an_enum("x"), Colour)
    assert_type(await a_list("x"), list[Ticket])
    assert_type(await a_dict("x"), dict[str, int])
    assert_type(await a_tuple("x"), tuple[str, int])
    assert_type(await a_union("x"), Ticket | Other)
    assert_type(await an_optional("x"), Ticket | None)
    assert_type(await a_text("x"), str)
    assert_type(await an_int("x"), int)
    assert_type(await a_float("x"), float)
    assert_type(await a_bool("x"), bool)
    assert_type(await a_decimal("x"), Decimal)
    assert_type(await a_generic("x"), Page[Ticket])
    assert_type(await a_tree("x"), Tree)
    assert_type(await with_everything("x", b""), str)


# -- calling -----------------------------------------------------------------------------------------------------------


def scripts() -> None:
    assert_type(with_model.sync("x", language="de"), Ticket)
    assert_type(with_model.run_sync("x"), Result[Ticket])
    assert_type(with_model.name, str)
    assert_type(with_model.prompt_version, str)


async def results() -> None:
    result = await with_model.run("x", language="de")
    assert_type(result, Result[Ticket])
    assert_type(result.value, Ticket)
    assert_type(result.usage, Usage | None)
    assert_type(result.cost_usd, Decimal | None)
    assert_type(result.attempts, tuple[Attempt, ...])
    assert_type(result.calls, tuple[Result[Any], ...])
    assert_type(result.latency_s, float)
    assert_type(result.cached, bool)
    assert_type(result.model, str | None)
    assert_type(result.prompt_label, str | None)
    assert_type(result.run_id, str)
    either: Result[Ticket | Other] = result  # a result gives its value out and takes none in
    print(either)


async def as_coroutines() -> None:
    assert_type(await asyncio.gather(bare("x"), a_text("y")), tuple[Ticket, str])
    assert_type(await asyncio.create_task(bare("x")), Ticket)
    async with asyncio.TaskGroup() as tasks:
        assert_type(await tasks.create_task(bare.run("x")), Result[Ticket])
    async with anyio.create_task_group() as group:
        group.start_soon(bare, "x")
    async with asyncio.timeout(5):
        await bare("x")


def takes_any_async_function(function: Callable[[str], Coroutine[Any, Any, T]]) -> Awaitable[T]:
    return function("x")


async def as_functions() -> None:
    assert_type(await takes_any_async_function(bare), Ticket)
    assert_type(await takes_any_async_function(classify_all), list[Ticket])


# -- map, starmap, partial, with_ --------------------------------------------------------------------------------------


async def texts() -> AsyncIterator[str]:
    yield "x"


@step
def two(text: str, tone: str) -> Ticket:
    return prompt(f"{tone}: {text}")


async def fanning_out(items: list[str]) -> None:
    assert_type(await bare.map(items), list[Ticket])
    assert_type(await bare.map(items, concurrency=4, on_error="raise"), list[Ticket])
    assert_type(await bare.map(iter(items), key=str.lower), list[Ticket])
    assert_type(await bare.map(texts()), list[Ticket])
    assert_type(await with_model.map(items), list[Ticket])
    assert_type(await bare.map(items, on_error="collect"), list[Outcome[Ticket]])

    async with bare.map(items) as outcomes:
        async for outcome in outcomes:
            assert_type(outcome, Outcome[Ticket])
            assert_type(outcome.value, Ticket | None)
            assert_type(outcome.unwrap(), Ticket)
            assert_type(outcome.error, Exception | None)
            assert_type(outcome.cost_usd, Decimal | None)
            assert_type((outcome.index, outcome.key, outcome.ok), tuple[int, str, bool])

    assert_type(await two.starmap([("x", "kind"), ("y", "curt")]), list[Ticket])
    assert_type(await two.starmap([("x", "kind")], on_error="collect"), list[Outcome[Ticket]])
    assert_type(await two.partial(tone="kind")("x"), Ticket)
    assert_type(await two.partial(tone="kind").map(items), list[Ticket])
    assert_type(await two.partial(tone="kind").run("x"), Result[Ticket])
    assert_type(await split.map(items), list[list[str]])
    assert_type(await classify_all.map(items), list[list[Ticket]])


async def streaming() -> None:
    async with bare.stream("x") as stream:
        assert_type(stream, Stream[Ticket])
        async for snapshot in stream:
            assert_type(snapshot, Partial[Ticket])
            assert_type(snapshot.model_fields_set, set[str])
            assert_type(snapshot.model_dump(), dict[str, Any])
        async for delta in stream.deltas():
            assert_type(delta, str)
        async for event in stream.events():
            if isinstance(event, Restarted):
                assert_type((event.attempt, event.reason), tuple[int, str])
            elif isinstance(event, Final):
                assert_type(event.value, Ticket)
            else:
                assert_type(event, Snapshot)
        assert_type(await stream.final(), Ticket)
        assert_type(stream.result, Result[Ticket])

    async for text in story.stream("x"):
        assert_type(text, str)
    async with split.stream("x") as pieces:
        assert_type(await pieces.final(), list[str])
    async with classify_all.stream("x") as tickets:
        assert_type(await tickets.final(), list[Ticket])
    async with two.partial(tone="kind").stream("x") as partial:
        assert_type(await partial.final(), Ticket)


@step
def story(text: str) -> str:
    return prompt(f"Tell: {text}")


async def adjusting() -> None:
    adjusted: Step[[str], Ticket] = bare.with_(Retry(1), Repair.off)
    assert_type(await adjusted("x"), Ticket)
    assert_type(await with_model.with_(model="openai/gpt-5", params={"seed": 1})("x", language="de"), Ticket)
    assert_type(await bare.with_(model=Model("fake/one"), version="8").map(["x"]), list[Ticket])
    assert_type(await classify_all.with_(Deadline(5), run_id="order-42")("x"), list[Ticket])
    assert_type(await split.with_(Timeout(1))("x"), list[str])


# -- tasks, flows and operations ---------------------------------------------------------------------------------------


@task
def split(text: str) -> list[str]:
    return text.split()


@task
async def fetch(url: str, *, tries: int = 1) -> str:
    return url * tries


@task(Retry(3, on=ConnectionError), journal=False)
def store(ticket: Ticket) -> None:
    print(ticket)


@task(Timeout(5), name="count things")
async def count(tickets: list[Ticket]) -> int:
    return len(tickets)


@flow
async def classify_all(text: str) -> list[Ticket]:
    return await bare.map(await split(text))


@flow(Deadline(20), Retry.off)
async def support(url: str) -> str:
    text = await fetch(url, tries=2)
    assert_type(text, str)
    ticket, place = await gather(bare(text), a_dataclass(text))
    assert_type(ticket, Ticket)
    assert_type(place, Place)
    await store(ticket)
    return await when(ticket.urgent, a_text(text), a_text(ticket.category))


@flow(eager=True, name="an eager one")
async def eager(text: str) -> int:
    tickets = await classify_all(text)
    return len(tickets) if tickets else await count(tickets)


class Report(BaseModel):
    title: str
    ticket: Ticket | None = None


async def operations(ticket: Ticket, answer: Literal["yes", "no"], colour: Colour) -> None:
    a_task: Task[[str], list[str]] = split
    a_flow: Flow[[str], list[Ticket]] = classify_all
    assert_type(await gather(a_task("x"), a_flow("x")), tuple[list[str], list[Ticket]])
    assert_type(await support("x"), str)
    assert_type(support.sync("x"), str)
    assert_type(await support.run("x"), Result[str])
    assert_type(support.run_sync("x"), Result[str])
    assert_type(await eager("x"), int)
    assert_type(await fetch.run("x", tries=3), Result[str])

    assert_type(await when(ticket.urgent, bare("x"), a_dataclass("x")), Ticket | Place)
    assert_type(await when(ticket.urgent, bare("x"), bare("y")), Ticket)
    assert_type(await switch(answer, {"yes": a_text("x"), "no": a_text("y")}), str)
    assert_type(await switch(ticket.category, {"bug": a_text("x")}, default=a_text("y")), str)
    assert_type(await switch(ticket.category, {"bug": a_text("x")}, default=an_int("y")), str | int)
    assert_type(await switch(colour, {Colour.RED: a_text("x"), Colour.BLUE: a_text("y")}), str)

    assert_type(await gather(bare("x")), tuple[Ticket])
    assert_type(await gather(bare("x"), a_text("y")), tuple[Ticket, str])
    assert_type(await gather(bare("x"), a_text("y"), an_int("z")), tuple[Ticket, str, int])
    assert_type(await gather(bare.run("x"), split("y")), tuple[Result[Ticket], list[str]])
    assert_type(await gather(*[a_text(one) for one in ("x", "y")]), tuple[str, ...])

    assert_type(await build(Report, title="x", ticket=ticket), Report)
    assert_type(await build(Place, name="x"), Place)
    assert_type(await or_else(a_text("x"), "nothing"), str)
    assert_type(await or_else(bare("x"), None), Ticket | None)
    assert_type(await or_else(a_text("x"), "nothing", on=(RateLimited, InvalidOutput)), str)
    assert_type(await or_else(an_int("x"), "nothing", on=RateLimited), int | str)
    assert_type(await or_else(bare("x"), a_text("y"), on=RateLimited), Ticket | str)
    assert_type(await or_else(a_text("x"), a_text("y")), str)


# -- methods -----------------------------------------------------------------------------------------------------------


class Agent:
    name: str = "agent"

    @step("openai/gpt-5-mini")
    def act(self, text: str) -> Ticket:
        return prompt(f"{self.name}: {text}")

    @task
    def look_up(self, text: str) -> list[str]:
        return [self.name, text]

    @flow
    async def work(self, text: str) -> Ticket:
        return await self.act(text)


async def methods(agent: Agent) -> None:
    assert_type(await agent.act("x"), Ticket)
    assert_type(await agent.act.run("x"), Result[Ticket])
    assert_type(agent.act.sync("x"), Ticket)
    assert_type(await agent.act.map(["x"]), list[Ticket])
    assert_type(await agent.look_up("x"), list[str])
    assert_type(await agent.work("x"), Ticket)


# -- policies ----------------------------------------------------------------------------------------------------------


POLICIES: list[Policy] = [
    Retry(attempts=3, wait_initial=0.5, wait_max=20, retry_after_max="1m", on=ConnectionError),
    Retry(on=(ConnectionError, OSError)),
    Retry(on=lambda error: "again" in str(error)),
    Repair(reasks=1),
    Timeout(timedelta(seconds=5)),
    Timeout("1h30m"),
    Deadline(10),
    Fallback("openai/gpt-5", Model("fake/one"), on=KeyError),
    Bulkhead(8, queue=100, name="all"),
    Budget("0.10", tokens=10_000, calls=20, per="day", key="tenant", name="b", on_unpriced="allow"),
    Budget(Decimal(1), key=lambda request: request.call.step),
    Budget(usd=0.5, per="month"),
    Cache("1h", stale=timedelta(minutes=10)),
    RateLimit(requests=500, tokens=200_000, per="1m", key="tenant", name="all"),
    RateLimit(requests=20, key=lambda request: request.call.step),
    CircuitBreaker(failure_ratio=0.5, window=30, min_calls=10, open_for="30s", on=KeyError),
    Hedge("p95", max=2),
    Hedge(after=timedelta(seconds=2)),
]
OFF: tuple[Off, ...] = (Retry.off, Repair.off, Timeout.off, Deadline.off, Fallback.off, Bulkhead.off)
assert_type(Retry.off, Off)


@dataclass(frozen=True, slots=True)
class Shout:
    """A request policy as a plugin writes it."""

    band: ClassVar[Band] = Band.before(Band.RETRY)

    def wrap(
        self, proceed: Callable[[Request], Awaitable[Reply]], site: Site, /
    ) -> Callable[[Request], Awaitable[Reply]]:
        made = site.shared(("shout", site.step), lambda: [0])
        assert_type(made, list[int])

        async def shout(request: Request) -> Reply:
            made[0] += 1
            louder = tuple(replace(one, content=one.content.upper()) for one in request.messages)
            return await proceed(replace(request, messages=louder))

        return shout


class Later:
    """A call policy as a plugin writes it."""

    band: ClassVar[Band] = Band.after(Band.OBSERVE)

    def wrap(self, proceed: Callable[[Ask], Awaitable[Answer]], site: Site, /) -> Callable[[Ask], Awaitable[Answer]]:
        clock: Clock = site.clock

        async def later(ask: Ask) -> Answer:
            await clock.sleep(site.random.random())
            return await proceed(ask)

        return later


OWN: tuple[Policy, ...] = (Shout(), Later())


@step(Shout(), Later())
def with_own_policies(text: str) -> str:
    return prompt(text)


# -- models, runtime, plans --------------------------------------------------------------------------------------------


async def fake(request: Request) -> Reply:
    return Reply(text=request.messages[-1].content, usage=Usage(input_tokens=1, output_tokens=1), model="fake")


async def fake_text(request: Request) -> str:
    return request.model.name


MODELS = [
    Model("fake/one", handler=fake),
    Model("fake/two", handler=fake_text, price=Price(input=0.25, output=2.0, cached_input=0.025)),
    Model("openai/gpt-5", base_url="http://127.0.0.1:1", api_key="k", account="a", mode="tools", service_tier="flex"),
]
PARAMS: Params = {"temperature": 0.1, "top_p": 0.9, "max_tokens": 100, "stop": ["."], "seed": 1, "reasoning": "low"}


async def runtimes() -> None:
    with Runtime(default_model=MODELS[0], policies=[Retry(2), Repair.off], seed=7) as runtime:
        assert_type(runtime, Runtime)
        assert_type(runtime.stats(), Stats)
        with runtime.override(model="fake/two", policies=[Timeout(1)]) as inner:
            assert_type(inner, Runtime)
    async with Runtime(
        plugins=[Plugin()], models={"openai/gpt-5": MODELS[0]}, prices={"a/b": Price(input=1, output=2)}
    ) as runtime:
        assert_type(runtime, Runtime)
    weights = {"triage": {"production": 9, "canary": 1}}
    assert_type(Runtime(prompts="prompts", variants=weights), Runtime)
    assert_type(Runtime(prompts=Path("prompts"), variants={"triage": {"a": 0.5, "b": 1, "sticky": "user"}}), Runtime)
    assert_type(plan(support), Plan)
    assert_type(plan(bare, runtime=runtime), Plan)
    assert_type(str(plan(split)), str)
    with context(tenant="acme", tags={"team": "support"}):
        await bare("x")


ERRORS: tuple[type[LLMFlowError], ...] = (
    AuthenticationFailed,
    BadRequest,
    BudgetExceeded,
    CircuitOpen,
    ContentFiltered,
    ContextTooLong,
    DeadlineExceeded,
    DefinitionError,
    JournalUnavailable,
    PluginCallError,
    PluginDefinitionError,
    PluginError,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    QueueFull,
    QuotaExceeded,
    RateLimitTimeout,
    Refused,
    Rejected,
    RunConflict,
    Truncated,
)
TIMEOUTS: tuple[type[TimeoutError], ...] = (DeadlineExceeded, ProviderTimeout, RateLimitTimeout)
WRONG_VALUES: tuple[type[ValueError], ...] = (DefinitionError, PluginDefinitionError)
WARNINGS: tuple[type[UserWarning], ...] = (BudgetTooSmallWarning, UnpricedModelWarning, UnusedParameterWarning)


async def failures() -> None:
    try:
        await bare("x")
    except FallbackExhausted as error:
        assert_type(error.causes, tuple[StepError, ...])
    except RateLimited as error:
        assert_type(error.retry_after, float | None)
    except InvalidOutput as error:
        assert_type(error.text, str | None)
    except StepError as error:
        assert_type(error.step, str | None)
        assert_type(error.retryable, bool)


# -- plugins -----------------------------------------------------------------------------------------------------------


class Echo:
    """A provider as a plugin writes it."""

    def connect(self, model: Model, output: object, /) -> Send:
        print(model, output)
        return fake

    async def aclose(self) -> None:
        """Nothing is open."""


class Forgetful:
    """A store as a plugin writes it."""

    async def get(self, key: str, /) -> Kept | None:
        return Kept(b"{}", 1.0) if key == "known" else None

    async def put(self, key: str, entry: bytes, /, *, seconds: float) -> None:
        print(key, entry, seconds)

    async def aclose(self) -> None:
        print("closed")


def spent(runtime: Runtime) -> None:
    ledger: Ledger = runtime.ledger
    assert_type(ledger.rows(), tuple[LedgerRow, ...])
    assert_type(ledger.rows()[0].cost_usd, Decimal | None)
    assert_type(runtime.journal, Journal)
    Price(input=1.25, output=10, tiers=(Tier(above=200_000, input=2.5),))


class Plugin:
    """Hooks as a plugin writes them."""

    @hookimpl
    def llmflow_policies(self, step: str) -> Iterable[Policy]:
        return [] if step == "bare" else [Shout()]

    @hookimpl
    def llmflow_provider(self, name: str) -> Provider | None:
        return Echo() if name == "echo" else None

    @hookimpl
    def llmflow_price(self, model: Model) -> Price | None:
        return Price(input=0, output=0) if model.provider == "echo" else None

    @hookimpl
    def llmflow_prompt(self, name: str, label: str | None) -> Wording | None:
        params: Params = {"temperature": 0.1}
        return Wording(f"{name} {label}", system="Be brief.", params=params, origin="shelf://triage", line=7)

    @hookimpl
    def llmflow_store(self, url: str) -> CacheStore | None:
        return Forgetful() if url == "forgetful://" else None

    @hookimpl
    def llmflow_call_finished(self, event: CallFinished) -> None:
        assert_type(event.latency_s, float)


async def print_chunk(chunk: Chunk) -> None:
    print(chunk.text, chunk.attempt)


def package(request: Request) -> None:
    configure_logging(level="DEBUG", json=True)
    assert_type(replace(request, sink=print_chunk), Request)
    assert_type(llmflow.__version__, str)
    call: Call[Ticket] | None = None
    print(call)
