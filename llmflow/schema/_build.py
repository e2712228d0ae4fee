"""Asking pydantic for a schema, and saying in the step's words why it has none."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, RootModel, TypeAdapter, create_model
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import PydanticOmit, SchemaError

from llmflow.errors import DefinitionError
from llmflow.schema._annotations import display, unwrap
from llmflow.schema._core import build_validator, closed

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from pydantic_core import SchemaValidator

    from llmflow.schema._core import Findings

__all__ = ["adapter_of", "definition_errors", "model_of", "validator_of", "wrapper_of"]


def model_of(annotation: Any) -> type[BaseModel] | None:
    """Return the author's own model when its answer is an object, else None: the answer needs a wrapper."""
    inner = unwrap(annotation)
    if isinstance(inner, type) and issubclass(inner, BaseModel) and not issubclass(inner, RootModel):
        return inner
    return None


def wrapper_of(annotation: Any) -> type[BaseModel]:
    """Make the model that carries a value of `annotation` in its one field, `content`."""
    return create_model(
        "Output",
        __config__=ConfigDict(extra="forbid", title="Output"),
        __doc__=f"The answer, of type {display(annotation)}, in the field `content`.",
        content=(annotation, Field()),
    )


def adapter_of(annotation: Any, *, namespace: Mapping[str, Any] | None) -> TypeAdapter[Any]:
    """Return a complete adapter, names that pydantic could not see resolved from `namespace`."""
    model = model_of(annotation)
    if model is not None:
        model.model_rebuild(_types_namespace=namespace)
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    adapter.rebuild(_types_namespace=namespace)
    return adapter


def validator_of(adapter: TypeAdapter[Any], *, step: str) -> tuple[SchemaValidator, Findings]:
    """Build the validator that keeps non-finite numbers out.

    Raises:
        DefinitionError: For validators that cannot be run before the step returns.
    """
    schema, findings = closed(adapter.core_schema)
    if findings.lazy:
        msg = f"step {step!r} returns an iterable whose items would be validated only when read; use `list[...]`"
        raise DefinitionError(msg)
    if findings.async_validators:
        msg = f"step {step!r}: validator {findings.async_validators[0]!r} is async, which pydantic does not await"
        raise DefinitionError(msg)
    return build_validator(schema, findings.classes), findings


@contextmanager
def definition_errors(annotation: Any, *, step: str) -> Generator[None]:
    """Translate what pydantic raises over a type it cannot build."""
    try:
        yield
    except DefinitionError:
        raise
    except PydanticUndefinedAnnotation as error:
        msg = f"step {step!r} returns {display(annotation)}, which names {error.name!r}; that cannot be resolved"
        problem = DefinitionError(msg)
        problem.add_note("Define it before the step, and not under `if TYPE_CHECKING:`.")
        raise problem from error
    except (PydanticUserError, PydanticOmit, SchemaError, TypeError, ValueError, NameError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        msg = f"step {step!r} returns {display(annotation)}, which pydantic has no schema for: {reason}"
        problem = DefinitionError(msg)
        problem.add_note("Return `str`, a pydantic model, or a type made of standard types.")
        raise problem from error
