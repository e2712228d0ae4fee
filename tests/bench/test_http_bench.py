"""What a typed call over HTTP costs beside its floors: the SDK with pydantic, and a bare HTTP library with pydantic.

The server is a process of its own, so that the first benchmark measures the CPU of the client alone. The second one
measures wall-clock time: how many calls a second come through with 100 in flight and 50 ms of latency.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import openai
import pytest
from pydantic import BaseModel

from llmflow import Bulkhead, Model, Runtime, prompt, step
from llmflow.testing import LoopbackServer, answer

CALLS = 200
MAPPED = 2_000
IN_FLIGHT = 100
LATENCY = 0.05
KEY = "sk-test-0123456789abcdefghij"
ANSWER = '{"category":"bug","urgent":true,"score":0.5}'


class Ticket(BaseModel):
    category: str
    urgent: bool
    score: float


EXPECTED = Ticket(category="bug", urgent=True, score=0.5)
TOOL = {"type": "function", "function": {"name": "Ticket", "parameters": Ticket.model_json_schema()}}
CHOICE = {"type": "function", "function": {"name": "Ticket"}}

Call = Callable[[str], Awaitable[Ticket]]


def _serve(latency: float, pipe: Any) -> None:
    with LoopbackServer(answer(ANSWER, delay=latency)) as server:
        pipe.send(server.base_url)
        pipe.recv()


@pytest.fixture
def serve() -> Iterator[Callable[[float], str]]:
    """Start a server with a latency in another process and return its address."""
    spawning = multiprocessing.get_context("spawn")
    started = []

    def start(latency: float) -> str:
        ours, theirs = spawning.Pipe()
        process = spawning.Process(target=_serve, args=(latency, theirs), daemon=True)
        process.start()
        started.append((process, ours, theirs))
        return ours.recv()

    yield start
    for process, ours, theirs in started:
        ours.send(None)
        process.join()
        process.close()
        ours.close()
        theirs.close()


def _body(message: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Classify {message}"}]
    return {"model": "gpt-x", "messages": messages, "tools": [TOOL], "tool_choice": CHOICE, "max_tokens": 4096}


class ThroughLlmflow:
    """The call as a user of llmflow writes it, with its default policies."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> Call:
        self._runtime = Runtime()
        self._runtime.__enter__()

        @step(Model("openai/gpt-x", base_url=self._url, api_key=KEY), Bulkhead(IN_FLIGHT))
        def classify(message: str) -> Ticket:
            return prompt(f"Classify {message}")

        self.step = classify
        return classify

    async def __aexit__(self, *_: object) -> None:
        await self._runtime.aclose()
        self._runtime.__exit__(None, None, None)


class ThroughSdk:
    """The SDK's own call, and pydantic."""

    def __init__(self, url: str) -> None:
        self._client = openai.AsyncOpenAI(base_url=url, api_key=KEY)

    async def __aenter__(self) -> Call:
        return self._call

    async def _call(self, message: str) -> Ticket:
        completion = await self._client.chat.completions.create(**_body(message))
        return Ticket.model_validate_json(completion.choices[0].message.tool_calls[0].function.arguments)

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()


class ThroughAiohttp:
    """The least that a program by hand can do."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/chat/completions"

    async def __aenter__(self) -> Call:
        connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
        self._session = aiohttp.ClientSession(connector=connector, headers={"Authorization": f"Bearer {KEY}"})
        return self._call

    async def _call(self, message: str) -> Ticket:
        async with self._session.post(self._url, json=_body(message)) as response:
            reply = json.loads(await response.read())
        return Ticket.model_validate_json(reply["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"])

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()


WAYS = pytest.mark.parametrize("way", [ThroughLlmflow, ThroughSdk, ThroughAiohttp], ids=["llmflow", "sdk", "aiohttp"])


@WAYS
@pytest.mark.benchmark(group="CPU of 200 typed calls over HTTP", timer=time.process_time)
def test_the_cpu_of_a_typed_call_over_http(benchmark, serve: Callable[[float], str], way: type[Any]) -> None:
    """One round is 200 calls, one after the other, in CPU seconds of this process; divide by 200."""
    benchmark.extra_info["calls per round"] = CALLS
    made = way(serve(0.0))

    async def calls(call: Call) -> list[Ticket]:
        return [await call(str(number)) for number in range(CALLS)]

    with asyncio.Runner() as runner:
        call = runner.run(made.__aenter__())
        values = benchmark.pedantic(lambda: runner.run(calls(call)), rounds=10, warmup_rounds=1)
        runner.run(made.__aexit__(None, None, None))

    assert [EXPECTED] * CALLS == values


@WAYS
@pytest.mark.slow
@pytest.mark.benchmark(group="2,000 calls, 100 in flight, 50 ms latency")
def test_mapped_calls_over_http(benchmark, serve: Callable[[float], str], way: type[Any]) -> None:
    """One round is 2,000 calls in wall-clock time; with nothing but the latency it would take a second."""
    benchmark.extra_info["calls per round"] = MAPPED
    made = way(serve(LATENCY))
    items = [str(number) for number in range(MAPPED)]

    async def calls(call: Any) -> list[Ticket]:
        if isinstance(made, ThroughLlmflow):
            return await call.map(items, concurrency=IN_FLIGHT)
        places = asyncio.Semaphore(IN_FLIGHT)

        async def one(item: str) -> Ticket:
            async with places:
                return await call(item)

        return await asyncio.gather(*map(one, items))

    with asyncio.Runner() as runner:
        call = runner.run(made.__aenter__())
        values = benchmark.pedantic(lambda: runner.run(calls(call)), rounds=3, warmup_rounds=1)
        runner.run(made.__aexit__(None, None, None))

    assert [EXPECTED] * MAPPED == values
