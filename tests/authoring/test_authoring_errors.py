"""Mistakes of authors: each is found at decoration or when a step is bound, named with its fix, and sends nothing.

The numbers are those of the fault catalogue; flows (78 and 80) have theirs beside the graph.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from types import ModuleType
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from llmflow import (
    Bulkhead,
    Deadline,
    DefinitionError,
    Fallback,
    Model,
    PluginDefinitionError,
    Repair,
    Reply,
    Request,
    Retry,
    Runtime,
    Step,
    Timeout,
    UnusedParameterWarning,
    flow,
    hookimpl,
    plan,
    prompt,
    step,
    task,
)

sent: list[Request] = []


async def _refuse(request: Request) -> str:
    sent.append(request)
    raise AssertionError("a request was sent")


SILENT = Model("fake/silent", handler=_refuse)


@pytest.fixture(autouse=True)
def _nothing_is_sent(runtime: Runtime) -> Iterator[None]:
    """Whatever a test of this file does wrong, no request may leave."""
    sent.clear()
    yield
    assert [] == sent


def returning(annotation: Any) -> Callable[..., Any]:
    """Return a function called `question` with this return annotation."""

    def question(text: str):
        return prompt(text)

    if annotation is not ...:
        question.__annotations__["return"] = annotation
    return question


def said(*arguments: Any, decorating: Callable[..., Any] | None = None, **options: Any) -> str:
    """Return what the author is told who decorates like this, with the hints behind it."""
    with pytest.raises(DefinitionError) as raised:
        step(SILENT, *arguments, **options)(decorating or returning(str))
    return " ".join([str(raised.value), *getattr(raised.value, "__notes__", ())])


# -- 79: what a step returns -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        (..., "has no return annotation"),
        (Any, "returns Any, which says nothing about the answer"),
        (object, "returns object, which says nothing about the answer"),
        (None, "returns None, but a step returns the model's answer"),
    ],
    ids=["missing", "Any", "object", "None"],
)
def test_a_return_type_that_says_nothing_is_refused(annotation: Any, problem: str) -> None:
    """79: without a type there is nothing to validate; the message names the step and shows what to write."""
    message = said(decorating=returning(annotation))

    assert f"step 'question' {problem}" in message
    assert "`-> str` or a pydantic model" in message


class NotASchema:
    """A class that pydantic knows nothing about."""


@pytest.mark.parametrize("annotation", [NotASchema, Callable[[], int]], ids=["class", "callable"])
def test_a_return_type_without_a_schema_is_refused(annotation: Any) -> None:
    """79: what cannot become JSON Schema is named, with what can."""
    message = said(decorating=returning(annotation))

    assert "step 'question' returns" in message
    assert "pydantic has no schema for" in message
    assert "Return `str`, a pydantic model" in message


# -- 81: names in annotations ------------------------------------------------------------------------------------------


def test_a_locally_defined_model_is_found() -> None:
    """81: this file has `from __future__ import annotations`, and the classes are local to the test."""

    class Local(BaseModel):
        name: str

    class Outer(BaseModel):
        local: Local

    @step(SILENT)
    def question(text: str, around: Outer) -> Local:
        return prompt(f"{text} {around}")

    assert Local is question.signature.returns
    assert Outer is question.signature.hints["around"]


def test_a_forward_reference_in_quotes_is_found() -> None:
    """81: a name in quotes is resolved when the class stands before the step."""

    class Later(BaseModel):
        name: str

    @step(SILENT)
    def question(text: str) -> "list[Later]":
        return prompt(text)

    assert list[Later] == question.signature.returns


@pytest.mark.parametrize(("where", "what"), [("return", "the return annotation"), ("text", "the annotation of 'text'")])
def test_a_name_that_is_not_there_is_refused(where: str, what: str) -> None:
    """81: what cannot be resolved is named, with the step, the parameter and the usual reason."""
    function = returning(str)
    function.__annotations__[where] = "Missing"
    message = said(decorating=function)

    assert f"step 'question': {what} names 'Missing', which cannot be resolved" in message
    assert "not under `if TYPE_CHECKING:`" in message


# -- 82: kinds of types ------------------------------------------------------------------------------------------------

T = TypeVar("T")


class Person(BaseModel):
    name: Annotated[str, Field(min_length=1)]
    born: date | None = None


class Page(BaseModel, Generic[T]):
    items: list[T]


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


@dataclass
class Place:
    name: str
    height: float = 0.0


class Row(TypedDict):
    name: str
    count: int


class Pair(NamedTuple):
    left: str
    right: int


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


ANSWERS: list[tuple[Any, Any]] = [
    (str, "It rains."),
    (int, 7),
    (float, 0.5),
    (bool, True),
    (Decimal, Decimal("0.10")),
    (date, date(2026, 11, 23)),
    (timedelta, timedelta(minutes=5)),
    (Literal["yes", "no"], "no"),
    (Colour, Colour.BLUE),
    (Annotated[int, Field(ge=1)], 3),
    (Person, Person(name="Ann", born=date(2000, 1, 1))),
    (Place, Place("Rome", 21.0)),
    (Row, {"name": "Ann", "count": 2}),
    (Pair, Pair("Ann", 2)),
    (list[Person], [Person(name="Ann"), Person(name="Bob")]),
    (dict[str, int], {"Ann": 1}),
    (tuple[str, int], ("Ann", 1)),
    (tuple[int, ...], (1, 2, 3)),
    (set[str], {"Ann"}),
    (Person | Place, Place("Rome", 21.0)),
    (Person | None, None),
    (int | str, "Ann"),
    (Page[Person], Page[Person](items=[Person(name="Ann")])),
    (Page[list[int]], Page[list[int]](items=[[1], []])),
    (Tree, Tree(name="a", children=[Tree(name="b", children=[Tree(name="c")])])),
    (list[Tree], [Tree(name="a")]),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("annotation", "value"), ANSWERS, ids=[str(annotation) for annotation, _ in ANSWERS])
async def test_every_kind_of_type_is_supported(annotation: Any, value: Any) -> None:
    """82: the schema is made at decoration, and an answer becomes an instance of the author's own type."""
    question: Step[..., Any] = step(SILENT)(returning(annotation))

    async def answer(request: Request) -> Reply:
        json.dumps(request.output.json_schema)  # fit to be sent
        return Reply(text=question.output.dump(value))

    returned = await question.with_(Repair.off, model=Model("fake/answer", handler=answer))("x")

    assert (type(value), value) == (type(returned), returned)


