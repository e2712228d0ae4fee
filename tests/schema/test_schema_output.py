"""OutputSchema: from a return annotation to values of the author's own types."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import inspect
import json
import math
import traceback
import uuid
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NoReturn, TypeVar

import pytest
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    JsonValue,
    PlainValidator,
    RootModel,
    ValidationInfo,
    computed_field,
    field_validator,
)
from typing_extensions import TypeAliasType, TypedDict

from llmflow.errors import DefinitionError, InvalidOutput
from llmflow.messages import OutputFormat
from llmflow.schema import OutputSchema, _core
from llmflow.schema._annotations import display

T = TypeVar("T")


class Line(BaseModel):
    """One line of an invoice."""

    sku: str
    weight: float = 1.0


class Invoice(BaseModel):
    """An invoice."""

    total: float
    lines: list[Line] = []


class Tree(BaseModel):
    """A model that contains itself."""

    name: str
    children: list[Tree] = []


class Page(BaseModel, Generic[T]):
    """A generic model."""

    items: list[T]


@dataclasses.dataclass
class Point:
    """A dataclass."""

    x: int
    y: float


class Movie(TypedDict):
    """A typed dict."""

    title: str
    year: int


class Colour(enum.Enum):
    """An enum."""

    RED = "red"
    BLUE = "blue"


class Pair(NamedTuple):
    """A named tuple."""

    first: int
    second: str


Alias = TypeAliasType("Alias", list[int])
Loose = TypeAliasType("Loose", Any)
Subject = NewType("Subject", str)
Reply = TypeAliasType("Reply", Invoice)


def schema(annotation: Any) -> OutputSchema:
    """Build the schema of a step called `ask`."""
    return OutputSchema.of(annotation, step="ask")


def refused(annotation: Any, text: str) -> InvalidOutput:
    """Return the error that an answer gives."""
    with pytest.raises(InvalidOutput) as caught:
        schema(annotation).parse(text)
    return caught.value


SUPPORTED = [
    (Invoice, Invoice(total=1.5, lines=[Line(sku="a")])),
    (Tree, Tree(name="a", children=[Tree(name="b")])),
    (Page[Line], Page[Line](items=[Line(sku="a")])),
    (Point, Point(1, 2.5)),
    (Movie, {"title": "Alien", "year": 1979}),
    (Colour, Colour.RED),
    (Pair, Pair(1, "a")),
    (Alias, [1, 2]),
    (Literal["a", "b"], "b"),
    (list[Line], [Line(sku="a")]),
    (dict[str, int], {"a": 1}),
    (tuple[int, str], (1, "a")),
    (set[int], {1, 2}),
    (Invoice | Line, Line(sku="a")),
    (Invoice | None, None),
    (bool, True),
    (int, 3),
    (float, 2.5),
    (decimal.Decimal, decimal.Decimal("0.10")),
    (dt.date, dt.date(2026, 1, 2)),
    (uuid.UUID, uuid.UUID(int=7)),
    (RootModel[list[int]], RootModel[list[int]]([1])),
    (Annotated[Invoice, AfterValidator(lambda invoice: invoice)], Invoice(total=1)),
    (str, "any text"),
    (Annotated[str, Field(max_length=10)], "short"),
]
NAMES = [display(annotation) for annotation, _ in SUPPORTED]


@pytest.mark.parametrize(("annotation", "value"), SUPPORTED, ids=NAMES)
def test_every_supported_type_survives_dump_and_parse(annotation: Any, value: object) -> None:
    """What a model should write for a value is read back as that value, of exactly its type."""
    output = schema(annotation)

    parsed = output.parse(output.dump(value))

    assert (value, type(value)) == (parsed, type(parsed))


@pytest.mark.parametrize(("annotation", "value"), SUPPORTED, ids=NAMES)
def test_every_json_schema_is_an_object(annotation: Any, value: object) -> None:  # noqa: ARG001
    """Providers want an object at the root, for recursive models too."""
    assert schema(annotation).json_schema["type"] == "object"


def test_the_value_is_the_authors_own_class_and_nothing_else() -> None:
    """No subclass, no private attributes: equality and pickling work."""
    value = schema(Invoice).parse('{"total": "12.5", "lines": [{"sku": "a"}]}')

    assert Invoice(total=12.5, lines=[Line(sku="a")]) == value
    assert type(value) is Invoice
    assert {"total", "lines"} == set(vars(value))


def test_a_model_is_its_own_schema_and_other_types_are_wrapped() -> None:
    """`model` is the author's class, or a wrapper with the one field `content`."""
    assert schema(Invoice).model is Invoice
    assert ["content"] == list(schema(list[int]).model.model_fields)


