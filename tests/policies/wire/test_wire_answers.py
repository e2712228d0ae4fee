"""What comes back as an answer, what it costs, and what 10,000 broken bodies do to a call."""

from __future__ import annotations

import copy
import json
import random
from decimal import Decimal

import pytest

from llmflow import InvalidOutput, LLMFlowError, ProviderUnavailable, Repair, Retry, StepError
from llmflow.testing import _http_faults as faults
from llmflow.testing._http_responses import answer, json_reply, raw_reply, status

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("closing")]

GOOD = '{"category": "bug", "score": 0.5}'


async def test_usage_becomes_cost(server, model, asking):
    """10 tokens in at $1 and 5 out at $2 per million are 20 millionths of a dollar."""
    server.default = answer(GOOD, usage=(10, 5))

    result = await asking(model).run("x")

    assert (Decimal("0.00002"), 10, 5) == (result.cost_usd, result.usage.input_tokens, result.usage.output_tokens)


JUNK_USAGE = [
    None,
    {},
    {"prompt_tokens": -1000, "completion_tokens": 5},
    {"prompt_tokens": 10, "completion_tokens": -5},
    {"prompt_tokens": "ten", "completion_tokens": None},
    {"prompt_tokens": 1e400, "completion_tokens": 5},
    {"prompt_tokens": True, "completion_tokens": 5},
    {"prompt_tokens": 10.5, "completion_tokens": 5},
    {"prompt_tokens": [10], "completion_tokens": {"n": 5}},
    {"prompt_tokens": 10},
]


@pytest.mark.parametrize("usage", JUNK_USAGE, ids=str)
async def test_v6_the_answer_counts_and_its_cost_is_unknown(usage, server, model, asking):
    """V6, fault 40: never 0, never negative, never a guess."""
    server.default = answer(GOOD, usage=usage)

    result = await asking(model).run("x")

    assert ("bug", None) == (result.value.category, result.cost_usd)


async def test_v6_one_unknown_attempt_makes_the_sum_unknown(server, model, asking):
    """An answer whose connection broke may have been billed; nobody knows."""
    server.enqueue(faults.reset_in_body(), answer(GOOD))

    result = await asking(model).run("x")

    assert ([None, Decimal("0.00002")], None) == ([one.cost_usd for one in result.attempts], result.cost_usd)


async def test_a_request_answered_with_an_error_costs_nothing(server, model, asking):
    """Providers do not bill an error; the sum stays known."""
    server.enqueue(status(500), answer(GOOD))

    result = await asking(model).run("x")

    assert ([0, Decimal("0.00002")], Decimal("0.00002")) == ([one.cost_usd for one in result.attempts], result.cost_usd)


async def test_v6_reasks_are_added_up(server, model, asking):
    """Both answers were paid for."""
    server.enqueue(answer("junk", usage=(10, 5)), answer(GOOD, usage=(20, 5)))

    result = await asking(model).run("x")

    assert (Decimal("0.00005"), 30) == (result.cost_usd, result.usage.input_tokens)


async def test_v6_a_failed_call_says_what_it_cost(server, model, asking):
    """The error carries the cost of the answers that did not fit."""
    server.default = answer("junk", usage=(10, 5))

    with pytest.raises(InvalidOutput) as caught:
        await asking(model, Repair(1))("x")

    assert Decimal("0.00004") == caught.value.cost_usd


@pytest.mark.parametrize(
    "body",
    [
        {"choices": []},
        {"choices": None},
        {},
        {"choices": [None]},
        {"choices": [{}]},
        {"choices": [{"message": None, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": None}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": 7}, "finish_reason": "stop"}]},
        {"choices": {"0": "x"}},
        {"choices": "text"},
    ],
    ids=str,
)
async def test_fault_39_a_reply_without_an_answer_is_no_crash(body, server, model, asking):
    """Typed, and not None."""
    server.default = json_reply(body)

    with pytest.raises(InvalidOutput):
        await asking(model, Repair(0))("x")


