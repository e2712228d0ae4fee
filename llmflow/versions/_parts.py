"""The version of a prompt, and the parts that it is a hash of."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, TypeAlias, cast

from pydantic_core import to_json

from llmflow.versions._closure import Closure
from llmflow.versions._home import home_of
from llmflow.versions._pieces import DIGITS, Piece, digest_of
from llmflow.versions._values import Unseen, Writer

__all__ = ["FORMAT", "PromptParts", "Shape", "prompt_parts"]

FORMAT = "v1"
"""Of the text that is hashed; a change of it changes every version, and is a change of llmflow's major version."""

Example: TypeAlias = tuple[Mapping[str, object], str]


@dataclass(frozen=True, slots=True)
class Shape:
    """The output of a step: its name, its JSON schema, and a hash of that which no pydantic version changes."""

    name: str
    schema: Mapping[str, Any]
    digest: str
    model: type[Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptParts:
    """What a prompt is made of: everything that its version depends on, and what the version cannot see.

    Attributes:
        version: First 12 hex digits of a SHA-256 over all of it.
        template: The docstring, when it is what is asked.
        body: The function, when it does more than hold the docstring.
        system: The system text.
        examples: Inputs as JSON, and the output as the model should write it.
        checks: The functions that look at an answer, each with the hash of its own code.
        params: Sampling parameters.
        shape: The output's schema.
        uses: The functions, classes and constants of the same program that the body and the checks depend on.
        not_covered: What else they name, with the reason why a change of it is not seen.
    """

    version: str
    template: str | None
    body: Piece | None
    system: str | None
    examples: tuple[tuple[str, str], ...]
    checks: Mapping[str, str]
    params: Mapping[str, object]
    shape: Shape
    uses: Mapping[str, Piece]
    not_covered: Mapping[str, str]


def prompt_parts(
    function: Callable[..., Any],
    *,
    template: str | None,
    has_body: bool,
    system: str | None,
    examples: Sequence[Example],
    checks: Sequence[Callable[..., object]],
    params: Mapping[str, object],
    shape: Shape,
) -> PromptParts:
    """Return the parts of a prompt and its version.

    Args:
        function: What was decorated.
        template: The docstring, when it is what is asked.
        has_body: Whether the function does more than hold the docstring.
        system: The system text.
        examples: Inputs by name, and outputs as text.
        checks: The functions that look at an answer.
        params: Sampling parameters.
        shape: The output's schema.
    """
    home = home_of(getattr(inspect.unwrap(function), "__globals__", {}))
    closure = Closure(home)
    writer = Writer(_type_name, home.relative, lambda part, reason: closure.note(f"an example: {_kind(part)}", reason))
    hashed = [
        ("template", "~" if template is None else quoted(template)),
        ("body", closure.add(function, "the body")),
        ("system", "~" if system is None else quoted(system)),
        ("examples", ",".join(_example(one, number, writer, closure) for number, one in enumerate(examples, 1))),
        ("checks", ",".join(closure.add(one, _name(one)) for one in checks)),
        ("params", ",".join(sorted(f"{quoted(name)}:{writer.write(value)}" for name, value in params.items()))),
        ("output", f"{quoted(shape.name)}:{shape.digest}"),
    ]
    hashed.append(("code", closure.text()))
    text = "\n".join([FORMAT, *(f"{name} {value}" for name, value in hashed)])
    _note_validators(shape, closure)
    of_checks = {closure.name_of(one) or _name(one): one for one in checks}
    own = closure.name_of(function)
    return PromptParts(
        version=hashlib.sha256(text.encode()).hexdigest()[:DIGITS],
        template=template,
        body=closure.pieces.get(own or "") if has_body else None,
        system=system,
        examples=tuple((_readable(inputs), output) for inputs, output in examples),
        checks={name: _digest(name, closure) for name in of_checks},
        params=dict(params),
        shape=shape,
        uses={name: one for name, one in sorted(closure.pieces.items()) if name != own},
        not_covered=dict(sorted(closure.missing.items())),
    )


def _digest(name: str, closure: Closure) -> str:
    piece = closure.pieces.get(name)
    return digest_of(name) if piece is None else piece.digest


def _name(check: Callable[..., object]) -> str:
    return str(getattr(check, "__qualname__", type(check).__qualname__))


def _example(example: Example, number: int, writer: Writer, closure: Closure) -> str:
    inputs, output = example
    texts: list[str] = []
    for name, value in inputs.items():
        try:
            texts.append(f"{quoted(name)}:{writer.write(value)}")
        except (Unseen, RecursionError) as exc:
            closure.note(f"example {number}: {name}", str(exc))
    return f"({','.join(sorted(texts))};{quoted(output)})"


def _kind(value: object) -> str:
    return type(value).__qualname__


def _type_name(value: Any) -> str:
    """Return the name of a type; what an example holds is data, so nothing of its class is followed."""
    if isinstance(value, type):
        return value.__qualname__
    msg = f"an object of the class {_kind(value)}, whose state is not read"
    raise Unseen(msg)


def _readable(inputs: Mapping[str, object]) -> str:
    return to_json(inputs, fallback=lambda value: type(value).__qualname__, inf_nan_mode="strings").decode()


def _note_validators(shape: Shape, closure: Closure) -> None:
    """Say that the validators of the answer's own model are not looked at: they are in no JSON schema."""
    decorators = getattr(shape.model, "__pydantic_decorators__", None)
    for kind in ("field_validators", "model_validators", "validators", "root_validators"):
        for name in cast("Mapping[str, object]", getattr(decorators, kind, {})):
            closure.note(f"{shape.name}.{name}", "a validator of the output, which its schema does not show")