def test_the_name_is_fit_for_a_tool() -> None:
    """Names of generic models lose their brackets."""
    assert schema(Page[Line]).name == "Page_Line"
    assert schema(list[int]).name == "Output"


def test_it_is_an_output_format() -> None:
    """The contract that providers see is kept; type checkers verify the assignment."""
    output: OutputFormat = schema(int)

    assert not output.is_text


def test_wrapped_types_are_read_with_and_without_the_wrapper() -> None:
    """A model that answers the bare value is understood."""
    output = schema(dict[str, int])

    assert {"a": 1} == output.parse('{"content": {"a": 1}}')
    assert {"a": 1} == output.parse('{"a": 1}')
    assert {"content": 3} == output.parse('{"content": 3}')
    assert {"content": 3, "b": 1} == output.parse('{"content": 3, "b": 1}')


def test_text_is_taken_as_it_is() -> None:
    """Braces, Jinja and escape characters of an answer are just text."""
    answer = 'Here: {"a": {{ 7*7 }}} \x1b[31m'

    assert answer == schema(str).parse(answer)
    assert (answer, False) == schema(str).parse_or_repair(answer)
    assert schema(str).is_text


def test_a_name_for_a_type_is_that_type() -> None:
    """`NewType` and `type` are looked through."""
    assert schema(Subject).is_text
    assert schema(Reply).model is Invoice


def test_constraints_of_text_hold() -> None:
    """`Annotated[str, ...]` is text whose constraints are checked."""
    error = refused(Annotated[str, Field(max_length=3)], "abcd")

    assert ("String should have at most 3 characters",) == error.problems


@pytest.mark.parametrize("annotation", [str, list[Any], Invoice, dict[str, Any]])
def test_lone_surrogates_never_come_through(annotation: Any) -> None:
    """A string that UTF-8 cannot carry is refused, raw or escaped."""
    for answer in ["\ud800", '"\ud800"', '["\\ud800"]', '{"\ud800": 1}', '{"total": 1, "lines": [{"sku": "\\udfff"}]}']:
        if annotation is str and answer.isascii():
            continue
        with pytest.raises(InvalidOutput):
            schema(annotation).parse_or_repair(answer)


