"""Placeholders: what stands for a value while a flow is traced and the value is not there yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, TypeGuard

from llmflow.graph._access import Unfit, field_type, item_type
from llmflow.graph._fields import fixed_items
from llmflow.graph._paths import descend

if TYPE_CHECKING:
    from llmflow.graph._ir import Operand
    from llmflow.graph._trace import Trace

__all__ = ["Placeholder", "State", "is_placeholder", "state_of"]


@dataclass(frozen=True, slots=True)
class State:
    """What is known about a value before it is there.

    Attributes:
        trace: The trace it belongs to; nowhere else it means anything.
        operand: Where the value will come from.
        annotation: Its type.
        producer: Who gives it, for errors: `step 'triage' (app.py:12)`.
        path: What was read of it, for errors: `.category`.
    """

    trace: Trace
    operand: Operand
    annotation: Any
    producer: str
    path: str = ""

    def inside(self, kind: Literal["attr", "item"], key: Any, annotation: Any) -> State:
        """Return the state of something inside this value."""
        path = self.path + (f".{key}" if kind == "attr" else f"[{key!r}]")
        return State(self.trace, descend(self.operand, (kind, key)), annotation, self.producer, path)

    @property
    def label(self) -> str:
        """What to call the value in errors: `.category of step 'triage' (app.py:12)`."""
        return f"{self.path} of {self.producer}" if self.path else f"the value of {self.producer}"


class Placeholder:
    """A value that is only known when the flow runs.

    Its fields, properties and constant items are placeholders again. Whatever else is done with it, by the author or
    by a library, raises a DefinitionError that names the line.
    """

    __slots__ = ("_llmflow_state",)

    def __init__(self, state: State) -> None:
        _STATE.__set__(self, state)

    def __getattr__(self, name: str) -> Placeholder:
        return _inside(self, "attr", name, field_type)

    def __getitem__(self, key: object) -> Placeholder:
        state = _live(self)
        if is_placeholder(key):
            raise state.trace.refuse("looking something up by a key that is not known yet", state)
        return _inside(self, "item", key, item_type)

    def __iter__(self) -> Iterator[Placeholder]:
        state = _live(self)
        items = fixed_items(state.annotation)
        if items is None:
            raise state.trace.refuse("iterating or unpacking", state)
        return iter([Placeholder(state.inside("item", index, kind)) for index, kind in enumerate(items)])

    def __len__(self) -> int:
        state = _live(self)
        items = fixed_items(state.annotation)
        if items is None:
            raise state.trace.refuse("len()", state)
        return len(items)

    @property
    def __class__(self) -> Any:
        """Raise: this is how `isinstance` finds out what it was given."""
        _refuse(self, "isinstance()")

    @__class__.setter
    def __class__(self, value: object) -> NoReturn:
        _refuse(self, "setting its class")

    __hash__: ClassVar[Any]  # set below, with the others that raise


_STATE: Any = Placeholder.__dict__["_llmflow_state"]


def is_placeholder(value: object) -> TypeGuard[Placeholder]:
    """Whether a value is a placeholder; `isinstance` would be refused by the ones it is asked about."""
    return type(value) is Placeholder


def state_of(placeholder: Placeholder) -> State:
    """Return what is known about a placeholder's value."""
    return _STATE.__get__(placeholder)  # type: ignore[no-any-return]


def _live(placeholder: Placeholder) -> State:
    state = state_of(placeholder)
    state.trace.check_live(state)
    return state


def _inside(
    placeholder: Placeholder, kind: Literal["attr", "item"], key: Any, look: Callable[[Any, Any], Any]
) -> Placeholder:
    state = _live(placeholder)
    try:
        return Placeholder(state.inside(kind, key, look(state.annotation, key)))
    except Unfit as why:
        raise state.trace.misfit(str(why), state) from None


def _refuse(placeholder: Placeholder, attempted: str) -> NoReturn:
    state = _live(placeholder)
    raise state.trace.refuse(attempted, state)


_UNARY = {
    "__bool__": "a decision (if, while, and, or, not)",
    "__str__": "formatting",
    "__repr__": "formatting",
    "__format__": "formatting (an f-string or format())",
    "__bytes__": "formatting",
    "__fspath__": "using it as a path",
    "__hash__": "hashing (a dict key or a set member)",
    "__call__": "calling it",
    "__contains__": "`in`",
    "__reversed__": "iterating",
    "__next__": "iterating",
    "__aiter__": "`async for`",
    "__anext__": "`async for`",
    "__await__": "awaiting it again (the value was awaited before)",
    "__enter__": "`with`",
    "__exit__": "`with`",
    "__aenter__": "`async with`",
    "__aexit__": "`async with`",
    "__setattr__": "changing it",
    "__delattr__": "changing it",
    "__setitem__": "changing it",
    "__delitem__": "changing it",
    "__copy__": "copying",
    "__deepcopy__": "copying",
    "__reduce__": "pickling",
    "__reduce_ex__": "pickling",
    "__instancecheck__": "isinstance()",
    "__subclasscheck__": "issubclass()",
    "__int__": "conversion to a number",
    "__float__": "conversion to a number",
    "__complex__": "conversion to a number",
    "__index__": "using it as a number",
    "__round__": "rounding",
    "__trunc__": "rounding",
    "__floor__": "rounding",
    "__ceil__": "rounding",
    "__dir__": "dir()",
}
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_ARITHMETIC = (
    "add",
    "sub",
    "mul",
    "matmul",
    "truediv",
    "floordiv",
    "mod",
    "divmod",
    "pow",
    "lshift",
    "rshift",
    "and",
    "or",
    "xor",
)


def _refusing(attempted: str) -> Callable[..., NoReturn]:
    def refuse(self: Placeholder, *_: object, **__: object) -> NoReturn:
        _refuse(self, attempted)

    return refuse


def _refuse_everything_else() -> None:
    for name, attempted in _UNARY.items():
        setattr(Placeholder, name, _refusing(attempted))
    for name in _COMPARISONS:
        setattr(Placeholder, f"__{name}__", _refusing("a comparison"))
    for name in _ARITHMETIC:
        for form in (f"__{name}__", f"__r{name}__", f"__i{name}__"):
            setattr(Placeholder, form, _refusing("an operator"))
    for name in ("neg", "pos", "abs", "invert"):
        setattr(Placeholder, f"__{name}__", _refusing("an operator"))


_refuse_everything_else()
