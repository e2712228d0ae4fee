"""Budgets over real connections: how many requests arrive, and what one that never did is charged."""

from __future__ import annotations

import socket
from decimal import Decimal

import anyio
import pytest

from llmflow import Budget, BudgetExceeded, Bulkhead, Model, Price, ProviderUnavailable, Retry
from llmflow.testing import _http_faults as faults
from llmflow.testing._http_responses import answer, status

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("closing")]

GOOD = '{"category": "bug", "score": 0.5}'
CENT = Price(input=0, output=2.5)


def budget_of(runtime):
    (found,) = [one.values for one in runtime.stats().states if one.kind == "budget"]
    return found


async def test_b1_a_thousand_calls_at_a_real_server(server, asking, runtime, key):
    """Fault 63: at most ten of 1,000 requests of a cent arrive, at least five, and the others are refused unsent."""
    server.default = answer(GOOD, usage={"prompt_tokens": 10, "completion_tokens": 4000, "total_tokens": 4010})
    model = Model("openai/gpt-x", base_url=server.base_url, api_key=key, price=CENT)
    ask = asking(model, Budget("0.10", per="total"), Bulkhead(1000), params={"max_tokens": 4000})
    answered, refused = [], []

    async def call(n):
        try:
            answered.append(await ask(str(n)))
        except BudgetExceeded as error:
            refused.append(error)

    async with anyio.create_task_group() as group:
        for n in range(1000):
            group.start_soon(call, n)

    assert 5 <= len(server.requests) <= 10
    assert (len(server.requests), 1000) == (len(answered), len(answered) + len(refused))
    assert budget_of(runtime)["usd_settled"] <= Decimal("0.10")


@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid"])
async def test_without_a_connection_nothing_is_charged(host, asking, runtime, key):
    """A closed port and an unknown host: the error says that nothing was sent."""
    with socket.socket() as closed:  # bound, so that nobody else takes the port, but not listening
        closed.bind(("127.0.0.1", 0))
        model = Model("openai/gpt-x", base_url=f"http://{host}:{closed.getsockname()[1]}/v1", api_key=key, price=CENT)

        with pytest.raises(ProviderUnavailable) as caught:
            await asking(model, Budget("1", calls=5, per="total"), Retry.off)("x")

    assert caught.value.sent is False
    assert (Decimal(0), 0) == (budget_of(runtime)["usd_settled"], budget_of(runtime)["calls_settled"])


@pytest.mark.parametrize(
    ("behaviour", "dollars"), [(status(503), "0"), (faults.close_without_reply(), "0.01")], ids=["503", "closed"]
)
async def test_an_error_reply_is_free_and_a_broken_connection_is_not(behaviour, dollars, server, asking, runtime, key):
    """A provider does not bill what it answers with an error; what broke off it may have answered."""
    server.default = behaviour
    model = Model("openai/gpt-x", base_url=server.base_url, api_key=key, price=CENT)

    with pytest.raises(ProviderUnavailable) as caught:
        await asking(model, Budget("1", per="total"), Retry.off, params={"max_tokens": 4000})("x")

    assert caught.value.sent is True
    assert Decimal(dollars) == budget_of(runtime)["usd_settled"]
