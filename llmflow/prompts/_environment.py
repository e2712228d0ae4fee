"""The one Jinja2 environment of all templates. Importing this module imports jinja2."""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Any

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel
from pydantic_core import to_json

__all__ = ["make_environment"]


def make_environment() -> ImmutableSandboxedEnvironment:
    """Make the sandbox: no loader, no escaping, nothing undefined, values written for a model to read."""
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        autoescape=False,
        finalize=_written,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Jinja's own escapes <, > and & for HTML.
    environment.filters["tojson"] = _as_json
    for name in ("lipsum", "cycler", "joiner"):
        environment.globals.pop(name, None)
    return environment


def _written(value: Any) -> Any:
    """Return what stands in the prompt for a value."""
    if isinstance(value, str | int | float) and not isinstance(value, Enum):
        return value
    if value is None:
        return ""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, BaseModel | list | tuple | dict | set | frozenset) or _is_dataclass(value):
        return _as_json(value)
    return value


def _is_dataclass(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _as_json(value: Any, indent: int | None = None) -> str:
    return to_json(value, indent=indent, by_alias=True, serialize_unknown=True, inf_nan_mode="strings").decode()