class TestNonFinite:
    """NaN and infinity poison sums, budgets and JSON; they come in only where the author says so."""

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", '"NaN"', '"inf"', '"-1e999"'])
    @pytest.mark.parametrize(
        ("annotation", "template"),
        [
            (Invoice, '{"total": %s}'),
            (Invoice, '{"total": 1, "lines": [{"sku": "a", "weight": %s}]}'),
            (float, '{"content": %s}'),
            (float, "%s"),
            (list[float], "[1, %s]"),
            (dict[str, float], '{"a": %s}'),
            (Point, '{"x": 1, "y": %s}'),
            (complex, "%s"),
            (float | None, "%s"),
            (Page[float], '{"items": [%s]}'),
        ],
    )
    def test_are_refused_for_numbers(self, annotation: Any, template: str, number: str) -> None:
        """Floats are finite, however deep and however they are written."""
        refused(annotation, template % number)

    @pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
    @pytest.mark.parametrize(
        ("annotation", "template"),
        [
            (dict[str, Any], '{"a": {"b": [%s]}}'),
            (list[Any], "[%s]"),
            (dict, '{"a": %s}'),
            (list, '{"content": [%s]}'),
            (Annotated[Any, Field()] | None, "%s"),
            (dict[str, Loose], '{"a": [%s]}'),
            (JsonValue, "[%s]"),
        ],
    )
    def test_are_refused_inside_any(self, annotation: Any, template: str, number: str) -> None:
        """What has no type of its own holds finite numbers too."""
        refused(annotation, template % number)

    def test_are_refused_in_extra_fields_and_embedded_json(self) -> None:
        """Extras of a model and `Json` fields are no way round."""

        class Loose(BaseModel):
            model_config = ConfigDict(extra="allow")
            typed: Json[Any] | None = None
            untyped: Json | None = None  # type: ignore[type-arg]

        refused(Loose, '{"anything": [1e999]}')
        refused(Loose, '{"typed": "[1e999]"}')
        refused(Loose, '{"untyped": "[1e999]"}')

    def test_are_kept_where_the_field_or_the_model_asks_for_them(self) -> None:
        """`allow_inf_nan=True` of the author is respected, and only there."""

        class Open(BaseModel):
            model_config = ConfigDict(allow_inf_nan=True)
            value: float
            anything: Any = None

        class Mixed(BaseModel):
            limit: Annotated[float, Field(allow_inf_nan=True)]
            inner: Open | None = None
            closed: float = 0.0

        value = schema(Mixed).parse('{"limit": Infinity, "inner": {"value": NaN, "anything": [Infinity]}}')

        assert math.isinf(value.limit)
        assert math.isnan(value.inner.value)
        refused(Mixed, '{"limit": 1, "closed": NaN}')

    def test_the_authors_class_is_left_alone(self) -> None:
        """Validating elsewhere works as before."""
        schema(Invoice)

        assert math.isnan(Invoice.model_validate_json('{"total": NaN}').total)

    def test_hold_for_nested_models_when_pydantic_core_has_no_switch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Pydantic 2.10 and 2.11 lack `_use_prebuilt`; the classes are as complete afterwards as before."""
        build = _core.SchemaValidator

        def without_switch(*arguments: Any, **keywords: Any) -> Any:
            if keywords:
                raise TypeError
            return build(*arguments)

        monkeypatch.setattr(_core, "SchemaValidator", without_switch)

        refused(Invoice, '{"total": 1, "lines": [{"sku": "a", "weight": NaN}]}')
        assert Line.__pydantic_complete__


@pytest.mark.parametrize("annotation", [Invoice, list[int], dict[str, Any], Tree, float, int])
@pytest.mark.parametrize("answer", ["[" * 100_000, '{"a":' * 100_000, "1" * 5_000, '{"total": %s}' % ("1" * 5_000)])
def test_depth_and_huge_numbers_are_invalid_output(annotation: Any, answer: str) -> None:
    """100,000 brackets or 5,000 digits are a wrong answer, no RecursionError."""
    with pytest.raises(InvalidOutput):
        schema(annotation).parse_or_repair(answer)


@pytest.mark.parametrize(
    "answer", ["", " ", "null", "[]", "{}", '"{}"', "[{}]", "{}{}", "true", "0", '{"content": null}']
)
def test_nothing_useful_is_invalid_output_and_never_none(answer: str) -> None:
    """Empty answers, null and wrong containers are refused."""
    with pytest.raises(InvalidOutput):
        schema(Invoice).parse_or_repair(answer)


def test_of_duplicate_keys_the_last_counts() -> None:
    """JSON leaves it open; pydantic takes the last."""
    assert Invoice(total=2) == schema(Invoice).parse('{"total": 1, "total": 2}')


class TestErrors:
    """An InvalidOutput says what to mend and does not repeat the answer."""

    def test_names_each_problem_by_its_place(self) -> None:
        """One line for each, with the path to it."""
        error = refused(Invoice, '{"total": "secret", "lines": [{}]}')

        assert (
            "total: Input should be a valid number, unable to parse string as a number",
            "lines.0.sku: Field required",
        ) == error.problems
        assert f"the answer does not fit Invoice: {'; '.join(error.problems)}" == str(error)

    def test_keeps_the_answer_as_an_attribute(self) -> None:
        """Whoever wants the text finds it."""
        assert refused(Invoice, "[]").text == "[]"

    def test_a_traceback_does_not_show_the_answer(self) -> None:
        """Neither the message nor the cause holds input values."""
        for annotation in [Invoice, list[int], Annotated[str, Field(max_length=3)]]:
            error = refused(annotation, '{"total": "hunter2", "content": ["hunter2"]}')

            assert "hunter2" not in "".join(traceback.format_exception(error))

    def test_an_unknown_tag_is_not_repeated(self) -> None:
        """Pydantic's message for a wrong discriminator would."""

        class Cat(BaseModel):
            kind: Literal["cat"]

        class Dog(BaseModel):
            kind: Literal["dog"]

        error = refused(Annotated[Cat | Dog, Field(discriminator="kind")], '{"content": {"kind": "hunter2"}}')

        assert ("content: Input tag 'kind' should be one of 'cat', 'dog'",) == error.problems

    def test_long_or_unprintable_keys_are_tamed(self) -> None:
        """A key comes from the answer; it cannot forge a log line or fill one."""
        error = refused(dict[str, int], json.dumps({"a\nb" + "x" * 100: "q"}))

        assert "\n" not in str(error)
        assert len(str(error)) < 250

    def test_many_problems_are_counted(self) -> None:
        """The first twenty are listed."""
        error = refused(list[int], json.dumps(["x"] * 30))

        assert len(error.problems) == 21
        assert error.problems[-1] == "and 10 more"

    def test_a_flood_of_problems_is_not_even_written_out(self) -> None:
        """Ten thousand wrong items are one line."""
        error = refused(list[int], json.dumps(["x"] * 20_000))

        assert ("20000 problems, too many to list",) == error.problems

    def test_a_wrong_wrapped_value_is_blamed_where_it_stands(self) -> None:
        """With the wrapper in the answer, problems lie below `content`."""
        assert refused(list[int], '{"content": ["x"]}').problems[0].startswith("content.0: ")
        assert refused(list[int], '["x"]').problems[0].startswith("0: ")

    def test_what_a_validator_raises_otherwise_is_left_alone(self) -> None:
        """The author's own bug stays the author's own exception."""

        def broken(_: int) -> int:
            raise KeyError

        with pytest.raises(KeyError):
            schema(Annotated[int, AfterValidator(broken)]).parse("1")


