"""Budget: nothing is sent that cannot be paid for, and whatever becomes of a request is settled once."""

from __future__ import annotations

import anyio
import pytest

from llmflow import Budget, BudgetExceeded, Bulkhead, Price, Usage
from llmflow.testing._scripted import after, scripted

pytestmark = pytest.mark.anyio

CENT = Price(input=0, output=2.5)
"""With `max_tokens=4000` a request costs a cent at worst."""


async def test_b1_a_thousand_calls_do_not_overspend_ten_cents(asking):
    """Fault 63: 1,000 concurrent calls of $0.01 against $0.10: at most 10 requests, at least 5, the rest refused unsent."""
    model = scripted(default=after(1, "fine"), price=CENT, usage=Usage(input_tokens=10, output_tokens=4000))
    ask = asking(model, Budget("0.10", per="total"), Bulkhead(1000), params={"max_tokens": 4000})
    refused = []

    async def call():
        try:
            await ask("x")
        except BudgetExceeded as error:
            refused.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(1000):
            group.start_soon(call)

    assert 5 <= len(model.requests) <= 10
    assert 1000 == len(model.requests) + len(refused)
    assert all(error.attempts == () for error in refused)
