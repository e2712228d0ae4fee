"""Values as JSON and back: what a run keeps, to be taken up again."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError, ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Codec", "codec_of"]

_KEEPS_BYTES = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings")
_Way = dict[str, Any]
_BY_ALIAS: tuple[_Way, _Way] = ({"by_alias": True}, {})
_BY_NAME: tuple[_Way, _Way] = ({"by_alias": False}, {"by_alias": False, "by_name": True})
"""For models whose aliases differ for reading and writing; pydantic before 2.11 does not know it."""


class Codec:
    """Turns the values of one type into JSON, and that into equal values.

    Args:
        adapter: Of the type.
        validate_json: What reads; the adapter's own unless given.
        careful: Whether every value is read back before it is said to be kept. It need not be when all values come from
            reading JSON in the first place; then the first one shows whether the type can be kept.
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
        if self._way is not None and not self._careful:
            return self._written(value, self._way[0])
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
            except (ValidationError, TypeError) as exc:
                error = error or ValueError(str(exc))
        assert error is not None
        raise error

    def _kept(self, value: Any, way: tuple[_Way, _Way]) -> bytes | None:
        data = self._written(value, way[0])
        if data is None:
            return None
        try:
            again = self._read(data, **way[1])
        except (ValidationError, TypeError):
            return None
        return data if _same(value, again) else None

    def _written(self, value: Any, options: Mapping[str, Any]) -> bytes | None:
        try:
            return self._to_json(value, round_trip=True, warnings=False, **options)
        except (PydanticSerializationError, UnicodeEncodeError, RecursionError):
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


def _same(value: Any, again: Any) -> bool:
    """Whether two values are equal and of one type; NaN, which equals nothing, is compared by what it looks like."""
    if type(value) is not type(again):
        return False
    try:
        return bool(value == again) or repr(value) == repr(again)
    except Exception:  # noqa: BLE001  # an author's own __eq__ may raise anything, as that of an array does
        return False
