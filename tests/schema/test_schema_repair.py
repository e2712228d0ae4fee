"""The local repair: JSON out of fences, prose and strings, in linear time."""

from __future__ import annotations

import json
import time
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from typing_extensions import TypedDict

from llmflow.errors import InvalidOutput
from llmflow.schema import OutputSchema


class Answer(BaseModel):
    """A small answer."""

    name: str
    count: int = 0


ANSWER = OutputSchema.of(Answer, step="ask")
NUMBERS = OutputSchema.of(list[int], step="ask")
JSON = '{"name": "a", "count": 1}'
VALUE = Answer(name="a", count=1)

FOUR_TIMES = json.dumps(json.dumps(json.dumps(json.dumps(JSON))))

MENDABLE = {
    "fence": f"```json\n{JSON}\n```",
    "fence without a word": f"```\n{JSON}\n```",
    "fence that is not closed": f"```json\n{JSON}",
    "fence on one line": f"```json {JSON}```",
    "indented fence": f"Sure:\n  ```JSON\n  {JSON}\n  ```",
    "second fence": f"```python\nprint([1])\n```\n```json\n{JSON}\n```",
    "prose before": f"Here you are: {JSON}",
    "prose after": f"{JSON}\nI hope this helps!",
    "prose with braces": f"A set {{x, y}}, a note [1] and [see below]: {JSON}",
    "prose with a schema before the fence": f'For {{"type": "object"}} this is:\n```json\n{JSON}\n```',
    "byte order mark": f"\ufeff{JSON}",
    "encoded twice": json.dumps(JSON),
    "encoded three times": json.dumps(json.dumps(JSON)),
    "fence inside a string": json.dumps(f"```json\n{JSON}\n```"),
    "string inside a fence": f"```json\n{json.dumps(JSON)}\n```",
    "escaped without quotes": json.dumps(JSON)[1:-1],
    "trailing comma": '{"name": "a", "count": 1,}',
    "trailing comma in prose": 'Result: {"name": "a", "count": 1 , }.',
    "no-break spaces": '{\u00a0"name":\u00a0"a",\u00a0"count":\u00a01\u00a0}',
    "two objects": f'{JSON} {{"name": "b"}}',
    "byte order mark in a fence": f"```json\n\ufeff{JSON}\n```",
}


@pytest.mark.parametrize("answer", MENDABLE.values(), ids=MENDABLE)
def test_a_wrapped_answer_is_mended(answer: str) -> None:
    """The value is found without asking again, and the repair is reported."""
    assert (VALUE, True) == ANSWER.parse_or_repair(answer)


def test_a_good_answer_is_not_called_repaired() -> None:
    """The usual case is one validation."""
    assert (VALUE, False) == ANSWER.parse_or_repair(JSON)


def test_raw_line_breaks_inside_strings_are_escaped() -> None:
    """Small models write them; JSON forbids them."""
    assert (Answer(name="a\nb"), True) == ANSWER.parse_or_repair('{"name": "a\nb"}')


def test_fences_and_braces_inside_strings_are_text() -> None:
    """The answer to a question about code survives its own fences."""
    value = Answer(name='```json\n{}\n``` } ] \\" {')

    assert (value, True) == ANSWER.parse_or_repair(f"Sure! {value.model_dump_json()}")


@pytest.mark.parametrize(
    "answer", [JSON, "[1]", "no JSON here", "", "42", "null", '"text"', "```", "{", '{"a', FOUR_TIMES, "[{\\x"]
)
def test_nothing_to_try_is_none(answer: str) -> None:
    """Plain JSON needs no repair, and text without JSON cannot have one."""
    assert ANSWER.repair(answer) is None


@pytest.mark.parametrize(
    "answer",
    [
        '{"items": [{"name": "a"}, {"name": "b"}, {"na',
        'Sure: {"items": {"name": "a"}, oops, "more": {"name": "b"}}',
        'Sure: [{"name": "a"}, {"name": "b"}',
        '[{"name": "a"}, {"name": "b"}]',
        'Both: [{"name": "a"}, {"name": "b"}]',
    ],
)
def test_a_fragment_of_a_broken_answer_is_not_the_answer(answer: str) -> None:
    """An inner object could pass for the whole; asking again is right."""
    with pytest.raises(InvalidOutput):
        ANSWER.parse_or_repair(answer)


def test_the_error_is_about_the_json_that_was_found_and_keeps_the_whole_answer() -> None:
    """The model is told what is wrong with its object, not that it wrote prose."""
    answer = 'Sure: {"count": 1}'

    with pytest.raises(InvalidOutput, match="does not fit Answer: name: Field required") as caught:
        ANSWER.parse_or_repair(answer)

    assert answer == caught.value.text


