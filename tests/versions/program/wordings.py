"""Texts and helpers of the program whose versions are known."""

from pathlib import Path

INTRO = "You are kind, and short."
HERE = Path(__file__).parent / "notes"
LIMITS = {"words": 20, "ratio": 0.1, "tags": {"b", "a", "c"}, "deep": [(1, None), (b"x", True)]}


def tone(text: str, *, loud: bool = False) -> str:
    """Say it."""
    return text.upper() if loud else f"{INTRO!r:>{LIMITS['words']}} {text}"


def shout(function):
    """Decorate a function of the program with another one of it."""

    def wrapper(text):
        return function(text).upper() + "!"

    return wrapper


@shout
def greeting(text):
    """Be decorated."""
    return f"Hello {text}"
