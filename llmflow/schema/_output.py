"""The output of a step: its schema for the provider, and the way from an answer's text to a value and back."""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic_core import ValidationError

from llmflow.errors import DefinitionError, InvalidOutput
from llmflow.schema._annotations import display, identifier, is_choice, refuse, unwrap
from llmflow.schema._build import adapter_of, definition_errors, model_of, validator_of, wrapper_of
from llmflow.schema._codec import Codec
from llmflow.schema._fingerprint import fingerprint
from llmflow.schema._partial import view_of
from llmflow.schema._problems import invalid_output, is_about, is_encodable, problems_of
from llmflow.schema._repair import repair_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import TypeAdapter

    from llmflow.schema._partial import View

__all__ = ["OutputSchema"]


_AROUND_A_WORD = " \t\r\n\ufeff\u00a0`*\"'."


class OutputSchema:
    """What a step returns, built once from its return annotation.

    Values are instances of the author's own classes. Floats are finite unless their field or model says
    `allow_inf_nan=True`, strings can be encoded as UTF-8. Validation is pydantic's lax mode: `"12.5"` is a float, and
    a union takes the member that fits best; give unions of similar models a discriminator.

    Attributes:
        name: A name fit for a tool or a schema.
        is_text: True when the step returns `str`: the answer is the value.
        model: The author's own model, or the wrapper whose one field is `content`.
        expected: The annotation as its author wrote it, for messages.
        json_schema: JSON Schema of the answer, generated when first asked for.
    """

    is_text = False
    json_schema: Mapping[str, Any]

    def __init__(self, annotation: Any, *, step: str, namespace: Mapping[str, Any] | None) -> None:
        model = model_of(annotation)
        self.model: type[Any] = model or wrapper_of(annotation)
        self.name = identifier(self.model.__name__)
        self.expected = display(annotation)
        self._annotation = annotation
        self._step = step
        self._adapter = adapter_of(annotation if model else self.model, namespace=namespace)
        self._validator, findings = validator_of(self._adapter, step=step)
        if findings.may_lack_json_schema:
            self.json_schema = self._generated()

    @staticmethod
    def of(annotation: Any, *, step: str, namespace: Mapping[str, Any] | None = None) -> OutputSchema:
        """Build the schema of a return annotation.

        Args:
            annotation: The annotation with its strings evaluated; `inspect.Signature.empty` for a missing one.
            step: Name of the step, for messages.
            namespace: Local names that classes in the annotation may refer to, see `local_namespace`.

        Raises:
            DefinitionError: For an annotation that says nothing or that pydantic cannot build.
        """
        refuse(annotation, step=step)
        with definition_errors(annotation, step=step):
            kind = (
                OutputSchema if model_of(annotation) else _TextSchema if unwrap(annotation) is str else _WrappedSchema
            )
            return kind(annotation, step=step, namespace=namespace)

    def parse(self, text: str, *, context: object = None) -> Any:
        """Return the value that an answer stands for.

        Args:
            text: The answer as the model gave it.
            context: Pydantic's validation context.

        Raises:
            InvalidOutput: When the answer is no JSON or does not fit; it names the problems, not the values.
        """
        try:
            return self._validator.validate_json(text, context=context)
        except ValidationError as error:
            raise self._invalid(error, text) from error

    def parse_or_repair(self, text: str, *, context: object = None) -> tuple[Any, bool]:
        """Return the value of an answer, mended if need be, and whether it was mended.

        Raises:
            InvalidOutput: When neither the answer nor the JSON found in it fits.
        """
        try:
            return self.parse(text, context=context), False
        except InvalidOutput:
            mended = self.repair(text)
            if mended is None:
                raise
        try:
            return self.parse(mended, context=context), True
        except InvalidOutput as error:
            error.text = text
            raise

    def repair(self, text: str) -> str | None:
        """Return the JSON inside an answer: out of fences, prose, a BOM or a string; None when there is none to try.

        Of several values the first complete one is taken, from a fenced block if there is one. Time is linear.
        """
        return repair_json(text, object_expected=True)

    def dump(self, value: Any) -> str:
        """Return the answer that a model should have written for `value`."""
        return self._adapter.serializer.to_json(value, by_alias=True, round_trip=True).decode()

    @cached_property
    def codec(self) -> Codec:
        """What turns a value into JSON for the journal, and back."""
        return Codec(self._kept_by(), self._validate_json)

    def _kept_by(self) -> TypeAdapter[Any]:
        return self._adapter

    def _validate_json(self, data: bytes, **options: Any) -> Any:
        return self._validator.validate_json(data, **options)

    def check(self, value: object, *, what: str = "the value") -> Any:
        """Return `value` validated as an example answer, one that parses when it is written as JSON.

        Args:
            value: An instance, or what pydantic makes one from.
            what: What to call it in a message, such as `output of example 2`.

        Raises:
            DefinitionError: When it does not fit.
        """
        try:
            valid = self.validate_value(value)
            self.parse(self.dump(valid))
        except InvalidOutput as error:
            msg = f"step {self._step!r}: {what} does not fit {self.expected}: {'; '.join(error.problems)}"
            raise DefinitionError(msg) from error
        return valid

    def validate_value(self, value: object, *, context: object = None) -> Any:
        """Return a value that the body of a step made itself, validated like an answer; instances stay the same.

        Raises:
            InvalidOutput: When it does not fit.
        """
        try:
            return self._validate(value, context)
        except ValidationError as error:
            problems = problems_of(error)
            msg = f"the value that the body returned does not fit {self.expected}: {'; '.join(problems)}"
            raise InvalidOutput(msg, problems=problems) from error

    @cached_property
    def fingerprint(self) -> str:
        """A SHA-256 of the JSON schema that pydantic's own wording and order of keys do not change."""
        return fingerprint(self.json_schema)

    @cached_property
    def view(self) -> View | None:
        """What shows an answer that is still being written, None for one that has no parts to show."""
        return view_of(self._annotation, wrapped=False)

    def __repr__(self) -> str:
        return f"OutputSchema({self.expected})"

    def _validate(self, value: object, context: object) -> Any:
        return self._validator.validate_python(value, context=context)

    def _invalid(self, error: ValidationError, text: str) -> InvalidOutput:
        return invalid_output(error, subject="the answer", expected=self.expected, text=text)

    def _generated(self) -> Mapping[str, Any]:
        with definition_errors(self._annotation, step=self._step):
            return _inlined(self._adapter.json_schema())

    if not TYPE_CHECKING:
        # A plain attribute for the protocol's sake, which is filled when it is first read.
        def __getattr__(self, name: str) -> Any:
            if name != "json_schema":
                raise AttributeError(name)
            self.json_schema = self._generated()
            return self.json_schema


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Put the definition of a recursive model at the root, where providers want an object and not a `$ref`."""
    reference: str | None = schema.get("$ref")
    if reference is None:
        return schema
    return {**schema["$defs"][reference.removeprefix("#/$defs/")], "$defs": schema["$defs"]}


class _WrappedSchema(OutputSchema):
    """A type that is no pydantic model: sent as `{"content": ...}`, read with or without that."""

    def __init__(self, annotation: Any, *, step: str, namespace: Mapping[str, Any] | None) -> None:
        super().__init__(annotation, step=step, namespace=namespace)
        self._bare_adapter = adapter_of(annotation, namespace=namespace)
        self._bare = validator_of(self._bare_adapter, step=step)[0]

    def parse(self, text: str, *, context: object = None) -> Any:
        try:
            return self._validator.validate_json(text, context=context).content
        except ValidationError as error:
            wrapped = error
        try:
            return self._bare.validate_json(text, context=context)
        except ValidationError as error:
            blamed = wrapped if is_about(wrapped, "content") else error
            raise self._invalid(blamed, text) from blamed

    def repair(self, text: str) -> str | None:
        found = repair_json(text, object_expected=False)
        if found is None and is_choice(self._annotation):
            # Small models answer a choice with the bare word; validation knows whether it is one of them.
            return json.dumps(text.strip(_AROUND_A_WORD))
        return found

    def dump(self, value: Any) -> str:
        return super().dump(self.model.model_construct(content=value))

    def _kept_by(self) -> TypeAdapter[Any]:
        return self._bare_adapter

    def _validate_json(self, data: bytes, **options: Any) -> Any:
        return self._bare.validate_json(data, **options)

    @cached_property
    def view(self) -> View | None:
        return view_of(self._annotation, wrapped=True)

    def _validate(self, value: object, context: object) -> Any:
        return self._bare.validate_python(value, context=context)


class _TextSchema(_WrappedSchema):
    """Plain text: the answer is the value, constraints of an `Annotated[str, ...]` included."""

    is_text = True

    def parse(self, text: str, *, context: object = None) -> Any:
        if not (text.isascii() or is_encodable(text)):
            problem = "a lone surrogate, which UTF-8 cannot carry"
            msg = f"the answer holds {problem}"
            raise InvalidOutput(msg, text=text, problems=(problem,))
        try:
            return self._bare.validate_python(text, context=context)
        except ValidationError as error:
            raise self._invalid(error, text) from error

    @cached_property
    def view(self) -> View | None:
        return str

    def repair(self, text: str) -> str | None:  # noqa: ARG002  # any text is an answer
        return None

    def dump(self, value: Any) -> str:
        return str(value)
