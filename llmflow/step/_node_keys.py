"""Keys of the nodes of a run that no graph knows: calls as an eager flow or a task makes them, and items of maps."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from llmflow.step._arguments import fingerprint, item_fingerprint, own_of

if TYPE_CHECKING:
    from llmflow.context import Frame
    from llmflow.step._unit import Unit

__all__ = ["NodeKeys"]

_MARK = "?"
"""Stands behind a hash that does not tell what was hashed from others, as a part of that has no text of its own."""


class NodeKeys:
    """Gives keys, which tell what is asked and which of those that ask the same it is.

    What has no text of its own, such as a client, looks like any other of its kind. What is recorded under such a key may
    be another one's answer, so the key is marked and remembered: keys are never searched for the mark, as an author may
    write it into one.

    Args:
        inputs: What the run itself was given. Inside of it that is known by its name, whatever it is.
    """

    def __init__(self, inputs: Mapping[str, object]) -> None:
        self._inputs = inputs
        self._own: frozenset[int] | None = None
        self._occurrences: dict[str, int] = {}
        self._unknown: set[str] = set()
        self._lock = threading.Lock()

    def of_call(
        self, around: Frame, unit: Unit[..., Any], inputs: Mapping[str, object], given: str | None = None
    ) -> str:
        """Return the key of a call.

        Args:
            around: Where it is made.
            unit: What is called.
            inputs: Its arguments.
            given: What the author's `key=` says, when it is that of an item.
        """
        base = f"{around.node}/{unit.name}" if around.node else unit.name
        asked = {**inputs, **unit.said} if unit.said else inputs
        told = fingerprint(asked)
        if not told.is_whole and not given:
            told = fingerprint(asked, self._find_own())
        key = f"{base}{'' if given is None else f'[{given}]'}@{told.key}"
        return self._numbered(key, is_known=told.is_whole or bool(given))

    def _find_own(self) -> frozenset[int]:
        if self._own is None:
            self._own = own_of(self._inputs)
        return self._own

    def of_item(self, base: str, item: object, given: str | None) -> str:
        """Return the key of one item of a map whose key a graph knows; asked for in the order the items are read in.

        Args:
            base: The key of the map.
            item: The item itself.
            given: What the author's `key=` says.
        """
        if given:
            return self._numbered(f"{base}[{given}]")
        told = item_fingerprint(item)
        return self._numbered(f"{base}[{told.key}]", is_known=told.is_whole)

    def _numbered(self, key: str, *, is_known: bool = True) -> str:
        base = key if is_known else key + _MARK
        with self._lock:
            number = self._occurrences[base] = self._occurrences.get(base, 0) + 1
            made = base if number == 1 else f"{base}#{number}"
            if not is_known:
                self._unknown.add(made)
        return made

    def may_be_another(self, key: str) -> bool:
        """Whether what is recorded of a node may be another one's: its key, or that of one around it, is marked."""
        if not self._unknown:
            return False
        paths = accumulate(key.split("/"), "{}/{}".format)
        return any(path in self._unknown for path in paths)
