"""A recorded answer beside a new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_jsonable_python

from llmflow.replay._compare import FieldState, compare

if TYPE_CHECKING:
    from llmflow.journal import RecordedAnswer
    from llmflow.messages import Result
    from llmflow.replay._judge import Judgement
    from llmflow.step import Unit

__all__ = ["Pair", "failed_pair", "new_pair", "same_pair"]

_FREE = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What was answered then, and what is answered now.

    Attributes:
        run_id: The recorded run, and with `key` the place of the answer in it.
        inputs: The arguments by name, as JSON has them.
        new_inputs: Those of the new answer, where they are others: in a whole run, behind an answer that is not as it was.
        recorded: The recorded answer as JSON has it.
        new: The new one; the recorded one where nothing was asked, None where it failed.
        asked: Whether a request was made for it. None is when prompt and model are those that gave the recorded answer.
        why: What is different from when it was recorded, where it was asked.
        fields: What became of each field; empty where the new answer failed.
        error: The class of what the new answer failed with, and `message` what that said.
        judgement: What the judge said of answers that differ.
        is_exact: Whether the inputs could be made into exactly what they were; not when one of their types has changed.
        recorded_cached: Whether the recorded answer came from a cache, so that its cost and latency say nothing.
        new_run_id: The run that the new answer belongs to.
    """

    run_id: str
    key: str
    step: str
    inputs: Any
    recorded: Any
    new: Any = None
    new_inputs: Any = None
    asked: bool = False
    why: str | None = None
    fields: Mapping[str, FieldState] = field(default_factory=dict[str, FieldState])
    error: str | None = None
    message: str | None = None
    judgement: Judgement | None = None
    is_exact: bool = True
    requests: int = 0
    cost_usd: Decimal | None = _FREE
    latency_s: float | None = None
    model: str | None = None
    prompt_version: str | None = None
    recorded_cost_usd: Decimal | None = None
    recorded_latency_s: float = 0.0
    recorded_cached: bool = False
    recorded_model: str | None = None
    recorded_prompt_version: str | None = None
    new_run_id: str | None = None

    @property
    def equal(self) -> bool:
        """Whether the new answer is there and equal in every field."""
        return self.error is None and all(state == "equal" for state in self.fields.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the pair as JSON can hold it."""
        judged = self.judgement
        return {
            "run_id": self.run_id,
            "key": self.key,
            "step": self.step,
            "inputs": self.inputs,
            "recorded": self.recorded,
            "new": self.new,
            "new_inputs": self.new_inputs,
            "equal": self.equal,
            "fields": dict(self.fields),
            "error": None if self.error is None else {"type": self.error, "message": self.message},
            "judged": None if judged is None else judged.verdict,
            "judge_score": None if judged is None else judged.score,
            "judge_error": None if judged is None else judged.error,
            "asked": self.asked,
            "why": self.why,
            "inputs_exact": self.is_exact,
            "requests": self.requests,
            "model": self.model,
            "recorded_model": self.recorded_model,
            "prompt_version": self.prompt_version,
            "recorded_prompt_version": self.recorded_prompt_version,
            "cost_usd": _usd(self.cost_usd),
            "recorded_cost_usd": _usd(self.recorded_cost_usd),
            "latency_s": None if self.latency_s is None else round(self.latency_s, 6),
            "recorded_latency_s": round(self.recorded_latency_s, 6),
            "recorded_cached": self.recorded_cached,
            "new_run_id": self.new_run_id,
        }


def same_pair(past: RecordedAnswer) -> Pair:
    """Return the pair of an answer that stands as it is."""
    answer = from_json(past.output or b"null")
    return Pair(
        **_then(past),
        new=answer,
        fields=compare(answer, answer),
        model=past.model,
        prompt_version=past.prompt_version,
    )


def new_pair(
    past: RecordedAnswer, unit: Unit[..., Any], result: Result[Any], why: str, judgement: Judgement | None = None
) -> Pair:
    """Return the pair of an answer that was asked anew."""
    then, new = _then(past), as_json(unit, result.value)
    return Pair(
        **then,
        new=new,
        asked=True,
        why=why,
        fields=compare(then["recorded"], new),
        judgement=judgement,
        requests=len(result.attempts),
        cost_usd=result.cost_usd,
        latency_s=result.latency_s,
        model=result.model,
        prompt_version=result.prompt_version,
        new_run_id=result.run_id,
    )


def failed_pair(past: RecordedAnswer, error: Exception, why: str, latency_s: float, version: str | None) -> Pair:
    """Return the pair of an answer that was asked anew, and did not come."""
    told: Any = error
    return Pair(
        **_then(past),
        asked=True,
        why=why,
        error=type(error).__name__,
        message=str(error),
        requests=len(getattr(told, "attempts", ())),
        cost_usd=getattr(told, "cost_usd", _FREE),
        latency_s=latency_s,
        prompt_version=version,
        new_run_id=getattr(told, "run_id", None),
    )


def as_json(unit: Unit[..., Any], value: object) -> Any:
    """Return an answer as the journal would have it."""
    data = None if unit.codec is None else unit.codec.dump(value)
    if data is not None:
        return from_json(data)
    return to_jsonable_python(value, by_alias=True, fallback=str, inf_nan_mode="strings")


def _then(past: RecordedAnswer) -> dict[str, Any]:
    return {
        "run_id": past.run_id,
        "key": past.key,
        "step": past.name,
        "inputs": from_json(past.inputs or b"null"),
        "recorded": from_json(past.output or b"null"),
        "recorded_cost_usd": past.cost_usd,
        "recorded_latency_s": past.latency_s,
        "recorded_cached": past.cached,
        "recorded_model": past.model,
        "recorded_prompt_version": past.prompt_version,
    }


def _usd(cost: Decimal | None) -> str | None:
    return None if cost is None else f"{cost:f}"
