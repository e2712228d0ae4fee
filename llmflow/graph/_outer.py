"""What a flow's body uses but did not make."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["outer_objects"]


def outer_objects(function: Callable[..., Any]) -> frozenset[int]:
    """Return the ids of the objects that the body reaches by name from outside: globals, closures, and what they hold.

    The ids are good for as long as the function is, as it keeps the objects alive; they are used while it is traced.
    """
    seen = inspect.getclosurevars(inspect.unwrap(function))
    named = [*seen.globals.values(), *seen.nonlocals.values()]
    held = [value for one in named for value in getattr(one, "__dict__", {}).values()]
    return frozenset(map(id, (*named, *held)))