def test_arrays_are_found_where_the_type_is_a_list() -> None:
    """With and without the wrapper."""
    assert ([1, 2], True) == NUMBERS.parse_or_repair("The numbers: [1, 2].")
    assert ([1, 2], True) == NUMBERS.parse_or_repair('```\n{"content": [1, 2]}\n```')
    assert ([1, 2], True) == NUMBERS.parse_or_repair("As [said] in [1 of 3]: [1, 2,]")


def test_scalars_are_found_in_fences() -> None:
    """A fenced number is a number."""
    assert (42, True) == OutputSchema.of(int, step="ask").parse_or_repair("```\n42\n```")


@pytest.mark.parametrize("answer", ["billing", " billing\n", "**billing**", "'billing'.", "`billing`"])
def test_the_bare_word_of_a_choice_is_understood(answer: str) -> None:
    """Asked for a `Literal`, small models leave out the quotes."""
    output = OutputSchema.of(Literal["billing", "bug"], step="ask")

    assert ("billing", True) == output.parse_or_repair(answer)


def test_a_word_that_is_no_choice_is_invalid() -> None:
    """Validation has the last word."""
    with pytest.raises(InvalidOutput, match="Input should be 'billing' or 'bug'"):
        OutputSchema.of(Literal["billing", "bug"], step="ask").parse_or_repair("I think billing")


NASTY = [
    "`", "{", "\\", '"', "[", '{"', '{"a":', '"{', "[1,", '["\\', "\n```", "\n```{", "{ ", "[ ", " ", '{"\\', '{"a":"',
    ",",
    '"\\"{', "[1 ", '["a" ', "```\n[1,]", '{"a":1,}', "\n```json\n", "\ufeff", "\\\\", '\\"', "{}", "[],", '"a",',
]  # fmt: skip


@pytest.mark.parametrize("unit", NASTY, ids=ascii)
def test_repair_is_linear(unit: str) -> None:
    """Ten megabytes of anything take about as long as reading them; the limit is for slow machines, and in time of the processor."""
    answer = unit * (10_000_000 // len(unit))
    started = time.thread_time()

    for output in (ANSWER, NUMBERS):
        output.repair(answer)

    assert time.thread_time() - started < 10


PIECES = st.sampled_from(
    ["{", "}", "[", "]", '"', "\\", ",", ":", "`", "```", "\n", " ", "a", "1", "NaN", "null", "\ud800", "\ufeff"]
)
OUTPUTS = [
    OutputSchema.of(annotation, step="ask")
    for annotation in (Answer, list[int], dict[str, Any], int | None, str, Literal["a"], tuple[float, str])
]


@given(st.text() | st.lists(PIECES).map("".join) | st.binary().map(lambda data: data.decode("latin-1")))
def test_no_text_raises_anything_but_invalid_output(answer: str) -> None:
    """Whatever a model writes is a value or an InvalidOutput."""
    for output in OUTPUTS:
        try:
            output.parse_or_repair(answer)
        except InvalidOutput as error:
            assert answer == error.text  # noqa: PT017


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda children: st.lists(children) | st.dictionaries(st.text(st.characters(codec="utf-8")), children),
    max_leaves=20,
)


class Movie(TypedDict):
    """A typed dict."""

    title: str
    year: int


TEXT = st.text(st.characters(codec="utf-8"))
TYPED = [
    (dict[str, Any], st.dictionaries(TEXT, JSON_VALUES)),
    (list[Any], st.lists(JSON_VALUES)),
    (Answer, st.builds(Answer, name=TEXT, count=st.integers(-(10**9), 10**9))),
    (list[Answer], st.lists(st.builds(Answer, name=TEXT, count=st.integers(0, 9)))),
    (Movie, st.fixed_dictionaries({"title": TEXT, "year": st.integers(0, 3000)})),
    (tuple[int, float], st.tuples(st.integers(-(10**9), 10**9), st.floats(allow_nan=False, allow_infinity=False))),
    (set[int], st.sets(st.integers(-(10**9), 10**9))),
    (str, TEXT),
]


@given(st.data())
def test_what_is_dumped_is_parsed_again(data: st.DataObject) -> None:
    """For every type, the answer that should have been written is read back, also out of a fence."""
    annotation, values = data.draw(st.sampled_from(TYPED))
    value = data.draw(values)
    output = OutputSchema.of(annotation, step="ask")
    answer = output.dump(value)

    assert value == output.parse(answer)
    if annotation is not str:
        assert (value, True) == output.parse_or_repair(f"Sure:\n```json\n{answer}\n```\nDone.")
