"""Wrong use of the public surface; mypy and pyright refuse every line marked as an error, and no other.

Nothing here runs: `test_typing.py` gives this file to both checkers in strict mode.
"""

# pyright: strict

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import BaseModel

from llmflow import (
    Band,
    Budget,
    Deadline,
    Fallback,
    Message,
    Model,
    Policy,
    Price,
    Repair,
    Reply,
    Request,
    Result,
    Retry,
    Runtime,
    Site,
    Step,
    Timeout,
    Wording,
    build,
    context,
    flow,
    gather,
    or_else,
    plan,
    prompt,
    step,
    switch,
    task,
    when,
)


class Ticket(BaseModel):
    urgent: bool


class Other(BaseModel):
    reason: str


@step
def classify(text: str, *, language: str = "en") -> Ticket:
    return prompt(f"{language}: {text}")


@step("openai/gpt-5-mini")
async def two(text: str, tone: str) -> Ticket:
    return prompt(f"{tone}: {text}")


@step
def a_text(text: str) -> str:
    return prompt(text)


@step
def maybe(text: str) -> Ticket | None:
    return prompt(text)


@task
def split(text: str) -> list[str]:
    return text.split()


@flow
async def support(text: str) -> str:
    return await a_text(text)


# -- calling -----------------------------------------------------------------------------------------------------------


async def wrong_arguments() -> None:
    await classify(3)  # expect-error
    await classify()  # expect-error
    await classify("x", "de")  # expect-error
    await classify("x", lang="de")  # expect-error
    await classify(message="x")  # expect-error
    await classify("x", language=3)  # expect-error
    await classify.run(3)  # expect-error
    await two("x")  # expect-error
    await split(3)  # expect-error
    await support(3)  # expect-error
    await support.run()  # expect-error
    classify.sync(3)  # expect-error
    classify.run_sync("x", lang="de")  # expect-error
    support.sync()  # expect-error


async def wrong_results() -> None:
    text: str = await classify("x")  # expect-error
    other: Other = await classify("x")  # expect-error
    ticket: Ticket = await maybe("x")  # expect-error
    (await maybe("x")).urgent  # expect-error
    (await classify("x")).importance  # expect-error
    result: Result[str] = await classify.run("x")  # expect-error
    value: Ticket = await classify.run("x")  # expect-error
    unawaited: Ticket = classify("x")  # expect-error
    sync: str = classify.sync("x")  # expect-error
    await classify.sync("x")  # expect-error
    lines: list[int] = await split("x")  # expect-error
    number: int = await support("x")  # expect-error
    result.value = "x"  # expect-error
    print(text, other, ticket, value, unawaited, sync, lines, number)


async def wrong_chains() -> None:
    await classify(await classify("x"))  # expect-error
    await classify(await split("x"))  # expect-error
    await classify(a_text("x"))  # expect-error


# -- map and its relatives ---------------------------------------------------------------------------------------------


async def wrong_maps(texts: list[str], numbers: list[int]) -> None:
    await classify.map(numbers)  # expect-error
    await classify.map(3)  # expect-error
    await two.map(texts)  # expect-error
    await classify.map(texts, concurrency="many")  # expect-error
    await classify.map(texts, on_error="ignore")  # expect-error
    await classify.map(texts, key=len)  # expect-error
    await split.map(numbers)  # expect-error
    await support.map(numbers)  # expect-error
    await two.starmap(texts)  # expect-error
    words: list[str] = await classify.map(texts)  # expect-error
    tickets: list[Ticket] = await classify.map(texts, on_error="collect")  # expect-error
    async with classify.map(texts) as outcomes:
        async for outcome in outcomes:
            outcome.value.urgent  # expect-error
            outcome.result  # expect-error
    print(words, tickets)


async def wrong_adjustments() -> None:
    classify.with_(3)  # expect-error
    classify.with_(Retry)  # expect-error
    classify.with_(model=3)  # expect-error
    classify.with_(params={"temprature": 0.0})  # expect-error
    classify.with_(retries=3)  # expect-error
    await classify.with_(Retry(1))(3)  # expect-error


# -- decorators --------------------------------------------------------------------------------------------------------


@step("openai/gpt-5-mini", "openai/gpt-5")  # expect-error
def second_model(text: str) -> str:
    return prompt(text)


@step(Retry)  # expect-error
def a_class_for_a_policy(text: str) -> str:
    return prompt(text)


@step(retries=3)  # expect-error
def unknown_option(text: str) -> str:
    return prompt(text)


@step(params={"temperature": "hot"})  # expect-error
def wrong_parameter(text: str) -> str:
    return prompt(text)


@step(examples=["x"])  # expect-error
def wrong_example(text: str) -> str:
    return prompt(text)


