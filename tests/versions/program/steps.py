"""Steps whose versions are known, so that no Python, pydantic or machine may change them.

Run as a program it prints the versions as JSON.
"""

from __future__ import annotations

import functools
import json
import os.path
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Annotated, Literal, Optional

import wordings
from pydantic import BaseModel, Field
from wordings import INTRO as OPENING
from wordings import tone

from llmflow import prompt, step


class Urgency(Enum):
    """How soon."""

    now = "now"
    later = "later"


class Line(BaseModel):
    """One line of an order."""

    article: Annotated[str, Field(min_length=1, max_length=40)]
    price: Decimal = Field(ge=0, description="In euros.")
    parts: list[Line] = []


class Order(BaseModel):
    category: Literal["billing", "bug", "other"]
    urgency: Urgency = Urgency.later
    lines: list[Line]
    note: Optional[str] = None  # noqa: UP045  # both spellings are one
    ratio: float = Field(gt=0, lt=1)
    extra: dict[str, int] | None = None


@dataclass(frozen=True)
class Style:
    """A constant that is an object."""

    words: int = 3
    mood: str = "calm"

    def describe(self) -> str:
        """Say it."""
        return f"{self.mood}, {self.words} words"


STYLE = Style(words=5)
CHOICES = Literal["a", "b"]


def short(value, inputs):
    """Check an answer."""
    if len(value.lines) > wordings.LIMITS["words"]:
        raise ValueError("too long")


@functools.cache
def even(number):
    return number == 0 or odd(number - 1)


def odd(number):
    return number != 0 and even(number - 1)


@step("acme/one")
def documented(message: str) -> str:
    """Classify this: {{ message }}"""


@step(
    "acme/one",
    system="Speak as {{ message }} does.",
    examples=[("hello", {"category": "bug", "lines": [{"article": "a", "price": "1.50"}], "ratio": 0.5})],
    checks=[short, lambda value, inputs: None],
    params={"temperature": 0.2, "stop": ["END"], "max_tokens": 10},
)
def full(message: str) -> Order:
    """Read the order: {{ message }}"""
    if not message:
        message = "nothing"
    return prompt()


@step("acme/one")
def written(message: str, loud: "bool" = False) -> list[Urgency]:
    words = [tone(word, loud=loud) for word in message.split() if (seen := word) and even(len(seen))]
    match words:
        case [first, *_] if first:
            start: str = first
        case _:
            start = OPENING
    try:
        rest = {key: value for key, value in wordings.LIMITS.items()}
    except (KeyError, TypeError) as error:
        rest = error
    return prompt(
        f"{OPENING} {start!s} {rest} {STYLE.describe()} {wordings.HERE.name} {Urgency.now.value} {CHOICES} "
        f"{wordings.greeting(message)} {os.path.join('a', 'b')} {message=} {'nested ' + f'{loud:<5}'}",
        system="""Two
lines.""",
    )


class Desk:
    """Steps may be methods."""

    RULE = "Never promise."

    def rules(self, name: str) -> str:
        return f"{name}: {self.RULE}"

    @step("acme/one")
    def answer(self, message: str) -> tuple[int, str]:
        return prompt(self.rules(message))


def versions() -> dict[str, str]:
    """Return the versions of all steps by name."""
    return {one.name: one.prompt_version for one in (documented, full, written, Desk.answer)}


if __name__ == "__main__":
    print(json.dumps(versions()))