def test_a_type_variable_is_refused() -> None:
    """82: a generic model needs its argument; a bare variable is no type."""
    assert "step 'question' returns T, which says nothing" in said(decorating=returning(T))


# -- 83: names ---------------------------------------------------------------------------------------------------------


def module_with_step(name: str, line: int) -> Step[..., str]:
    """Return the step `triage` of a module of this name."""
    module = ModuleType(name)
    source = "\n" * (line - 1) + "def triage(text: str) -> str:\n    return prompt(text)\n"
    exec(compile(source, f"{name}.py", "exec"), vars(module) | {"prompt": prompt}, namespace := {})
    function = namespace["triage"]
    function.__module__ = name
    made: Step[..., str] = step(SILENT)(function)
    return made


def test_two_steps_of_one_name_are_refused() -> None:
    """83: two functions that records could not tell apart are named with module and line, and how to rename one."""
    one, other = module_with_step("billing", 12), module_with_step("support", 40)
    plan(one)
    with pytest.raises(DefinitionError) as raised:
        plan(other)

    message = str(raised.value)
    assert "two functions are called 'triage': billing:12 and support:40" in message
    assert "@step(..., name='...')" in message


def test_a_name_of_its_own_tells_them_apart() -> None:
    """83: what the message advises helps."""
    one, other = module_with_step("billing", 12), module_with_step("support", 40)
    renamed = step(SILENT, name="triage of support")(other.function)

    assert ["triage", "triage of support"] == [plan(one).target, plan(renamed).target]


def test_a_function_that_is_defined_again_takes_the_place_of_its_older_self() -> None:
    """83: a notebook cell that is run twice is no collision."""
    first, again = module_with_step("notebook", 1), module_with_step("notebook", 1)
    plan(first)

    assert "triage" == plan(again).target


# -- 85: hooks ---------------------------------------------------------------------------------------------------------