def test_the_validation_context_reaches_validators() -> None:
    """`prompt(context=...)` is pydantic's own."""

    class Quote(BaseModel):
        text: str

        @field_validator("text")
        @classmethod
        def is_quoted(cls, value: str, info: ValidationInfo) -> str:
            if info.context is not None and value not in info.context["source"]:
                msg = "not a quotation"
                raise ValueError(msg)
            return value

    output = schema(Quote)

    assert Quote(text="ab") == output.parse('{"text": "ab"}', context={"source": "abc"})
    with pytest.raises(InvalidOutput, match="text: Value error, not a quotation"):
        output.parse_or_repair('{"text": "xy"}', context={"source": "abc"})


class TestDefinitionErrors:
    """What cannot be an output is said at decoration, with the step, the type and the way out."""

    @pytest.mark.parametrize("annotation", [Any, object, None, type(None), NoReturn, T, BaseModel, Annotated[Any, 1]])
    def test_annotations_that_say_nothing(self, annotation: Any) -> None:
        """They would validate anything, or nothing."""
        with pytest.raises(DefinitionError, match=r"step 'ask' returns .*annotate what it returns"):
            schema(annotation)

    def test_a_missing_annotation(self) -> None:
        """The empty marker of `inspect` stands for it."""
        with pytest.raises(DefinitionError, match="step 'ask' has no return annotation; annotate"):
            schema(inspect.Signature.empty)

    @pytest.mark.parametrize(
        "annotation",
        [type("Plain", (), {}), Callable[[], int], Iterator[int], list[type("Inner", (), {})], "Missing"],
    )
    def test_types_pydantic_cannot_build(self, annotation: Any) -> None:
        """The step and the type are named."""
        with pytest.raises(DefinitionError, match="step 'ask' returns"):
            schema(annotation)

    def test_an_iterable_that_would_be_validated_later(self) -> None:
        """`Iterable[int]` is lazy in pydantic."""
        from collections.abc import Iterable

        with pytest.raises(DefinitionError, match=r"only when read; use `list\[...\]`"):
            schema(Iterable[int])

    def test_async_validators(self) -> None:
        """Pydantic would put the coroutine in the field."""

        class Slow(BaseModel):
            name: str

            @field_validator("name")
            @classmethod
            async def looked_up(cls, value: str) -> str:
                return value

        with pytest.raises(DefinitionError, match=r"validator '.*looked_up' is async"):
            schema(Slow)

    def test_types_without_a_json_schema(self) -> None:
        """A model could not be told what to answer, so it does not wait for the first call."""

        class Opaque(BaseModel):
            value: Annotated[Any, PlainValidator(lambda value: value)]
            kind: Callable[[], int]

        with pytest.raises(DefinitionError, match="step 'ask' returns Opaque"):
            schema(Opaque)

    def test_forward_references_that_lead_nowhere(self) -> None:
        """The missing name is in the message."""

        class Order(BaseModel):
            lines: list[Nowhere]  # noqa: F821

        with pytest.raises(DefinitionError, match="names 'Nowhere'"):
            schema(Order)

    def test_an_unknown_attribute_is_an_attribute_error(self) -> None:
        """The lazy schema does not swallow typing mistakes."""
        with pytest.raises(AttributeError, match="jason_schema"):
            schema(int).jason_schema  # noqa: B018


