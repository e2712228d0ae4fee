"""Steps and flows as FastAPI routes, taken as they are."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel

fastapi = pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

from llmflow import flow, prompt, step  # noqa: E402
from llmflow.testing._scripted import scripted  # noqa: E402

pytestmark = pytest.mark.anyio


class Ticket(BaseModel):
    """What the routes return."""

    category: Literal["billing", "bug"]
    urgent: bool = False


@step(scripted(default='{"category": "bug"}'))
def triage(message: str, language: str = "en") -> Ticket:
    """Classify in {{ language }}: {{ message }}"""
    return prompt()


@step(scripted(default="We are on it."))
def draft(message: str, ticket: Ticket) -> str:
    return prompt(f"Answer this {ticket.category}: {message}")


@flow
async def support(message: str) -> str:
    ticket = await triage(message)
    return await draft(message, ticket)


@pytest.fixture
async def client():
    """A client of an application whose routes are a step and a flow."""
    app = fastapi.FastAPI()
    app.get("/triage")(triage)
    app.get("/support")(support)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as made:
        made.app = app
        yield made


async def test_a_step_as_a_route_takes_query_parameters(client):
    """And returns the validated model."""
    reply = await client.get("/triage", params={"message": "it crashes"})

    assert (200, {"category": "bug", "urgent": False}) == (reply.status_code, reply.json())


async def test_a_missing_parameter_is_fastapis_error(client):
    """422, before any model is asked."""
    reply = await client.get("/triage")

    assert (422, "message") == (reply.status_code, reply.json()["detail"][0]["loc"][-1])


async def test_a_flow_as_a_route(client):
    """The same for a flow."""
    reply = await client.get("/support", params={"message": "it crashes"})

    assert (200, "We are on it.") == (reply.status_code, reply.json())


async def test_the_documentation_knows_the_answer(client):
    """The return type is the response's schema, the parameters are the query's."""
    described = client.app.openapi()["paths"]["/triage"]["get"]

    assert ["message", "language"] == [one["name"] for one in described["parameters"]]
    assert described["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/Ticket")
