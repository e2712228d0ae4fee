"""Repair: what is mended without asking, what is asked again, and how often."""

from __future__ import annotations

import math
from typing import Literal

import pytest
from pydantic import BaseModel

from llmflow import (
    ContentFiltered,
    DefinitionError,
    Fallback,
    InvalidOutput,
    Message,
    Refused,
    Repair,
    Reply,
    Truncated,
)
from llmflow.testing._scripted import scripted

pytestmark = pytest.mark.anyio


class Ticket(BaseModel):
    """An answer with three ways to be wrong."""

    category: Literal["billing", "bug"]
    score: float


GOOD = '{"category": "bug", "score": 0.5}'


@pytest.mark.parametrize("reasks", [0, 1, 2, 4])
async def test_v2_an_answer_that_stays_invalid_is_asked_exactly_reasks_more_times(reasks, asking):
    """V2: 1+n requests, then the failure with what is wrong and the text."""
    model = scripted(default='{"category": "spam", "score": 1}')

    with pytest.raises(InvalidOutput) as caught:
        await asking(model, Repair(reasks), returns=Ticket)("x")

    assert 1 + reasks == len(model.requests)
    assert '{"category": "spam", "score": 1}' == caught.value.text
    assert ["category"] == [problem.split(":")[0] for problem in caught.value.problems]
    assert "spam" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        f"```json\n{GOOD}\n```",
        f"Here you are:\n{GOOD}\nAnything else?",
        f"\ufeff{GOOD}",
        '"{\\"category\\": \\"bug\\", \\"score\\": 0.5}"',
    ],
    ids=["fence", "prose", "BOM", "encoded twice"],
)
async def test_v3_what_is_only_wrapped_is_mended_without_a_request(answer, asking):
    """V3, fault 32: 0 extra requests, and the result says so."""
    model = scripted(answer)

    result = await asking(model, returns=Ticket).run("x")

    assert (Ticket(category="bug", score=0.5), True, 1) == (result.value, result.repaired, len(model.requests))


async def test_an_answer_that_fits_is_not_called_repaired(asking):
    """The record says `repaired` only of what was."""
    result = await asking(scripted(GOOD), returns=Ticket).run("x")

    assert not result.repaired


async def test_an_answer_that_was_asked_for_again_is_called_repaired(asking):
    """A re-ask is a repair too."""
    result = await asking(scripted("junk", GOOD), returns=Ticket).run("x")

    assert result.repaired


async def test_a_fallbacks_first_answer_is_not_called_repaired(asking):
    """Re-asks of the model that failed say nothing about the answer of the next."""
    primary, fallback = scripted(default="junk"), scripted(GOOD)

    result = await asking(primary, Fallback(fallback), returns=Ticket).run("x")

    assert (3, 1, False) == (len(primary.requests), len(fallback.requests), result.repaired)


async def test_repair_off_neither_mends_nor_asks_again(asking):
    """`Repair.off` takes an answer as it is or not at all."""
    model = scripted(f"```json\n{GOOD}\n```")

    with pytest.raises(InvalidOutput):
        await asking(model, Repair.off, returns=Ticket)("x")

    assert 1 == len(model.requests)


async def test_the_model_is_shown_its_answer_and_what_is_wrong_with_it(asking):
    """A re-ask carries the invalid answer and the problems, in turns after the prompt; they add up."""
    model = scripted('{"category": "spam", "score": 1}', "junk", GOOD)

    await asking(model, returns=Ticket)("x")

    first, second, third = model.requests
    assert first.messages == second.messages == third.messages
    assert ((), 2, 4) == (first.turns, len(second.turns), len(third.turns))
    answer, problem = second.turns
    assert Message("assistant", '{"category": "spam", "score": 1}') == answer
    assert "category" in problem.content
    assert second.turns == third.turns[:2]


async def test_a_provider_may_word_the_reask_itself(asking):
    """`Reply.reask` builds the turns in the provider's own form."""
    first = Reply(text="junk", reask=lambda problem: [{"role": "tool", "content": problem}])
    model = scripted(first, GOOD)

    await asking(model, returns=Ticket)("x")

    (turn,) = model.requests[1].turns
    assert "tool" == turn["role"]
    assert turn["content"]