@step(name=3)  # expect-error
def wrong_name(text: str) -> str:
    return prompt(text)


@step
def wrong_prompt(text: str) -> str:
    return prompt(3)  # expect-error


@step
def unknown_prompt_option(text: str) -> str:
    return prompt(text, image=b"")  # expect-error


@step
def wrong_value(text: str) -> Ticket:
    return text  # expect-error


@task(journal="no")  # expect-error
def wrong_journal(text: str) -> str:
    return text


@task("openai/gpt-5-mini")  # expect-error
def a_model_on_a_task(text: str) -> str:
    return text


@flow  # expect-error
def not_async(text: str) -> str:
    return text


@flow("openai/gpt-5-mini")  # expect-error
async def a_model_on_a_flow(text: str) -> str:
    return text


# -- operations --------------------------------------------------------------------------------------------------------


async def wrong_operations(ticket: Ticket, answer: Literal["yes", "no"]) -> None:
    text: str = await when(ticket.urgent, classify("x"), a_text("x"))  # expect-error
    print(when("urgent", a_text("x"), a_text("y")))  # expect-error
    print(when(ticket.urgent, a_text("x")))  # expect-error
    print(when(ticket.urgent, "x", "y"))  # expect-error
    print(switch(answer, {"yes": "x"}))  # expect-error
    number: int = await switch(answer, {"yes": a_text("x"), "no": a_text("y")})  # expect-error
    one, other, _ = await gather(a_text("x"), classify("y"))  # expect-error
    print(gather(a_text("x"), "y"))  # expect-error
    print(build(Ticket, urgent=ticket, late=True))  # expect-error
    print(build(Other, reason=3))  # expect-error
    print(or_else("x", a_text("y")))  # expect-error
    certain: Ticket = await or_else(classify("x"), None)  # expect-error
    print(text, number, one, other, certain)


# -- policies ----------------------------------------------------------------------------------------------------------


Retry("three")  # expect-error
Retry(attempts=3.5)  # expect-error
Retry(retries=3)  # expect-error
Retry(on="ConnectionError")  # expect-error
Retry(on=lambda: True)  # expect-error
Retry().attempts = 5  # expect-error
Repair("two")  # expect-error
Budget(per="week")  # expect-error
Budget(tokens="many")  # expect-error
Budget("1", key="customer")  # expect-error
Budget("1", key=lambda request: 3)  # expect-error
Budget("1", on_unpriced="warn")  # expect-error
Timeout([5])  # expect-error
Deadline(None)  # expect-error
Fallback(3)  # expect-error
Fallback("openai/gpt-5", models=())  # expect-error


@dataclass(frozen=True)
class NoBand:
    def wrap(
        self, proceed: Callable[[Request], Awaitable[Reply]], site: Site, /
    ) -> Callable[[Request], Awaitable[Reply]]:
        return proceed


@dataclass(frozen=True)
class NoWrap:
    band: ClassVar[Band] = Band.RETRY


no_band: Policy = NoBand()  # expect-error
no_wrap: Policy = NoWrap()  # expect-error
Band.before("RETRY")  # expect-error
Message("tool", "x")  # expect-error


# -- models and runtime ------------------------------------------------------------------------------------------------


def not_async_handler(request: Request) -> str:
    return str(request)


async def wrong_reply(request: Request) -> int:
    return len(request.messages)


Model(3)  # expect-error
Model("fake/one", handler=not_async_handler)  # expect-error
Model("fake/one", handler=wrong_reply)  # expect-error
Model("fake/one", price=0.5)  # expect-error
Price(0.25, 2.0)  # expect-error
Price(input="cheap", output=2.0)  # expect-error
Runtime(policies=[3])  # expect-error
Runtime(policies=Retry(3))  # expect-error
Runtime(model="openai/gpt-5")  # expect-error
Runtime(prices={"openai/gpt-5": 0.5})  # expect-error
Runtime(prompts=7)  # expect-error
Runtime(variants={"triage": "canary"})  # expect-error
Wording()  # expect-error
Wording("Hello", "Be brief.")  # expect-error
Wording("Hello", params={"warmth": 1})  # expect-error
plan("support")  # expect-error
context(tags=["a"])  # expect-error


def a_plain_function(text: str) -> str:
    return text


plan(a_plain_function)  # expect-error
not_a_step: Step[[str], str] = a_plain_function  # expect-error
other_parameters: Step[[int], Ticket] = classify  # expect-error


async def wrong_streams() -> None:
    classify.stream(5)  # expect-error
    await classify.stream("x")  # expect-error
    for _ in classify.stream("x"):  # expect-error
        pass
    with classify.stream("x"):  # expect-error
        pass
    async with classify.stream("x") as stream:
        text: str = await stream.final()  # expect-error
        print(text)
