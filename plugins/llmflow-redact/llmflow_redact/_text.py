"""What is taken for an address or a number, and what stands in its place.

Every expression is linear: a match can only begin where a word does, repetitions are bounded or possessive, and no two
ways of matching the same text overlap. Ten megabytes of `a` or `1-` take as long as ten megabytes of prose.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from llmflow import Message

__all__ = ["redacted", "redacted_turn"]

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)++")

# 13 to 19 digits in one piece, in fours, or as American Express prints them. Other groupings are dates and order
# numbers more often than cards.
_CARD = re.compile(r"(?<![\w-])(?:\d{13,19}|\d{4}(?:[ -]\d{4}){2}[ -]\d{1,7}|\d{4}[ -]\d{6}[ -]\d{5})(?![\w-])")

# International; national with a leading 0 and an area code of three digits or more, which keeps dates such as
# 01.02.2026 out; North American.
_PHONE = re.compile(
    r"(?<![\w.+-])(?:\+\d(?:[ ().-]{0,2}\d){6,14}|\(?0\d{2,4}\)?(?:[ /-]?\d){6,10}|\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4})(?!\w)"
)

_PLACEHOLDERS = ((_EMAIL, "[EMAIL]"), (_CARD, "[CARD]"), (_PHONE, "[PHONE]"))


def redacted(text: str) -> str:
    """Return `text` with placeholders for what must not be sent."""
    for pattern, placeholder in _PLACEHOLDERS:
        text = pattern.sub(placeholder, text)
    return text


def redacted_turn(turn: object) -> object:
    """Return a turn of a re-ask, a message or whatever form the provider gave it, with placeholders in its texts.

    Identifiers stay as they are: a provider matches them with those it gave.
    """
    if isinstance(turn, str):
        return redacted(turn)
    if isinstance(turn, Message):
        return replace(turn, content=redacted(turn.content))
    if isinstance(turn, Mapping):
        fields = cast("Mapping[str, object]", turn)
        return {name: one if name.endswith("id") else redacted_turn(one) for name, one in fields.items()}
    if isinstance(turn, list):
        return [redacted_turn(one) for one in cast("list[object]", turn)]
    return turn
