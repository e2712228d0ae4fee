"""Building validators that keep non-finite numbers out, without touching the author's classes.

JSON has no NaN and no infinity, but pydantic accepts both unless a model says `allow_inf_nan=False`, and authors do
not say it. So the core schema is copied with the float nodes closed, and one validator is built from the copy: it
makes instances of the author's own classes, at the speed of pydantic's own.
"""

from __future__ import annotations

import inspect
import math
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from pydantic_core import CoreConfig, PydanticCustomError, SchemaValidator

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

    from pydantic_core import CoreSchema

__all__ = ["Findings", "build_validator", "closed"]

Node: TypeAlias = dict[str, Any]

_CHILDREN = (
    "schema",
    "items_schema",
    "keys_schema",
    "values_schema",
    "extras_schema",
    "extras_keys_schema",
    "json_schema",
    "python_schema",
    "lax_schema",
    "strict_schema",
    "arguments_schema",
    "var_args_schema",
    "var_kwargs_schema",
    "return_schema",
    "steps",
    "choices",
    "fields",
    "definitions",
)
"""Keys below which a core schema holds further schemas. Everything else (defaults, metadata, literals) is data."""

_OPEN_CONTAINERS = {"dict": "values_schema", "list": "items_schema", "set": "items_schema", "frozenset": "items_schema"}
_WITHOUT_JSON_SCHEMA = frozenset({"is-instance", "is-subclass", "callable", "function-plain", "custom-error", "call"})
_WITH_EXTRAS = frozenset({"model-fields", "typed-dict"})


@dataclass(slots=True)
class Findings:
    """What the copy came across and the author should hear about at decoration."""

    lazy: bool = False
    """A generator: pydantic would validate its items only when they are read, after the step has returned."""
    async_validators: list[str] = field(default_factory=list[str])
    may_lack_json_schema: bool = False
    classes: set[type[Any]] = field(default_factory=set[type[Any]])


def closed(schema: CoreSchema) -> tuple[CoreSchema, Findings]:
    """Copy `schema` so that a float is finite unless its field or its model says `allow_inf_nan` itself."""
    findings = Findings()
    copy = _Copier(findings).copy(schema, {})
    return cast("CoreSchema", copy), findings


class _Copier:
    """One copy of one core schema."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._seen: dict[tuple[int, object, object], Node] = {}

    def copy(self, part: Any, config: Mapping[str, Any]) -> Any:
        """Copy a node, or a list, tuple or mapping of nodes; leave anything else as it is."""
        if isinstance(part, dict):
            mapping = cast("Node", part)
            # A mapping of fields may have a field called `type`; only a node has text there.
            if isinstance(mapping.get("type"), str):
                return self._node(mapping, config)
            return {name: self.copy(child, config) for name, child in mapping.items()}
        if isinstance(part, list | tuple):
            children = cast("Iterable[Any]", part)
            copies = [self.copy(child, config) for child in children]
            return copies if isinstance(part, list) else tuple(copies)
        return part

    def _node(self, node: Node, config: Mapping[str, Any]) -> Node:
        # A model or dataclass does not inherit the config of what it stands in.
        inherited: Mapping[str, Any] = {} if node["type"] in {"model", "dataclass"} else config
        config = node.get("config") or inherited
        key = (id(node), config.get("allow_inf_nan"), config.get("extra_fields_behavior"))
        if key not in self._seen:
            self._seen[key] = self._copied(node, config)
        return self._seen[key]

    def _copied(self, node: Node, config: Mapping[str, Any]) -> Node:
        self._note(node)
        copy = {name: self.copy(value, config) if name in _CHILDREN else value for name, value in node.items()}
        return copy if config.get("allow_inf_nan") else _close(copy, config)

    def _note(self, node: Node) -> None:
        kind = node["type"]
        if kind == "generator":
            self._findings.lazy = True
        elif kind in _WITHOUT_JSON_SCHEMA:
            self._findings.may_lack_json_schema = True
        elif kind in {"model", "dataclass"}:
            self._findings.classes.add(node["cls"])
        if kind.startswith("function-") and inspect.iscoroutinefunction(validator := node["function"]["function"]):
            self._findings.async_validators.append(getattr(validator, "__qualname__", repr(validator)))


def _close(node: Node, config: Mapping[str, Any]) -> Node:
    """Close one copied node whose model does not ask for non-finite numbers."""
    kind = node["type"]
    if kind == "float":
        node.setdefault("allow_inf_nan", False)
    elif kind in {"any", "complex"}:
        return _finite_only(node)
    elif kind == "json":
        node.setdefault("schema", _finite_only({"type": "any"}))
    elif kind in _OPEN_CONTAINERS:
        node.setdefault(_OPEN_CONTAINERS[kind], _finite_only({"type": "any"}))
    elif kind in _WITH_EXTRAS and (node.get("extra_behavior") or config.get("extra_fields_behavior")) == "allow":
        node.setdefault("extras_schema", _finite_only({"type": "any"}))
    return node


def _finite_only(node: Node) -> Node:
    wrapped: Node = {"type": "function-after", "function": {"type": "no-info", "function": _finite}, "schema": node}
    if "ref" in node:
        wrapped["ref"] = node.pop("ref")
    return wrapped


def _finite(value: object) -> object:
    """Return `value` when no number in its lists and mappings is infinite or not a number."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, float | complex):
            if not (math.isfinite(item.real) and math.isfinite(item.imag)):
                raise PydanticCustomError("finite_number", "Input should be a finite number")
        elif isinstance(item, dict):
            stack.extend(cast("dict[object, object]", item).values())
        elif isinstance(item, list):
            stack.extend(cast("list[object]", item))
    return value


def build_validator(schema: CoreSchema, classes: set[type[Any]]) -> SchemaValidator:
    """Build one validator for all of `schema`, nested models included, whose errors do not show the input."""
    config = CoreConfig(hide_input_in_errors=True)
    try:
        return SchemaValidator(schema, config, _use_prebuilt=False)
    except TypeError:
        with _rebuilt(classes):
            return SchemaValidator(schema, config)


_rebuild_lock = threading.Lock()


@contextmanager
def _rebuilt(classes: set[type[Any]]) -> Generator[None]:
    """Keep pydantic-core from putting the ready validators of `classes` in place of their closed nodes.

    pydantic 2.11 does so for complete classes and has no switch yet. A class that calls itself incomplete for the
    blink of a build loses nothing: validation does not read the flag.
    """
    complete = [cls for cls in classes if cls.__dict__.get("__pydantic_complete__")]
    with _rebuild_lock:
        for cls in complete:
            cls.__pydantic_complete__ = False
        try:
            yield
        finally:
            for cls in complete:
                cls.__pydantic_complete__ = True
