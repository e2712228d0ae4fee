"""Values as JSON and back: what a run keeps, to be taken up again."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, cast

from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticUserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Codec", "codec_of", "why_no_codec"]

_KEEPS_BYTES = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings")
_PLAIN = frozenset({str, int, bool, type(None)})
_Way = dict[str, Any]
_BY_ALIAS: tuple[_Way, _Way] = ({"by_alias": True}, {})
_BY_NAME: tuple[_Way, _Way] = ({"by_alias": False}, {"by_alias": False, "by_name": True})
"""For models whose aliases differ for reading and writing; pydantic before 2.11 does not know it."""


class Codec:
    """Turns the values of one type into JSON, and that into equal values.

    Args:
        adapter: Of the type.
        validate_json: What reads; the adapter's own unless given.
        careful: Whether a value is compared in every part with what is read back. It need not be when all values come
            from reading JSON in the first place: then those that are equal are the same.
    """

    def __init__(
        self,
        adapter: TypeAdapter[Any],
        validate_json: Callable[..., Any] | None = None,
        *,
        careful: bool = False,
    ) -> None:
        self._to_json = adapter.serializer.to_json
        self._read = validate_json or adapter.validator.validate_json
        self._careful = careful
        self._way: tuple[_Way, _Way] | None = None

    def dump(self, value: Any) -> bytes | None:
        """Return a value as JSON, None when what could be read from that would not be equal to it."""
        for way in (self._way,) if self._way is not None else (_BY_ALIAS, _BY_NAME):
            if (data := self._kept(value, way)) is not None:
                self._way = way
                return data
        return None

    def load(self, data: bytes) -> Any:
        """Return the value of what `dump` returned, also in another process.

        Raises:
            ValueError: When it no longer fits the type.
        """
        error: ValueError | None = None
        for way in (self._way,) if self._way is not None else (_BY_ALIAS, _BY_NAME):
            try:
                return self._read(data, **way[1])
            except Exception as exc:  # noqa: BLE001  # an author's own validator may raise anything
                if error is None:
                    error = ValueError(str(exc))
                    error.__cause__ = exc
        assert error is not None
        raise error

    def _kept(self, value: Any, way: tuple[_Way, _Way]) -> bytes | None:
        data = self._written(value, way[0])
        if data is None:
            return None
        try:
            again = self._read(data, **way[1])
        except Exception:  # noqa: BLE001  # an author's own validator may raise anything
            return None
        if not self._careful and type(value) is type(again) and _is_equal(value, again):
            return data
        return data if _same(value, again) else None

    def _written(self, value: Any, options: Mapping[str, Any]) -> bytes | None:
        try:
            return self._to_json(value, round_trip=True, warnings=False, **options)
        except Exception:  # noqa: BLE001  # nor need an author's own serializer know every value
            return None


def codec_of(annotation: Any) -> Codec | None:
    """Return the codec of any type that pydantic knows, None for one that it does not know."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=_KEEPS_BYTES)
            except PydanticUserError:  # a type with a configuration of its own
                adapter = TypeAdapter(annotation)
            return Codec(adapter, careful=True)
    except (PydanticUserError, NameError, TypeError, RecursionError):
        return None


def why_no_codec(annotation: Any) -> str:
    """Return the reason for which a type has no codec, in the words of pydantic, for people to read."""
    try:
        TypeAdapter(annotation)
    except Exception as exc:  # noqa: BLE001  # whatever it is, it is the reason
        return str(exc).partition("\n")[0].partition(". ")[0].rstrip(".")
    return "no reason given"


def _same(value: Any, again: Any) -> bool:
    """Whether two values are the same in every part: an enum in a list is not the text that it equals, nor 1 True."""
    if type(value) is not type(again):
        return False
    if isinstance(value, list) and _is_plain(cast("list[object]", value), again):
        return True
    parts = _parts(value)
    if parts is None:
        return _is_same_leaf(value, again)
    other = _parts(again) or []
    return len(parts) == len(other) and all(map(_same, parts, other))


def _parts(value: Any) -> list[Any] | None:
    """Return what a value consists of, None for what has no parts."""
    if isinstance(value, dict):
        named = cast("Mapping[object, Any]", value)
        return [*named.keys(), *named.values()]
    if isinstance(value, list | tuple):
        return list(cast("Sequence[Any]", value))
    if hasattr(value, "__pydantic_fields__") and not is_dataclass(value):
        fields: Mapping[str, Any] = getattr(cast("object", type(value)), "__pydantic_fields__", {})
        private = getattr(value, "__pydantic_private__", None)
        return [*(value.__dict__.get(name) for name in fields), value.__pydantic_extra__, private]
    if is_dataclass(value):
        return [getattr(value, one.name, None) for one in dataclass_fields(value)]
    return None


def _is_plain(value: list[Any], again: list[Any]) -> bool:
    """Whether two lists hold the same texts, numbers and the like; what is quickly found out of long ones."""
    kinds = list(map(type, value))
    return _PLAIN.issuperset(kinds) and kinds == list(map(type, again)) and value == again


def _is_same_leaf(value: Any, again: Any) -> bool:
    if isinstance(value, float):
        return repr(value) == repr(again)  # NaN equals nothing, and -0.0 equals 0.0
    return _is_equal(value, again) and _kinds(value) == _kinds(again)


def _is_equal(value: Any, again: Any) -> bool:
    try:
        return bool(value == again)
    except Exception:  # noqa: BLE001  # an author's own __eq__ may raise anything, as that of an array does
        return False


def _kinds(value: Any) -> object:
    """Return the members of a set with their types, which have no order to be compared in."""
    if not isinstance(value, set | frozenset):
        return None
    members: set[Any] = cast("set[Any]", value)
    return {(cast("Any", type(one)), one) for one in members}