def test_messages_show_the_annotation_as_it_was_written() -> None:
    """Without module names."""
    assert repr(schema(dict[str, Invoice | None])) == "OutputSchema(dict[str, Invoice | None])"
    assert repr(schema(Literal["a.b", 1])) == "OutputSchema(Literal['a.b', 1])"
    assert repr(schema(tuple[int, ...])) == "OutputSchema(tuple[int, ...])"


class TestExamples:
    """`check` is for the outputs of few-shot examples, `validate_value` for what a body returns itself."""

    def test_check_makes_instances(self) -> None:
        """A mapping is as good as an instance."""
        assert Invoice(total=1) == schema(Invoice).check({"total": 1})
        assert [1] == schema(list[int]).check(["1"])

    def test_check_names_the_example(self) -> None:
        """The message says which one is wrong and how."""
        with pytest.raises(DefinitionError, match="step 'ask': output of example 2 does not fit Invoice: total: Field"):
            schema(Invoice).check({}, what="output of example 2")

    def test_check_refuses_what_a_model_could_not_have_written(self) -> None:
        """An example whose JSON does not validate would teach the model a wrong answer."""

        class Renamed(BaseModel):
            value: int = Field(validation_alias="read_as", serialization_alias="written_as")

        with pytest.raises(DefinitionError, match="does not fit Renamed: read_as: Field required"):
            schema(Renamed).check({"read_as": 1})

    def test_examples_are_written_with_aliases_and_without_computed_fields(self) -> None:
        """As the JSON schema describes them."""

        class Named(BaseModel):
            model_config = ConfigDict(extra="forbid")
            inner: int = Field(alias="outer")

            @computed_field
            def double(self) -> int:
                return self.inner * 2

        assert schema(Named).dump(Named(outer=1)) == '{"outer":1}'

    def test_a_value_of_the_body_stays_the_same_instance(self) -> None:
        """It is checked, not copied."""
        invoice = Invoice(total=1)

        assert schema(Invoice).validate_value(invoice) is invoice
        assert schema(str).validate_value("x") == "x"

    def test_a_value_of_the_body_that_does_not_fit_is_invalid_output(self) -> None:
        """It may come from data, so it fails the call."""
        with pytest.raises(InvalidOutput, match="the value that the body returned does not fit list"):
            schema(list[int]).validate_value(["x"])


class TestFingerprint:
    """The hash of what the model is told to answer."""

    @pytest.mark.parametrize(
        ("annotation", "golden"),
        [
            (Invoice, "ff3eebe4af88"),
            (Movie, "fd049ee39bb1"),
            (Tree, "5a7344f6af5e"),
            (decimal.Decimal, "ef1731f30500"),
            (dict[str, Any] | list[Colour], "18c850ca00a2"),
        ],
    )
    def test_is_the_same_on_every_supported_pydantic(self, annotation: Any, golden: str) -> None:
        """A change here changes the version of every prompt that returns such a type."""
        assert golden == schema(annotation).fingerprint[:12]

    def test_changes_with_names_types_and_descriptions(self) -> None:
        """Whatever the model sees and the author wrote counts."""

        class One(BaseModel):
            title: str

        class Two(BaseModel):
            title: int

        class Three(BaseModel):
            title: str = Field(description="the title")

        class Four(BaseModel):
            name: str

        assert len({schema(model).fingerprint for model in (One, Two, Three, Four)}) == 4
