"""Templates: a sandbox in which values are data."""

from __future__ import annotations

import enum
import subprocess
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from llmflow.errors import DefinitionError
from llmflow.prompts import Template, UnusedParameterWarning, names_used_by, prompt


class Item(BaseModel):
    """A model as a value."""

    name: str = Field(alias="Name")


@dataclass
class Point:
    """A dataclass as a value."""

    x: int


class Colour(enum.Enum):
    """An enum as a value."""

    RED = "red"


class Level(enum.IntEnum):
    """An enum of numbers."""

    HIGH = 3


def rendered(source: str, **inputs: object) -> str:
    """Render the docstring of a step called `ask`."""
    return Template(source, step="ask").render(inputs)


PAYLOADS = [
    "{{ 7*7 }}",
    "{% for x in range(9) %}{% endfor %}",
    "{# gone #}",
    "{{ self.__init__.__globals__ }}",
    "{% raw %}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "%(a)s {a.__class__} ${a} <%= 7*7 %> <script>&amp;\x1b[31m",
    "\r\n \t",
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_values_are_never_rendered(payload: str) -> None:
    """What looks like a template in a value arrives as it is."""
    assert f"> {payload} <" == rendered("> {{ text }} <", text=payload)


@given(st.text())
def test_any_text_arrives_unchanged(text: str) -> None:
    """Not escaped, not trimmed, not rendered."""
    assert f"[{text}]" == TEXT.render({"text": text})


TEXT = Template("[{{ text }}]", step="ask")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a", "a"),
        (3, "3"),
        (0.5, "0.5"),
        (True, "True"),
        (None, ""),
        (Colour.RED, "red"),
        (Level.HIGH, "3"),
        (Item(Name="a"), '{"Name":"a"}'),
        (Point(1), '{"x":1}'),
        ([Item(Name="a"), None], '[{"Name":"a"},null]'),
        ({"a": Point(1), "b": "é<>&"}, '{"a":{"x":1},"b":"é<>&"}'),
        ((1, "a"), '[1,"a"]'),
        ([float("nan")], '["NaN"]'),
        (Item, str(Item)),
    ],
)
def test_values_are_written_for_a_model_to_read(value: object, written: str) -> None:
    """Structured values are JSON, plain ones as `str` gives them."""
    assert written == rendered("{{ value }}", value=value)


def test_tojson_does_not_escape_for_html() -> None:
    """Jinja's own filter would write \\u003c."""
    assert '"<b>"' == rendered("{{ value | tojson }}", value="<b>")
    assert '{\n  "x": 1\n}' == rendered("{{ value | tojson(indent=2) }}", value=Point(1))


def test_a_docstring_is_dedented_and_blocks_leave_no_blank_lines() -> None:
    """The prompt reads as the author sees it."""
    source = """Choose one:

        {% for item in items %}
        - {{ item }}
        {% endfor %}
        Now.
        """

    assert "Choose one:\n\n- a\n- b\nNow." == rendered(source, items=["a", "b"])


def test_text_without_markers_needs_no_jinja() -> None:
    """Single braces are text."""
    template = Template('Answer as {"a": 1}.', step="ask")

    assert template.is_literal
    assert 'Answer as {"a": 1}.' == template.render({})


@pytest.mark.parametrize(
    "source",
    [
        "{{ text.__class__ }}",
        "{{ text.__class__.__mro__ }}",
        "{{ item._private }}",
        "{{ items.append(1) }}",
        "{{ items.clear() }}",
        "{{ text.missing }}",
        "{{ mapping.missing }}",
        "{{ mapping['a'].b.c }}",
        "{{ '{0.__class__}'.format(text) }}",
        "{{ text | attr('__class__') }}",
    ],
)
def test_what_the_sandbox_refuses_is_a_definition_error(source: str) -> None:
    """Private attributes, changes of values and things that are not there."""
    inputs = {"text": "t", "item": Item(Name="a"), "items": [1], "mapping": {"a": 1}}

    with pytest.raises(DefinitionError, match="step 'ask': its docstring cannot be rendered"):
        rendered(source, **inputs)


def test_what_a_value_raises_is_left_alone() -> None:
    """A property of the author's own class fails as itself."""

    class Broken:
        @property
        def name(self) -> str:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        rendered("{{ value.name }}", value=Broken())


