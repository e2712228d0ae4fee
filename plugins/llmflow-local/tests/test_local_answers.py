"""The real model, asked for real."""

from __future__ import annotations

import itertools
import json
import threading
import time
from typing import TYPE_CHECKING

import anyio
import pytest
from llmflow_local._engines import ENGINES
from pydantic import BaseModel, Field

from llmflow.errors import BadRequest, ContextTooLong
from llmflow.messages import Chunk, File, Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Asker

pytestmark = [pytest.mark.anyio, pytest.mark.weights, pytest.mark.usefixtures("weights")]


class Payment(BaseModel):
    """Who paid what, and when."""

    name: str = Field(max_length=40)
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    amount: float


SCHEMA = Payment.model_json_schema()
EXAMPLES = (
    ("system", "Extract the payment. Reply with JSON only."),
    ("user", "John Smith paid $120.50 on 3 March 2024 for his subscription."),
    ("assistant", json.dumps({"name": "John Smith", "date": "2024-03-03", "amount": 120.5})),
    ("user", "On 1 May 2023 we received 80 dollars from Ann Lee."),
    ("assistant", json.dumps({"name": "Ann Lee", "date": "2023-05-01", "amount": 80.0})),
)
QUESTION = ("user", "Maria Garcia paid $45.00 on 12 June 2024 for a book.")
LONG = ("user", "Write a long story about a dog that travels around the world.")


async def test_a_typed_answer(asker: Callable[..., Asker]) -> None:
    """The answer is the author's type, and the reply says what it took."""
    reply = await asker(SCHEMA)(*EXAMPLES, QUESTION)

    payment = Payment.model_validate_json(reply.text or "")
    assert ("Maria Garcia", 45.0) == (payment.name, payment.amount)
    assert ("stop", "smollm2-135m-instruct-q4_1") == (reply.finish_reason, reply.model)
    assert reply.usage is not None
    assert (reply.usage.input_tokens or 0) > 100
    assert 10 < (reply.usage.output_tokens or 0) < 60
    assert reply.reask is None


async def test_examples_are_read_once(asker: Callable[..., Asker]) -> None:
    """A few-shot prefix is found in the prompt cache, also after another step had its turn."""
    ask = asker(SCHEMA)
    await ask(*EXAMPLES, QUESTION)
    await asker()(("system", "Something else. " * 20), ("user", "hi"), max_tokens=2)

    reply = await ask(*EXAMPLES, ("user", "Bob Ray paid $5.00 on 2 June 2024."))

    assert reply.usage is not None
    assert (reply.usage.cached_tokens or 0) > 80


async def test_without_examples_the_answer_is_still_json(asker: Callable[..., Asker]) -> None:
    """The schema holds while the answer is generated."""
    reply = await asker(SCHEMA)(QUESTION, max_tokens=300)

    assert Payment.model_validate_json(reply.text or "")


async def test_unconstrained_answers_are_really_malformed(asker: Callable[..., Asker]) -> None:
    """Without a constraint and without examples the model does what it likes."""
    reply = await asker(SCHEMA, constrained=False)(QUESTION)

    with pytest.raises(ValueError, match="Invalid JSON"):
        Payment.model_validate_json(reply.text or "")


async def test_a_repeated_ask_goes_after_the_messages(asker: Callable[..., Asker]) -> None:
    """The turns of a re-ask are read by the model."""
    ask = asker()
    messages = [("user", "Say a word.")]
    once = await ask(*messages, max_tokens=4)

    turns = [Message("assistant", once.text or ""), Message("user", "That is not a colour. Say a colour.")]
    again = await ask(*messages, reask=turns, max_tokens=4)

    assert once.usage is not None
    assert again.usage is not None
    assert (again.usage.input_tokens or 0) > (once.usage.input_tokens or 0)


async def test_text_is_streamed(asker: Callable[..., Asker]) -> None:
    """The chunks are the answer, and carry the number of the attempt."""
    chunks: list[Chunk] = []

    async def sink(chunk: Chunk) -> None:
        chunks.append(chunk)

    reply = await asker()(("user", "Say hello."), sink=sink)

    assert reply.text == "".join(chunk.text for chunk in chunks)
    assert {3} == {chunk.attempt for chunk in chunks}
    assert len(chunks) > 3


