"""Whole replies of the three services, the tokens that must be read from them, and what genai-prices makes of them."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import genai_prices
import pytest

from llmflow.messages import Usage
from llmflow.models import Model
from llmflow.prices import cost, dollars, worst_case_nano
from llmflow.providers._plugin import llmflow_provider
from llmflow.providers._price_table import PriceTable
from llmflow.providers._usage import any_usage, openai_usage
from llmflow.testing._http_responses import json_reply

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))
CHAT: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "openai-chat.json").read_text())["body"]

golden = pytest.mark.parametrize(
    "case", [json.loads(path.read_text()) for path in GOLDEN], ids=[path.stem for path in GOLDEN]
)


def independent(case: dict[str, Any]) -> Decimal:
    """What genai-prices reads from the same body, and what it asks for it."""
    provider, _, model = case["model"].partition("/")
    found = genai_prices.extract_usage(case["body"], provider_id=provider, api_flavor=case["flavor"])
    return genai_prices.calc_price(found.usage, model, provider_id=provider).total_price


async def ask(case: dict[str, Any], server, text_output, make_request):
    model = Model(case["model"], base_url=server.base_url, api_key="sk-test-0123456789abcdef")
    server.enqueue(json_reply(case["body"]))
    provider = llmflow_provider(model.provider)
    try:
        return await provider.connect(model, text_output)(make_request(model, text_output))
    finally:
        await provider.aclose()


@golden
@pytest.mark.anyio
async def test_tokens_of_a_real_reply(case, server, text_output, make_request):
    """The tokens are what the service means by its numbers, whatever it leaves in or out."""
    reply = await ask(case, server, text_output, make_request)

    assert Usage(**case["usage"]) == reply.usage


@golden
def test_dollars_of_a_real_reply(case):
    """The cost is to the nano-dollar what genai-prices computes by its own reading of the same body."""
    price = PriceTable().llmflow_price(Model(case["model"]))

    assert independent(case).quantize(Decimal("1e-9")) == cost(Usage(**case["usage"]), price)


@golden
def test_b1_the_worst_case_holds_for_a_real_reply(case):
    """B1: what is reserved for the prompt and answer of a real reply is never less than what it costs."""
    usage, price = Usage(**case["usage"]), PriceTable().llmflow_price(Model(case["model"]))

    assert price is not None
    assert independent(case) <= dollars(worst_case_nano(usage.input_tokens, usage.output_tokens, price))


ODD = {
    "null": None,
    "text": "many",
    "empty": {},
    "numbers as text": {"prompt_tokens": "10", "completion_tokens": "5"},
    "negative": {"prompt_tokens": -10, "completion_tokens": -5},
    "fractions": {"prompt_tokens": 10.5, "completion_tokens": 5.5},
    "booleans": {"prompt_tokens": True, "completion_tokens": True},
    "only the answer": {"completion_tokens": 5},
    "endless": {"prompt_tokens": 10**30, "completion_tokens": 5},
}


@pytest.mark.parametrize("usage", ODD.values(), ids=ODD.keys())
@pytest.mark.anyio
async def test_v6_odd_usage_of_a_compatible_service_is_unknown(usage, server, text_output, make_request):
    """V6: the answer is kept, its cost is unknown, and nothing is negative."""
    case = {"model": "openai/gpt-5-mini", "body": CHAT | {"usage": usage}}
    price = PriceTable().llmflow_price(Model("openai/gpt-5-mini"))

    reply = await ask(case, server, text_output, make_request)

    assert "It is a bug." == reply.text
    assert cost(reply.usage, price) is None


@pytest.mark.parametrize("junk", [-1, "9", 2.5, True, 10**30])
@pytest.mark.parametrize("name", ["cache_read_input_tokens", "cache_creation_input_tokens"])
@pytest.mark.anyio
async def test_v6_junk_beside_anthropic_s_input_makes_the_input_unknown(name, junk, server, text_output, make_request):
    """V6: the sum of three numbers, one of which is junk, is not the sum of the other two."""
    case = json.loads((Path(__file__).parent / "golden" / "anthropic-cache.json").read_text())
    case["body"]["usage"][name] = junk

    reply = await ask(case, server, text_output, make_request)

    assert (None, 393) == (reply.usage.input_tokens, reply.usage.output_tokens)


def test_reasoning_that_is_counted_beside_the_answer_is_added():
    """xAI leaves reasoning out of `completion_tokens`; the total tells."""
    details = {"completion_tokens_details": {"reasoning_tokens": 30}}

    beside = openai_usage({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 45, **details})
    within = openai_usage({"prompt_tokens": 10, "completion_tokens": 35, "total_tokens": 45, **details})

    assert Usage(input_tokens=10, output_tokens=35, reasoning_tokens=30) == beside == within


def test_deepseek_s_own_name_of_cached_tokens():
    """Its older replies have no `prompt_tokens_details`."""
    assert Usage(input_tokens=10, output_tokens=5, cached_tokens=8) == openai_usage(
        {"prompt_tokens": 10, "completion_tokens": 5, "prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 2}
    )


FOREIGN = {
    "chat completions": (
        {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}},
        Usage(input_tokens=10, output_tokens=5, cached_tokens=4),
    ),
    "openai responses": (
        {"usage": {"input_tokens": 10, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 4}}},
        Usage(input_tokens=10, output_tokens=5, cached_tokens=4),
    ),
    "anthropic": (
        {"usage": {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 4}},
        Usage(input_tokens=14, output_tokens=5, cached_tokens=4),
    ),
    "cohere": (
        {"usage": {"billed_units": {"input_tokens": 10.0, "output_tokens": 5.0}, "tokens": {"input_tokens": 99.0}}},
        Usage(input_tokens=10, output_tokens=5),
    ),
    "bedrock": (
        {"usage": {"inputTokens": 10, "outputTokens": 5, "cacheReadInputTokens": 4, "cacheWriteInputTokens": 1}},
        Usage(input_tokens=15, output_tokens=5, cached_tokens=4, cache_write_tokens=1),
    ),
    "gemini": (
        {"usage_metadata": {"prompt_token_count": 10, "candidates_token_count": 5, "thoughts_token_count": 2}},
        Usage(input_tokens=10, output_tokens=7, reasoning_tokens=2),
    ),
    "nothing": ({}, None),
}


@pytest.mark.parametrize(("response", "expected"), FOREIGN.values(), ids=FOREIGN.keys())
def test_usage_of_services_behind_instructor(response, expected):
    """Whatever service an instructor client asks, its tokens are counted alike."""
    assert expected == any_usage(response)