def test_a_wrong_hook_is_refused_when_the_runtime_is_made() -> None:
    """85: an argument the hook does not have, and a hook that does not exist; installed ones are in tests/plugins."""

    class WrongArgument:
        @hookimpl
        def llmflow_policies(self, name: str) -> None:
            """Never called."""

    class UnknownHook:
        @hookimpl
        def llmflow_polices(self, step: str) -> None:
            """Never called."""

    with pytest.raises(PluginDefinitionError, match=r"plugin 'WrongArgument'.*llmflow_policies\(name.*'name'"):
        Runtime(plugins=[WrongArgument()])
    with pytest.raises(PluginDefinitionError, match=r"plugin 'UnknownHook'.*unknown hook 'llmflow_polices'"):
        Runtime(plugins=[UnknownHook()])


# -- 86: templates -----------------------------------------------------------------------------------------------------


def test_a_template_that_names_no_parameter_is_refused() -> None:
    """86: step, line, name and the parameter that was probably meant."""

    def question(text: str) -> str:
        """Summarise.

        {{ txt }}
        """
        return prompt()

    assert "step 'question': line 3 of its docstring uses 'txt', which is no parameter; did you mean 'text'?" in said(
        decorating=question
    )


def test_a_system_text_that_names_no_parameter_is_refused() -> None:
    """86: the system text is a template over the same parameters."""
    assert "step 'question': line 1 of its system text uses 'tone', which is no parameter; parameters are text" in said(
        system="Be {{ tone }}."
    )


def test_a_template_with_a_mistake_in_it_is_refused() -> None:
    """86: its line, and how to write braces that are meant literally."""

    def question(text: str) -> str:
        """Summarise {{ text }"""
        return prompt()

    message = said(decorating=question)

    assert "step 'question': line 1 of its docstring is no valid template" in message
    assert "{% raw %}" in message


def test_a_parameter_that_the_model_never_sees_is_warned_of() -> None:
    """86: once, and the warning points at the line of the decorator."""

    def question(text: str, tone: str) -> str:
        """Summarise {{ text }}"""
        return prompt()

    here = inspect.currentframe()
    assert here is not None
    with pytest.warns(UnusedParameterWarning, match=r"step 'question': parameter 'tone' is used neither") as warned:
        step(SILENT)(question)
        line = here.f_lineno - 1
    with pytest.warns(UnusedParameterWarning) as warned_bare:
        step(question)
        bare_line = here.f_lineno - 1

    assert [(__file__, line)] == [(one.filename, one.lineno) for one in warned]
    assert [(__file__, bare_line)] == [(one.filename, one.lineno) for one in warned_bare]


# -- 87: values --------------------------------------------------------------------------------------------------------

NAN, INFINITE = float("nan"), float("inf")

ABSURD: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    *((Retry, {"attempts": value}) for value in (0, -1, True, 2.5, "3", NAN)),
    *((Retry, {"wait_initial": value}) for value in (-1, NAN, INFINITE, True, None)),
    *((Retry, {"wait_max": value}) for value in (-1, NAN, INFINITE, "soon")),
    *((Retry, {"retry_after_max": value}) for value in (-1, NAN, "1 fortnight")),
    *((Retry, {"on": value}) for value in ("ConnectionError", 3, (ConnectionError, "x"))),
    *((Repair, {"reasks": value}) for value in (-1, True, 1.5, None)),
    *((Timeout, {"seconds": value}) for value in (0, -5, NAN, INFINITE, True, None, "5", "-5s", timedelta(0))),
    *((Deadline, {"seconds": value}) for value in (0, -5, NAN, INFINITE, False, [], "later")),
    *((Bulkhead, {"limit": value}) for value in (0, -1, True, 1.5)),
    *((Bulkhead, {"queue": value}) for value in (-1, True)),
]


@pytest.mark.parametrize(
    ("policy", "options"), ABSURD, ids=[f"{policy.__name__}({options})" for policy, options in ABSURD]
)
def test_an_absurd_value_is_refused_where_it_is_written(policy: Callable[..., Any], options: dict[str, Any]) -> None:
    """87: a ValueError that names policy, option and value, long before the third retry."""
    ((option, value),) = options.items()
    with pytest.raises(ValueError, match=rf"^{policy.__name__}: {option} is ") as raised:
        policy(**options)

    assert isinstance(raised.value, DefinitionError)
    assert repr(value) in str(raised.value)
    assert "expected" in str(raised.value)


def test_a_fallback_needs_a_model_with_a_provider() -> None:
    """87: none at all, and one without its provider."""
    with pytest.raises(ValueError, match=r"write Fallback\('provider/name'\)"):
        Fallback()
    with pytest.raises(ValueError, match=r"model 'gpt-5' does not name its provider; .* 'openai/gpt-5'"):
        Fallback("gpt-5")


