"""resolve_hints: annotations that are strings, and classes that are local."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from llmflow.errors import DefinitionError
from llmflow.schema import OutputSchema, local_namespace, resolve_hints

if TYPE_CHECKING:
    from collections.abc import Callable


class Shadowed(BaseModel):
    """A model of the module, which a local one hides."""


def hinted(function: Callable[..., Any]) -> dict[str, Any]:
    """Resolve as a decorator does, while the scopes around are running."""
    return resolve_hints(function)


def output_of(function: Callable[..., Any]) -> OutputSchema:
    """Build the output schema as a decorator does."""
    hints = resolve_hints(function)
    return OutputSchema.of(hints["return"], step=function.__name__, namespace=local_namespace(function))


def test_names_of_the_module_are_found() -> None:
    """The plain case."""

    @hinted
    def hints(a: Annotated[int, "kept"]) -> Shadowed: ...

    assert {"a": Annotated[int, "kept"], "return": Shadowed} == hints


def test_local_models_are_found_and_hide_those_of_the_module() -> None:
    """A step inside a test function may return a model of that function."""
    outer = Shadowed

    def inside() -> tuple[Any, Any]:
        class Shadowed(BaseModel):
            """A local model."""

        @hinted
        def hints() -> Shadowed: ...

        return hints["return"], Shadowed

    found, local = inside()

    assert found is local
    assert found is not outer


def test_names_of_a_class_body_are_found() -> None:
    """A step may be a method whose types stand beside it."""

    class Desk:
        class Note(BaseModel):
            text: str

        @hinted
        def hints(self) -> Note: ...

    assert Desk.Note is Desk.hints["return"]


def test_names_of_every_function_around_are_found() -> None:
    """However deep the definition is."""

    class Outer(BaseModel):
        """A model two functions up."""

    def around() -> Any:
        @hinted
        def hints() -> Outer: ...

        return hints

    assert Outer is around()["return"]


def test_what_the_body_shares_is_found_after_the_scope_has_ended() -> None:
    """The closure outlives the function around; a variable that has no value yet does no harm."""

    def factory() -> Callable[..., Any]:
        class Kept(BaseModel):
            """Named in the body as well."""

        def later() -> Kept:
            return unassigned or Kept()

        if later is None:
            unassigned = None
        return later

    assert resolve_hints(factory())["return"].__name__ == "Kept"


def test_locals_of_unrelated_callers_are_not_seen() -> None:
    """Only what encloses the definition counts, not who happens to call."""

    def factory() -> Callable[..., Any]:
        def later() -> Hidden: ...  # noqa: F821

        return later

    def caller() -> None:
        class Hidden(BaseModel):
            """Not visible from `later`."""

        assert Hidden
        resolve_hints(factory())

    with pytest.raises(DefinitionError, match="names 'Hidden'"):
        caller()


def test_local_models_may_refer_to_each_other() -> None:
    """Typed dicts have no memory of where they were made; the namespace helps pydantic."""

    class Line(TypedDict):
        sku: str

    class Order(TypedDict):
        lines: list[Line]

    @output_of
    def output() -> Order: ...

    assert {"lines": [{"sku": "a"}]} == output.parse('{"lines": [{"sku": "a"}]}')


def test_a_name_that_cannot_be_resolved_is_named_with_its_parameter() -> None:
    """The message says which annotation, the note what to do."""

    def ask(question: Missing) -> str: ...  # noqa: F821

    with pytest.raises(DefinitionError, match="step 'ask': the annotation of 'question' names 'Missing'") as caught:
        resolve_hints(ask)

    assert ["Import or define it before the step, and not under `if TYPE_CHECKING:`."] == caught.value.__notes__


def test_a_return_annotation_that_cannot_be_resolved() -> None:
    """It is called by its name."""

    def ask() -> Missing: ...  # noqa: F821

    with pytest.raises(DefinitionError, match="step 'ask': the return annotation names 'Missing'"):
        resolve_hints(ask)


def test_a_callable_object_is_refused() -> None:
    """Its class has the annotations, not it."""

    class Asker:
        def __call__(self) -> str:
            return ""

    with pytest.raises(DefinitionError, match="step 'Asker': its annotations cannot be read"):
        resolve_hints(Asker())


def test_annotations_that_are_no_types() -> None:
    """They are a definition error as well."""

    def ask(question: pytest.nothing) -> str: ...

    with pytest.raises(DefinitionError, match="step 'ask': its annotations cannot be read"):
        resolve_hints(ask)


def test_a_partial_has_no_annotations_of_its_own() -> None:
    """A clear error, since nothing can be known about it."""

    def ask(question: str) -> str:
        return question

    with pytest.raises(DefinitionError, match="annotations cannot be read"):
        resolve_hints(functools.partial(ask, "x"))