async def test_fault_39_a_reply_without_an_answer_is_asked_again(server, model, asking):
    """The next answer counts."""
    server.enqueue(json_reply({"choices": []}), answer(GOOD))

    assert "bug" == (await asking(model)("x")).category


@pytest.mark.parametrize(
    "fault", [faults.huge_body(100), faults.gzip_bomb(200)], ids=lambda fault: type(fault).__name__
)
async def test_s6_bombs_do_not_fill_the_memory(fault, server, model, asking):
    """S6, fault 28: one request, a typed error, and no more than 64 MB at any moment."""
    import tracemalloc

    server.default = fault
    tracemalloc.start()
    try:
        with pytest.raises(ProviderUnavailable) as caught:
            await asking(model)("x")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (1, False) == (len(server.requests), caught.value.retryable)
    assert peak < 64 * 1024 * 1024


# -- fuzz --------------------------------------------------------------------------------------------------------------

COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-x",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "Ticket", "arguments": GOOD}}],
            },
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
}
ODDITIES = [
    None,
    True,
    -1,
    0,
    1e308,
    "",
    "x",
    "\ud800",
    "\x00",
    [],
    {},
    [[]],
    {"a": []},
    "NaN",
    10**30,
    "length",
    GOOD,
    [None],
]


def paths(value, path=()):
    """Yield the way to everything inside a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


def mutated(chance):
    """Return a completion with up to three places replaced, removed or doubled."""
    body = json.loads(json.dumps(COMPLETION))
    for _ in range(chance.randint(1, 3)):
        places = [path for path in paths(body) if path]
        if not places:
            return copy.deepcopy(chance.choice(ODDITIES))
        *way, last = chance.choice(places)
        owner = body
        for key in way:
            owner = owner[key]
        action = chance.random()
        if action < 0.7:
            owner[last] = copy.deepcopy(chance.choice(ODDITIES))  # what is put in may be changed in its turn
        elif action < 0.9:
            del owner[last]
        elif isinstance(owner, list):
            owner.append(owner[last])
    return body


def fuzzed(chance):
    """Return a reply that is JSON of a wrong shape, JSON cut in pieces, or no JSON at all, with any status."""
    kind = chance.random()
    body = json.dumps(mutated(chance)).encode()
    if kind < 0.15:
        body = body[: chance.randrange(len(body) + 1)]
    elif kind < 0.3:
        body = bytearray(body)
        for _ in range(chance.randint(1, 8)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        body = bytes(body)
    elif kind < 0.35:
        body = chance.randbytes(chance.randrange(60))
    code = (
        200
        if chance.random() < 0.85
        else chance.choice([201, 204, 301, 400, 401, 402, 404, 418, 429, 451, 500, 503, 529])
    )
    return raw_reply(b"" if code == 204 else body, status=code)


@pytest.mark.parametrize("seed", range(4))
async def test_v5_nothing_but_our_errors_escapes_ten_thousand_bodies(seed, server, model, asking, anyio_backend_name):
    """V5: answers and complete LLMFlowErrors, nothing else; 4 seeds x (2,200 on asyncio + 300 on trio)."""
    chance = random.Random(seed)
    server.default = lambda request: fuzzed(chance)
    ask = asking(model, Retry.off, Repair(seed % 2))
    answers = failures = 0

    for _ in range(2200 if anyio_backend_name == "asyncio" else 300):
        try:
            ticket = await ask("x")
        except StepError as error:
            failures += 1
            _check_complete(error)
        else:
            answers += 1
            assert "Ticket" == type(ticket).__name__

    assert min(answers, failures) > 10


def _check_complete(error):
    assert isinstance(error, LLMFlowError)
    assert "triage" == error.step
    assert error.run_id
    assert 1 <= len(error.attempts) <= 2
    assert error.cost_usd is None or error.cost_usd >= 0
    assert error.status is None or isinstance(error.status, int)
    assert error.retryable in (True, False)
    assert all(one.usage is None or (one.usage.output_tokens or 0) >= 0 for one in error.attempts)
    str(error).encode()