@pytest.mark.parametrize(
    ("policies", "problem"),
    [
        ((Retry,), "step 'question' is given the class Retry, not a policy; write Retry()"),
        ((Retry(2), Retry(3)), "step 'question' has Retry twice; keep one of them"),
        ((Retry(2), Retry.off), "step 'question' has Retry twice"),
        (
            ("openai/gpt-5",),
            "'openai/gpt-5' behind policies; the model comes first, further ones go into Fallback(...)",
        ),
        (
            (3,),
            "step 'question' is given 3, which is not a policy: a policy has a `band` and a method `wrap(proceed, site)`",
        ),
    ],
    ids=["class", "twice", "off and on", "second model", "number"],
)
def test_what_is_no_policy_is_refused(policies: tuple[Any, ...], problem: str) -> None:
    """87: the usual slips, each with what was probably meant."""
    assert problem in said(*policies)


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"temprature": 1}, "step 'question' has an unknown parameter 'temprature'; params takes max_tokens, "),
        ({"max_tokens": 0}, "step 'question': max_tokens is 0, expected a whole number of at least 1"),
        ({"max_tokens": True}, "step 'question': max_tokens is True, expected a whole number"),
    ],
    ids=["unknown", "nothing", "bool"],
)
def test_wrong_parameters_are_refused(params: Any, problem: str) -> None:
    """87: parameters of the model are checked with the policies."""
    assert problem in said(params=params)


@pytest.mark.parametrize(
    ("examples", "problem"),
    [
        (["x"], "step 'question': example 1 is 'x', expected a tuple (input, output)"),
        ([("x", "y"), ("x", 3)], "step 'question': the output of example 2 does not fit str"),
        ([("x", "z"), ({"text": "x"}, 3)], "step 'question': the output of example 2 does not fit str"),
    ],
    ids=["no pair", "output", "output behind a dict"],
)
def test_wrong_examples_are_refused(examples: Any, problem: str) -> None:
    """87: an example that the step itself would not accept teaches the model the wrong thing."""
    assert problem in said(examples=examples)


def test_an_input_of_an_example_that_does_not_fit_is_refused() -> None:
    """87: too few arguments for the parameters."""

    def question(text: str, tone: str) -> str:
        return prompt(f"{tone}: {text}")

    assert "step 'question': example 1: its input does not fit the parameters" in said(
        examples=[("x", "y")], decorating=question
    )


def test_a_check_that_is_no_function_is_refused() -> None:
    """87: an async check would never be awaited."""

    async def check(value: object, inputs: object) -> None:
        """Never awaited."""

    assert "step 'question': check" in said(checks=[check])
    assert "step 'question': check 3 is not a plain function (value, inputs) -> None" in said(checks=[3])


# -- 88: what is decorated ---------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_functions_coroutine_functions_and_methods_are_supported() -> None:
    """88: all three run, and a step that is a method has its object."""

    async def echo(request: Request) -> str:
        return request.messages[-1].content

    model = Model("fake/echo", handler=echo)

    @step(model)
    def plain(text: str) -> str:
        return prompt(text)

    @step(model)
    async def asynchronous(text: str) -> str:
        return prompt(text)

    class Agent:
        name = "agent"

        @step(model)
        def method(self, text: str) -> str:
            return prompt(f"{self.name}: {text}")

    assert ["x", "x", "agent: x"] == [await plain("x"), await asynchronous("x"), await Agent().method("x")]


def generator(text: str) -> Iterator[str]:
    yield text


async def asynchronous_generator(text: str) -> Any:
    yield text


def variadic(*texts: str) -> str:
    return prompt(str(texts))


def open_ended(**texts: str) -> str:
    return prompt(str(texts))


def plain(text: str) -> str:
    return prompt(text)


