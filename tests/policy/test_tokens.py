"""The token estimate: above the truth for what was seen before, cheap, and not led astray by junk."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmflow import File, Message, Model, Request, Usage
from llmflow.messages import CallScope
from llmflow.tokens import TokenEstimator, estimate_tokens, schema_tokens

TEXT = SimpleNamespace(name="text", is_text=True, json_schema={}, model=str)
SHAPE = SimpleNamespace(
    name="Shape", is_text=False, json_schema={"properties": {"kind": {"type": "string"}}}, model=str
)


def request(content="", *, output=TEXT, files=(), turns=()):
    return Request(
        messages=(Message("user", content, files),),
        model=Model("fake/one"),
        output=output,
        params={},
        deadline=1.0,
        call=CallScope(step="s", run_id="r", call_id="c"),
        turns=turns,
    )


BARE = estimate_tokens(request())


@pytest.mark.parametrize(
    ("content", "tokens"), [("", 0), ("a", 1), ("abc", 1), ("abcd", 2), ("яя", 2), ("汉字", 2), ("\ud800", 1)]
)
def test_three_bytes_of_utf_8_are_a_token(content, tokens):
    """Rounded up; a lone surrogate is counted, not refused."""
    assert BARE + tokens == estimate_tokens(request(content))


def test_a_schema_is_part_of_the_prompt():
    """It is sent with every request that asks for one, and counted."""
    assert BARE + schema_tokens(SHAPE) == estimate_tokens(request(output=SHAPE))
    assert schema_tokens(SHAPE) > len(str(SHAPE.json_schema)) // 3
    assert 0 == schema_tokens(TEXT)


@pytest.mark.parametrize(
    ("file", "tokens"),
    [
        (File(media_type="image/png", data=b"x"), 2_500),
        (File(media_type="image/png", url="https://a.example/b.png"), 2_500),
        (File(media_type="application/pdf", data=b"x"), 3_000),
        (File(media_type="application/pdf", data=b"x" * 100_001), 9_000),
        (File(media_type="application/pdf", data=b"<< /Type /Page >> << /Type/Page >>"), 6_000),
        (File(media_type="application/pdf", url="https://a.example/b.pdf"), 10_000),
        (File(media_type="audio/wav", data=b"x" * 250_000), 1_008),
        (File(media_type="text/csv", data=b"x" * 300), 100),
    ],
    ids=lambda value: value.media_type if isinstance(value, File) else str(value),
)
def test_a_file_has_an_estimate_by_its_kind(file, tokens):
    """Flat for pictures and pages, by bytes for the rest."""
    assert BARE + tokens == estimate_tokens(request(files=(file,)))


@pytest.mark.parametrize(
    "turn",
    [
        Message("user", "x" * 300),
        {"role": "user", "content": "x" * 300},
        {"role": "user", "content": [{"type": "text", "text": "x" * 300}]},
        SimpleNamespace(parts=["x" * 300]),
    ],
    ids=["message", "dict", "list", "object"],
)
def test_the_turns_of_a_reask_are_counted_in_every_form(turn):
    """A re-ask carries the invalid answer and the problem; each provider writes them in its own form."""
    more = estimate_tokens(request(turns=(turn,))) - BARE

    assert 100 <= more <= 140


def test_a_prompt_is_counted_once_and_again_when_it_changes():
    """Budget and RateLimit ask for the same prompt; a policy in between may have changed it."""
    one = request("word")
    assert estimate_tokens(one) == estimate_tokens(one)
    known = one.call.estimated

    estimate_tokens(one)
    assert known is one.call.estimated

    longer = request("word" * 100)
    object.__setattr__(longer, "call", one.call)
    assert estimate_tokens(longer) > estimate_tokens(one)


def test_a_text_of_many_tokens_raises_the_estimate_at_once():
    """Dense JSON has more tokens than a third of its bytes; seen once, it is known."""
    estimator, dense = TokenEstimator(), request("x" * 30_000)

    estimator.learn(dense, Usage(input_tokens=15_000, output_tokens=1))

    assert estimator.estimate(request("x" * 30_000)) >= 15_000
    assert estimator.estimate(request("x" * 60_000)) >= 29_900


def test_instructions_of_the_provider_are_added_and_not_multiplied():
    """400 tokens before a prompt of one word do not make a book ten times as dear."""
    estimator = TokenEstimator()

    estimator.learn(request("word"), Usage(input_tokens=400, output_tokens=1))

    assert 400 == estimator.estimate(request("word"))
    assert estimator.estimate(request("x" * 300_000)) < 101_000


def test_the_estimate_comes_down_slowly_and_never_below_half():
    """English has fewer tokens than a third of its bytes; many prompts teach that, one does not."""
    estimator, english = TokenEstimator(), request("x" * 30_000)
    first = estimator.estimate(english)

    for n in range(1_000):
        estimator.learn(english, Usage(input_tokens=2_000, output_tokens=n))
        if n == 0:
            assert estimator.estimate(english) > 0.97 * first

    assert first / 2 == pytest.approx(estimator.estimate(english), rel=0.01)


@pytest.mark.parametrize("tokens", [None, 0, -5, 10**12])
def test_junk_teaches_nothing(tokens):
    """V6: a provider that counts nonsense must not make every further request unaffordable, or free."""
    estimator, one = TokenEstimator(), request("word")
    before = estimator.estimate(one)

    estimator.learn(one, Usage(input_tokens=tokens, output_tokens=1))
    estimator.learn(one, None)

    assert before == estimator.estimate(one)


def test_two_policies_learn_once():
    """Budget and RateLimit both report the same usage."""
    estimator, one = TokenEstimator(), request("x" * 9_000)
    usage = Usage(input_tokens=1_600, output_tokens=1)

    estimator.learn(one, usage)
    factor = estimator.factor
    estimator.learn(one, usage)

    assert factor == estimator.factor


def test_schemas_of_steps_that_are_made_anew_are_forgotten(monkeypatch):
    """A program that makes steps all the time does not keep their schemas."""
    monkeypatch.setattr("llmflow.tokens.SCHEMAS_KEPT", 10)
    estimator = TokenEstimator()
    for _ in range(100):
        estimator.estimate(request(output=SimpleNamespace(**vars(SHAPE))))

    assert len(estimator._schemas) <= 10


@given(seen=st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 50_000)), min_size=1, max_size=20))
def test_law_what_was_just_counted_is_within_the_estimate(seen):
    """Whatever came before: the same prompt again is not estimated below what the provider just counted."""
    estimator = TokenEstimator()
    for size, counted in seen:
        one = request("x" * size)
        estimator.learn(one, Usage(input_tokens=counted, output_tokens=1))

        assert estimator.estimate(request("x" * size)) >= counted