@pytest.mark.parametrize("source", ["{{ a", "{% if a %}", "one\n{{ a | nothing }}", "{% for %}"])
def test_a_syntax_error_is_said_at_decoration_with_its_line(source: str) -> None:
    """And how to write braces that are meant literally."""
    with pytest.raises(DefinitionError, match=r"step 'ask': line \d of its docstring is no valid template") as caught:
        Template(source, step="ask")

    assert "{% raw %}" in caught.value.__notes__[0]


@pytest.mark.parametrize("source", ["{% include 'other' %}", "{% extends name %}", "{% import 'a' as b %}"])
def test_other_templates_cannot_be_reached(source: str) -> None:
    """There is no loader, and it is said at decoration."""
    with pytest.raises(DefinitionError, match="step 'ask': its docstring refers to another template"):
        Template(source, step="ask")


class TestCheck:
    """The template and the parameters of its step are compared at decoration."""

    def test_all_is_well(self) -> None:
        """Loops and Jinja's own functions bring their names along."""
        template = Template(
            "{% for i in range(n) %}{{ i }}{{ loop.index }}{% endfor %}{% set a = n %}{{ a }}", step="ask"
        )

        assert {"range", "n"} == template.names
        assert () == template.check(["n"])
        assert () == Template("{{ range }}", step="ask").check(["range"])

    def test_an_unknown_name_is_an_error(self) -> None:
        """With its line and the nearest parameter."""
        template = Template("Hello\n{{ mesage }}", step="ask")

        complaint = "step 'ask': line 2 of its docstring uses 'mesage', which is no parameter; did you mean 'message'"
        with pytest.raises(DefinitionError, match=complaint):
            template.check(["message", "other"])

    def test_without_a_near_one_the_parameters_are_listed(self) -> None:
        """Or it is said that there are none."""
        with pytest.raises(DefinitionError, match="parameters are a, b"):
            Template("{{ question }}", step="ask").check(["a", "b"])
        with pytest.raises(DefinitionError, match="parameters are none"):
            Template("{{ question }}", step="ask").check([])

    def test_the_system_text_is_called_so(self) -> None:
        """`where` names the text."""
        with pytest.raises(DefinitionError, match="line 1 of its system text uses 'x'"):
            Template("{{ x }}", step="ask", where="its system text").check([])

    def test_an_unused_parameter_is_warned_of(self) -> None:
        """Also when the text has no markers at all; the warning points at the caller."""
        for source in ("Hello {{ a }}", "Hello"):
            with pytest.warns(UnusedParameterWarning, match="step 'ask': parameter 'b' is used neither") as caught:
                unused = Template(source, step="ask").check(["a", "b"], used={"a"}, stacklevel=1)

            assert ("b",) == unused
            assert caught[0].filename == __file__

    def test_what_the_body_uses_is_used(self) -> None:
        """No warning for a parameter that goes another way."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")

            assert () == Template("Hello", step="ask").check(["a"], used={"a"})


def test_names_used_by_a_body() -> None:
    """Read directly, in a comprehension or in an inner function; not merely declared."""

    def body(a: str, b: str, c: list[str], d: str, e: str, unused: str) -> Any:
        def inner() -> str:
            return d

        return prompt(f"{a}{b}{[x + e for x in c]}{inner()}")

    assert {"a", "b", "c", "d", "e"} <= names_used_by(body)
    assert "unused" not in names_used_by(body)


def test_names_used_by_something_without_code() -> None:
    """Nothing is known, nothing is claimed."""
    assert frozenset() == names_used_by(print)


def test_jinja_is_imported_only_by_templates() -> None:
    """Who writes f-strings does not pay for it; importing the schema needs no prompts."""
    code = (
        "import sys; from llmflow.prompts import Template; import llmflow.schema;"
        "Template('plain', step='s').render({});"
        "assert 'jinja2' not in sys.modules; Template('{{ a }}', step='s'); assert 'jinja2' in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603


def test_a_template_shows_its_source() -> None:
    """For debugging."""
    assert repr(Template("Hi", step="ask")) == "Template('Hi', step='ask')"