@pytest.mark.parametrize(
    ("function", "problem", "fix"),
    [
        (generator, "step 'generator' is a generator", "return the value instead of yielding"),
        (asynchronous_generator, "step 'asynchronous_generator' is a generator", "return the value"),
        (variadic, "step 'variadic' takes *texts", "name every parameter, or take one list or dict"),
        (open_ended, "step 'open_ended' takes **texts", "name every parameter, or take one list or dict"),
        (lambda text: text, f"@step was given the lambda of {__name__}:", "write a function with `def`"),
        (
            functools.partial(plain, text="x"),
            "a functools.partial of 'plain'",
            "fix arguments with `.partial(name=value)`",
        ),
        (staticmethod(plain), "the staticmethod 'plain'", "put @staticmethod outside"),
        (classmethod(plain), "the classmethod 'plain'", "put @classmethod outside"),
        (Person, "the class 'Person'", "decorate a function that returns it"),
        (len, "<built-in function len>", "write a function that calls it"),
        (Place("Rome").__repr__, "bound method", "write a function that calls it"),
    ],
    ids=[
        "generator",
        "async generator",
        "*args",
        "**kwargs",
        "lambda",
        "partial",
        "static",
        "class method",
        "class",
        "C",
        "bound",
    ],
)
def test_what_is_no_function_is_refused(function: Any, problem: str, fix: str) -> None:
    """88: the message says what was decorated and what to write instead."""
    message = said(decorating=function)

    assert problem in message
    assert fix in message


def test_a_task_that_is_no_function_is_refused() -> None:
    """88: tasks and flows go through the same gate, in their own name."""
    with pytest.raises(DefinitionError, match=r"task 'generator' is a generator"):
        task(generator)
    with pytest.raises(DefinitionError, match=r"flow 'plain' must be an `async def`"):
        flow(plain)  # type: ignore[type-var]


def test_a_model_without_its_provider_is_refused() -> None:
    """88: the decorator's first argument is checked where it stands."""
    with pytest.raises(DefinitionError, match=r"model 'gpt-5' does not name its provider; .* 'openai/gpt-5'"):
        step("gpt-5")(plain)


# -- 89: no runtime ----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_step_without_any_model_is_one_clear_error() -> None:
    """89: step, and the three places where a model can be named."""

    @step
    def question(text: str) -> str:
        return prompt(text)

    with pytest.raises(DefinitionError) as raised:
        await question("x")

    message = str(raised.value)
    assert "step 'question' has no model" in message
    assert all(
        way in message for way in ("@step('provider/name')", "Runtime(default_model=...)", "LLMFLOW_DEFAULT_MODEL")
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"examples": [(5, "out")]}, "example 1: its input 'text' does not fit the parameter's type"),
        ({"checks": [lambda value: None]}, "does not take two arguments"),
        ({"checks": print}, "expected a list of functions"),
        ({"name": 3}, "expected a text"),
        ({"params": {"temperature": "hot"}}, "temperature is 'hot', expected a number from 0"),
        ({"params": {"temperature": float("nan")}}, "expected a number from 0"),
    ],
    ids=["example", "arity", "no list", "name", "word for a number", "nan"],
)
def test_options_that_would_fail_at_the_first_call_are_refused(options, says):
    """Decoration is early enough to say so."""
    with pytest.raises(DefinitionError, match=re.escape(says)):

        @step(**options)
        def question(text: str) -> str:
            return prompt(text)


def test_a_body_that_cannot_ask_is_refused():
    """It would return its prompt as the answer."""
    with pytest.raises(DefinitionError, match=r"does not call prompt"):

        @step
        def question(text: str) -> str:
            return f"Answer {text}"


def test_a_template_that_uses_self_is_refused():
    """Jinja takes the word for the template itself."""
    with pytest.raises(DefinitionError, match="a template cannot use `self`"):

        class Asker:
            @step
            def question(self, text: str) -> str:
                """{{ self.tone }} {{ text }}"""
                return prompt()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Model("openai/a", price=3), r"model 'openai/a': price is 3, expected Price\(input="),
        (lambda: Model("openai/a", price={"input": 1}), r"price is \{'input': 1\}, expected Price"),
        (lambda: Runtime(prices=[3]), r"Runtime\(prices=\[3\]\): expected a dict"),
        (lambda: Runtime(policies=Retry(2)), r"the runtime is given Retry\(.* as its policies; write a list: \["),
        (
            lambda: plan(step(SILENT)(returning(str)), inputs="hello"),
            r"plan: inputs is str, expected the arguments by name",
        ),
    ],
)
def test_a_value_of_another_kind_is_named_where_it_is_given(make: Callable[[], object], says: str) -> None:
    """Not later, by an AttributeError of llmflow's own."""
    with pytest.raises(DefinitionError, match=says):
        make()
