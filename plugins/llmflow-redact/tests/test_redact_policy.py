"""The policy in a chain: what a model is sent, and what a plan says."""

from __future__ import annotations

import inspect
import re
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llmflow_redact
import pytest
from llmflow_redact import Redact
from pydantic import BaseModel

from llmflow import Model, ProviderUnavailable, Reply, Request, Retry, Runtime, plan, prompt, step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("redacting")]


class Script:
    """A model that answers from a list and keeps what it was asked."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.requests: list[Request] = []
        self.model = Model("fake/script", handler=self.answer)

    async def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, Reply) else Reply(text=reply)

    def said(self, number: int = 0) -> str:
        """Return everything a request says."""
        request = self.requests[number]
        return repr((request.messages, request.turns))


class Contact(BaseModel):
    name: str
    email: str


def without_real_addresses(value: Contact, inputs: Mapping[str, object]) -> None:
    """A check whose text quotes what the author wanted to keep."""
    if value.name != "Ann":
        raise ValueError(f"the name of {inputs['text']} is Ann")


def extracting(script: Script, *policies: Any) -> Callable[..., Any]:
    """Return a step with everything that can carry an address."""

    @step(
        script.model,
        *policies,
        name="extract",
        system="Ask boss@example.com if unsure.",
        examples=[("I am Bob, bob@example.com", Contact(name="Bob", email="bob@example.com"))],
        checks=[without_real_addresses],
    )
    def extract(text: str) -> Contact:
        return prompt(f"Who is it? {text}", messages=[("user", "Reply to cy@example.com")])

    return extract


ANSWER = '{"name": "Ann", "email": "[EMAIL]"}'


async def test_no_part_of_a_request_carries_an_address() -> None:
    """System text, few-shot turns, earlier turns and the prompt itself are all redacted."""
    script = Script(ANSWER)
    await extracting(script)("Ann, ann@example.com, +49 171 1234567, 4111 1111 1111 1111")

    assert "example.com" not in script.said()
    assert "Who is it? Ann, [EMAIL], [PHONE], [CARD]" == script.requests[0].messages[-1].content
    assert all("[EMAIL]" in one.content for one in script.requests[0].messages)


async def test_a_re_ask_carries_no_address_either() -> None:
    """The text of a check may quote the input; it goes through the same policy."""
    script = Script('{"name": "Bob", "email": "ann@example.com"}', ANSWER)
    await extracting(script)("ann@example.com")

    assert "the name of [EMAIL] is Ann" in script.said(1)
    assert "example.com" not in script.said(1)


async def test_a_re_ask_in_the_provider_s_own_form_is_redacted() -> None:
    """Providers build re-asks as dicts of their SDK."""
    first = Reply(
        text='{"name": "Bob", "email": "x"}',
        reask=lambda problem: [{"role": "tool", "tool_call_id": "call_1", "content": problem}],
    )
    script = Script(first, ANSWER)
    await extracting(script)("ann@example.com")

    (turn,) = script.requests[1].turns
    assert isinstance(turn, dict)
    assert "[EMAIL]" in turn["content"]
    assert "call_1" == turn["tool_call_id"]


async def test_a_retry_carries_no_address_either() -> None:
    """A request that is sent again is the redacted one."""
    script = Script(ProviderUnavailable("busy"), ANSWER)
    await extracting(script, Retry(2, wait_initial=0))("ann@example.com")

    assert script.said(0) == script.said(1)
    assert "example.com" not in script.said(1)


async def test_the_step_s_own_inputs_and_answer_stay() -> None:
    """Only what is sent is changed: checks see the real input, and the answer is the model's."""
    seen: list[object] = []
    script = Script("The address is ann@example.com")

    @step(script.model, checks=[lambda value, inputs: seen.append(inputs["text"])])
    def echo(text: str) -> str:
        return prompt(text)

    assert "The address is ann@example.com" == await echo("ann@example.com")
    assert ["ann@example.com"] == seen


async def test_a_step_may_take_it_out() -> None:
    """`Redact.off` on a step that must see the real values."""
    script = Script(ANSWER)
    await extracting(script, Redact.off)("ann@example.com")

    assert "Who is it? ann@example.com" == script.requests[0].messages[-1].content


def test_a_plan_shows_it(redacting: Runtime) -> None:
    """Who reads a plan sees where it stands, and whose it is."""
    (node,) = plan(extracting(Script()), runtime=redacting).nodes  # type: ignore[arg-type]
    bands = [(layer.band, layer.policy.partition("(")[0]) for layer in node.layers]

    assert ("before RETRY", "Redact") in bands
    assert (
        bands.index(("parse", "-> Contact")) < bands.index(("before RETRY", "Redact")) < bands.index(("RETRY", "Retry"))
    )


def test_the_policy_is_short() -> None:
    """A policy that changes every request takes at most 30 lines, its docstring and comments included."""
    assert len(inspect.getsource(Redact).splitlines()) <= 30


def test_the_package_is_typed() -> None:
    """A `py.typed` marker goes with the package."""
    assert (Path(llmflow_redact.__file__).parent / "py.typed").is_file()


def test_the_readme_tells_the_truth() -> None:
    """Its Python blocks run, and what they assert holds."""
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert len(blocks) == 2

    for number, block in enumerate(blocks):
        here = block.replace("Runtime()", "Runtime(plugins=[llmflow_redact])")  # where the plugin is not installed
        exec(compile(here, f"README.md, block {number}", "exec"), {"llmflow_redact": llmflow_redact})


async def test_what_the_journal_stores_is_redacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what a step was given nor what it answered is in the file with an address in it."""
    monkeypatch.setenv("LLMFLOW_DISABLE_PLUGINS", "all")
    path = tmp_path / "runs.db"
    script = Script("Ann's address is ann@example.com.")

    @step(script.model)
    def find(message: str) -> str:
        return prompt(f"Find it: {message}")

    async with Runtime(plugins=[llmflow_redact], store=f"sqlite:///{path}"):
        answer = await find("I am ann@example.com")
    with sqlite3.connect(path) as connection:
        (stored,) = connection.execute("SELECT inputs, output, content FROM nodes").fetchall()
    connection.close()

    assert "ann@example.com" in answer
    assert ('{"message":"I am [EMAIL]"}', '"Ann\'s address is [EMAIL]."', "redacted") == stored
    assert b"ann@example.com" not in path.read_bytes()