async def test_parameters_reach_the_engine(asker: Callable[..., Asker]) -> None:
    """max_tokens cuts, stop stops, a seed repeats; reasoning is not something it has."""
    ask = asker()

    cut = await ask(LONG, max_tokens=3, reasoning="low")
    stopped = await ask(LONG, stop=["a"])
    seeded = [await ask(LONG, temperature=1.0, top_p=0.9, seed=7, max_tokens=12) for _ in range(3)]

    assert cut.finish_reason == "length"
    assert "a" not in (stopped.text or "a")
    # The first one may read its prompt in other portions than those that find it cached.
    assert seeded[1].text == seeded[2].text


async def test_a_prompt_that_does_not_fit(asker: Callable[..., Asker]) -> None:
    """The error has both numbers and the way out; Fallback takes a model with a larger window."""
    with pytest.raises(ContextTooLong, match=r"has 50\d\d tokens, the context window 4096; .*context=") as caught:
        await asker()(("user", "word " * 5000))

    assert (400, "local", "local/smollm2") == (caught.value.status, caught.value.provider, caught.value.model)


@pytest.mark.parametrize(
    ("schema", "turn", "message"),
    [
        ({"type": "banana"}, Message("user", "hi"), "unrecognized type banana"),
        (None, Message("user", "hi", (File(media_type="image/png", data=b"x"),)), "reads text only.*image/png"),
        (None, Message("user", "\ud800"), "refused the request"),
    ],
)
async def test_a_request_that_cannot_work(
    asker: Callable[..., Asker], schema: dict[str, str] | None, turn: Message, message: str
) -> None:
    """What the engine refuses is the request's fault, and is not tried again."""
    with pytest.raises(BadRequest, match=message) as caught:
        await asker(schema)(turn)

    assert not caught.value.retryable


async def test_a_turn_of_another_provider_is_refused(asker: Callable[..., Asker]) -> None:
    """Turns in another provider's own form cannot be read here."""
    with pytest.raises(BadRequest, match="a turn is dict"):
        await asker()(("user", "hi"), reask=[{"role": "user"}])


@pytest.mark.parametrize("turn", [LONG, ("user", "word " * 3500)], ids=["answering", "reading"])
async def test_a_cancelled_call_frees_the_engine(asker: Callable[..., Asker], turn: tuple[str, str]) -> None:
    """Uncancelled, each of these takes a minute of the processors."""
    ask = asker()
    await ask(("user", "hi"), max_tokens=1)

    with anyio.move_on_after(0.5) as scope:
        await ask(turn, max_tokens=2000)
    cancelled = time.process_time()
    await ask(("user", "hi"), max_tokens=1)

    assert scope.cancelled_caught
    assert time.process_time() - cancelled < 10


async def test_the_loop_runs_on_while_the_model_works(asker: Callable[..., Asker]) -> None:
    """Generating holds neither the loop nor the interpreter's lock."""
    ask = asker()
    await ask(("user", "hi"), max_tokens=1)
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        await ask(LONG, max_tokens=60)
        group.cancel_scope.cancel()

    assert len(ticks) > 10
    pauses = sorted(later - earlier for earlier, later in itertools.pairwise(ticks))
    assert pauses[len(pauses) * 9 // 10] < 0.5  # in some of them the machine itself may have stood still


async def test_an_idle_engine_has_no_thread(asker: Callable[..., Asker]) -> None:
    """Nothing of Python waits for the next request."""
    await asker()(("user", "hi"), max_tokens=1)

    with anyio.fail_after(60):
        while any(thread.name == "llmflow-local" for thread in threading.enumerate()):
            await anyio.sleep(0.01)


async def test_one_engine_serves_every_step(asker: Callable[..., Asker]) -> None:
    """Steps and runtimes share the weights in memory."""
    await asker()(("user", "hi"), max_tokens=1)
    engines = dict(ENGINES._engines)  # noqa: SLF001  # memory is the point, and it has no public face
    await asker(SCHEMA, constrained=False)(("user", "hi"), max_tokens=1)

    assert engines == ENGINES._engines  # noqa: SLF001


async def test_a_file_of_the_users_own(asker: Callable[..., Asker], weights: object) -> None:
    """A path is a model, and its name is what answered."""
    reply = await asker(None, f"local/{weights}", context=1024)(("user", "hi"), max_tokens=2)

    assert reply.model == "SmolLM2-135M-Instruct.Q4_1"
