"""Frozen records, and a quick way to make them.

A frozen dataclass assigns each field through `object.__setattr__`; the dozen records of a call would cost as much as
the rest of it together. `quick(Record)` returns a constructor that fills a mutable twin with the same slots and then
changes the object's class to the frozen one, at a third of the price. What it makes is an ordinary `Record`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from types import new_class
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from dataclasses import Field

__all__ = ["quick"]

P = ParamSpec("P")
T = TypeVar("T")


def quick(record: Callable[P, T], /) -> Callable[P, T]:
    """Return a constructor like `record` itself, for the places that every call goes through.

    Args:
        record: A class made by `dataclass(frozen=True, slots=True, kw_only=True)`, without `__post_init__`.
    """
    cls: Any = record

    def become_frozen(self: Any) -> None:
        self.__class__ = cls

    def fill(namespace: dict[str, Any]) -> None:
        namespace["__annotations__"] = {one.name: one.type for one in fields(cls)}
        namespace["__module__"] = cls.__module__
        namespace["__post_init__"] = become_frozen
        namespace.update({one.name: _default(one) for one in fields(cls) if _default(one) is not MISSING})

    bases = getattr(cls, "__orig_bases__", cls.__bases__)
    twin: type[Any] = new_class(cls.__name__, bases, {}, fill)
    return cast("Callable[P, T]", dataclass(slots=True, kw_only=True)(twin))


def _default(one: Field[Any]) -> Any:
    if one.default_factory is not MISSING:
        msg = f"field {one.name!r} has a default_factory, which the quick constructor does not know"
        raise TypeError(msg)
    return one.default
