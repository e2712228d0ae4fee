"""`build`: a node that constructs a model, dataclass or TypedDict from values of other nodes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, get_origin

from pydantic import BaseModel

from llmflow.graph._fields import fields_of, required_fields
from llmflow.graph._operation import Operation, mistake
from llmflow.graph._types import display

if TYPE_CHECKING:
    from llmflow.graph._ir import Node
    from llmflow.graph._trace import Trace

__all__ = ["build"]

P = ParamSpec("P")
T = TypeVar("T")


class _Build(Operation[Any]):
    kind = "build"

    def __init__(self, model: Any, fields: dict[str, object]) -> None:
        super().__init__(())
        self._model = model
        self._fields = fields

    async def perform(self) -> Any:
        return self._model(**self._fields)

    def node(self, trace: Trace, /) -> Node:
        name = display(self._model)
        known = fields_of(self._model) or {}
        for field, value in self._fields.items():
            if field in known:
                trace.check_type(value, known[field], f"{name} takes {field}: {display(known[field])}")
        return self.make_node(trace, self._model, name=name, inputs=self._fields)


def build(model: Callable[P, T], *args: P.args, **fields: P.kwargs) -> Coroutine[Any, Any, T]:
    """Construct a model, dataclass, TypedDict or NamedTuple from values that are only known when the flow runs.

    `await build(Report, title=title, items=items)` is `Report(title=title, items=items)` as a node of the graph.

    Raises:
        DefinitionError: When a field is unknown or missing, or given by position.
    """
    if args:
        msg = f"build({display(model)}, ...) takes fields by name, not by position"
        raise mistake(msg)
    _check_fields(model, fields)
    return _Build(model, fields)


def _check_fields(model: Any, fields: dict[str, Any]) -> None:
    """Compare the names with what the class declares; other classes and aliased models check for themselves when they run."""
    known = fields_of(model)
    if known is None or _has_names_of_its_own(get_origin(model) or model):
        return
    for name in fields:
        if name not in known:
            close = difflib.get_close_matches(name, list(known), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(map(repr, known))}"
            msg = f"build({display(model)}, ...): {display(model)} has no field {name!r}{hint}"
            raise mistake(msg)
    missing = [name for name in required_fields(model) if name not in fields]
    if missing:
        msg = f"build({display(model)}, ...): {display(model)} requires {', '.join(map(repr, missing))}"
        raise mistake(msg)


def _has_names_of_its_own(owner: Any) -> bool:
    """Whether a class is constructed with other names than those of its fields."""
    if isinstance(owner, type) and issubclass(owner, BaseModel):
        aliased = any(field.alias or field.validation_alias for field in owner.model_fields.values())
        return aliased or owner.model_config.get("extra") == "allow" or owner.__init__ is not BaseModel.__init__
    return isinstance(owner, type) and "__init__" in vars(owner) and not hasattr(owner, "__dataclass_fields__")
