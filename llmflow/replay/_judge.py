"""Asking somebody which of two answers is better."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, TypeAlias, cast, get_args

from llmflow.errors import DefinitionError
from llmflow.step import Unit

__all__ = ["Judge", "Judgement", "Verdict", "check_judge", "judge"]

Verdict: TypeAlias = Literal["better", "same", "worse"]
Judge: TypeAlias = Callable[[Mapping[str, object], Any, Any], object | Awaitable[object]]
"""Given the inputs by name, the recorded answer and the new one, says how good the new one is; a step is one too."""

_VERDICTS = get_args(Verdict)
_EVEN = 0.5
_EXPECTED = "True or False, a number from 0 to 1, or 'better', 'same' or 'worse'"
_FREE = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a judge said of two answers that differ.

    Attributes:
        verdict: Of the new answer; None when the judge failed.
        score: The number that it gave, if it gave one: 0.5 for answers that are as good as each other.
        error: Why there is no verdict.
        cost_usd: What the judge cost, where it is a step.
    """

    verdict: Verdict | None = None
    score: float | None = None
    error: str | None = None
    cost_usd: Decimal | None = _FREE


def check_judge(who: Judge) -> None:
    """Refuse a judge that cannot be asked, before anything is paid for that it would judge.

    Raises:
        DefinitionError: Saying what a judge looks like.
    """
    try:
        signature = inspect.signature(who)
    except (TypeError, ValueError):  # of something built in, which says nothing about itself
        return
    try:
        signature.bind({}, None, None)
    except TypeError as exc:
        name = getattr(who, "__name__", None) or repr(who)
        msg = f"judge {name}{signature} cannot be asked: {exc}; it is given the inputs by name, the recorded answer and the new one"
        error = DefinitionError(msg)
        error.add_note(f"Write it as: def {name}(inputs, recorded, new): ...")
        raise error from exc


async def judge(who: Judge, inputs: Mapping[str, object], recorded: object, new: object) -> Judgement:
    """Return what a judge says; one that fails, or says something else, gives no verdict.

    Raises:
        DefinitionError: For a judge that is wrong in itself.
    """
    cost: Decimal | None = _FREE
    try:
        if isinstance(who, Unit):
            result: Any = await cast("Unit[..., Any]", who).run(dict(inputs), recorded, new)
            said, cost = result.value, result.cost_usd
        else:
            said = who(inputs, recorded, new)
            if inspect.isawaitable(said):
                said = await said
    except DefinitionError:
        raise
    except Exception as exc:  # noqa: BLE001  # the author's own function; the answers are there without it
        return Judgement(error=f"{type(exc).__name__}: {exc}", cost_usd=getattr(exc, "cost_usd", _FREE))
    return _read(said.value if isinstance(said, Enum) else said, cost)


def _read(said: object, cost: Decimal | None) -> Judgement:
    if isinstance(said, bool):
        return Judgement(verdict="same" if said else "worse", cost_usd=cost)
    if isinstance(said, int | float) and 0 <= said <= 1:
        verdict: Verdict = "same" if said == _EVEN else "better" if said > _EVEN else "worse"
        return Judgement(verdict=verdict, score=float(said), cost_usd=cost)
    if isinstance(said, str) and (word := said.strip().lower()) in _VERDICTS:
        return Judgement(verdict=cast("Verdict", word), cost_usd=cost)
    shown = repr(said)
    return Judgement(error=f"it said {shown[:80]}, expected {_EXPECTED}", cost_usd=cost)