@pytest.mark.parametrize(
    ("reason", "kind"), [("length", Truncated), ("refusal", Refused), ("content_filter", ContentFiltered)]
)
async def test_v4_an_answer_that_was_cut_or_withheld_is_not_asked_for_again(reason, kind, asking):
    """V4, faults 41 and 42: an error class of its own, the partial text attached, 1 request."""
    model = scripted(Reply(text='{"category": "bu', finish_reason=reason))

    with pytest.raises(InvalidOutput) as caught:
        await asking(model, returns=Ticket)("x")

    assert (kind, '{"category": "bu', 1) == (type(caught.value), caught.value.text, len(model.requests))
    assert '{"category"' not in str(caught.value)


async def test_v4_a_cut_answer_names_the_limit_to_raise(asking):
    """The message says how many tokens, the note what to change."""
    model = scripted(Reply(text="so", finish_reason="length"))

    with pytest.raises(Truncated, match="after 17 tokens") as caught:
        await asking(model, params={"max_tokens": 17})("x")

    assert "max_tokens" in caught.value.__notes__[0]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_v1_numbers_that_are_none_are_rejected_and_asked_for_again(number, asking):
    """V1, fault 33: what is not JSON, or not finite, never becomes a value."""
    model = scripted(f'{{"category": "bug", "score": {number}}}', GOOD)

    ticket = await asking(model, returns=Ticket)("x")

    assert 2 == len(model.requests)
    assert math.isfinite(ticket.score)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "-1e999"])
async def test_v1_a_bare_float_is_finite(number, asking):
    """The same for a step that returns a float."""
    model = scripted(number, "0.25")

    assert 0.25 == await asking(model, returns=float)("x")
    assert 2 == len(model.requests)


async def test_v1_the_value_is_an_instance_of_the_authors_own_class(asking):
    """Not of a generated subclass."""
    value = await asking(scripted(GOOD), returns=Ticket)("x")

    assert Ticket is type(value)


async def test_v1_text_can_be_encoded(asking):
    """Fault 35: a lone surrogate never reaches an encoder."""
    model = scripted("bad \ud800 end", "fine", default="fine")

    value = await asking(model)("x")

    assert value.encode()


@pytest.mark.parametrize("answer", ["", "null", "[]", "{}", '{"category": "bug"}', "[1, 2", "{" * 100_000, "9" * 5_000])
async def test_no_answer_is_so_strange_that_it_breaks_the_parser(answer, asking):
    """Faults 34 and 36: an InvalidOutput, never another exception and never None."""
    model = scripted(default=answer)

    with pytest.raises(InvalidOutput):
        await asking(model, Repair(0), returns=Ticket)("x")


async def test_a_check_that_fails_is_asked_again_with_its_text(asking):
    """`checks=`: a ValueError's text goes to the model."""

    def not_zero(value, inputs):
        if value.score == 0:
            raise ValueError("score must not be zero")

    model = scripted('{"category": "bug", "score": 0}', GOOD)

    ticket = await asking(model, returns=Ticket, checks=[not_zero])("x")

    assert 0.5 == ticket.score
    assert "score must not be zero" in model.requests[1].turns[-1].content


async def test_a_value_that_the_body_made_is_checked_and_its_failure_is_complete(asking):
    """V5: also what was never asked of a model fails with the step and the run named."""
    from llmflow import prompt, step

    model = scripted()

    @step(model)
    def half(word: str) -> Ticket:
        return {"category": "spam"} if word else prompt(word)

    with pytest.raises(InvalidOutput) as caught:
        await half("x")

    assert ("half", (), 0) == (caught.value.step, caught.value.attempts, len(model.requests))
    assert caught.value.run_id


@pytest.mark.parametrize("reasks", [-1, True, 1.5, "2", None])
def test_absurd_options_are_refused(reasks):
    """Fault 87: whole numbers from zero."""
    with pytest.raises(DefinitionError, match="reasks"):
        Repair(reasks)
