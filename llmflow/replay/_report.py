"""What a replay came to: how many answers agree, what they cost and how long they took, then and now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmflow.replay._compare import FieldState
    from llmflow.replay._judge import Verdict
    from llmflow.replay._pair import Pair

__all__ = ["Agreement", "Figures", "Report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How often one field is as it was."""

    equal: int = 0
    different: int = 0
    missing: int = 0
    added: int = 0

    @property
    def total(self) -> int:
        """How many answers have the field, then or now."""
        return self.equal + self.different + self.missing + self.added


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the answers that were asked anew took, either then or now.

    Attributes:
        answers: Of how many answers the latency is known; answers from a cache and failures are not among them.
        priced: Of how many calls the cost is known.
        unpriced: Of how many it is not.
        cost_usd: Of those whose cost is known.
    """

    answers: int = 0
    priced: int = 0
    unpriced: int = 0
    cost_usd: Decimal = Decimal(0)
    p50_s: float | None = None
    p95_s: float | None = None

    @property
    def cost_each_usd(self) -> Decimal | None:
        """What a call costs on average, None when that is known of none."""
        return self.cost_usd / self.priced if self.priced else None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON can hold them."""
        each = self.cost_each_usd
        return {
            "answers": self.answers,
            "priced": self.priced,
            "unpriced": self.unpriced,
            "cost_usd": f"{self.cost_usd:f}",
            "cost_each_usd": None if each is None else f"{each:f}",
            "p50_s": self.p50_s,
            "p95_s": self.p95_s,
        }


@dataclass(frozen=True, kw_only=True)
class Report:
    """Recorded answers beside new ones.

    Attributes:
        pairs: In the order the new answers came.
        skipped: How many recorded answers could not be played again, by why.
    """

    pairs: Sequence[Pair] = ()
    skipped: Mapping[str, int] = field(default_factory=dict[str, int])

    @cached_property
    def asked(self) -> tuple[Pair, ...]:
        """Those that were asked anew; the others stand as recorded."""
        return tuple(one for one in self.pairs if one.asked)

    @cached_property
    def equal(self) -> int:
        """How many answers are equal in every field."""
        return sum(one.equal for one in self.pairs)

    @cached_property
    def failed(self) -> Mapping[str, int]:
        """How many new answers failed, by the class of the failure."""
        return Counter(one.error for one in self.pairs if one.error is not None)

    @property
    def valid(self) -> int:
        """How many new answers there are."""
        return len(self.pairs) - self.failed_count

    @property
    def failed_count(self) -> int:
        """How many new answers failed that were valid when they were recorded."""
        return sum(self.failed.values())

    @property
    def acceptable(self) -> int:
        """How many answers are equal, or were judged to be as good or better."""
        return self.equal + self.judged.get("same", 0) + self.judged.get("better", 0)

    @property
    def agreement(self) -> float | None:
        """What part of the answers is acceptable, from 0 to 1; None when there are none."""
        return self.acceptable / len(self.pairs) if self.pairs else None

    @cached_property
    def fields(self) -> Mapping[str, Agreement]:
        """How often each field agrees, those that agree least first; where there are several steps, behind their names."""
        several = len({pair.step for pair in self.pairs}) > 1
        counts: dict[str, Counter[FieldState]] = {}
        for pair in self.pairs:
            for path, state in pair.fields.items():
                counts.setdefault(f"{pair.step}: {path}" if several else path, Counter())[state] += 1
        made = {path: _agreement(count) for path, count in counts.items()}
        return dict(sorted(made.items(), key=lambda one: one[1].equal - one[1].total))

    @cached_property
    def judged(self) -> Mapping[Verdict, int]:
        """How many of the answers that differ the judge found better, the same or worse."""
        return Counter(one.judgement.verdict for one in self.pairs if one.judgement and one.judgement.verdict)

    @cached_property
    def unjudged(self) -> Mapping[str, int]:
        """How often the judge gave no verdict, by why."""
        return Counter(one.judgement.error for one in self.pairs if one.judgement and one.judgement.error)

    @property
    def judge_score(self) -> float | None:
        """The mean of the numbers that the judge gave, None when it gave none."""
        scores = [one.judgement.score for one in self.pairs if one.judgement and one.judgement.score is not None]
        return sum(scores) / len(scores) if scores else None

    @property
    def requests(self) -> int:
        """How many requests were sent for new answers."""
        return sum(one.requests for one in self.pairs)

    @cached_property
    def then(self) -> Figures:
        """What the answers that were asked anew took when they were recorded."""
        known = [one for one in self.asked if not one.recorded_cached]
        return _figures((one.recorded_cost_usd for one in known), (one.recorded_latency_s for one in known))

    @cached_property
    def now(self) -> Figures:
        """What they took now."""
        valid = (one.latency_s for one in self.asked if one.error is None)
        return _figures((one.cost_usd for one in self.asked), (one for one in valid if one is not None))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it, without the pairs."""
        return {
            "answers": len(self.pairs),
            "asked": len(self.asked),
            "equal": self.equal,
            "acceptable": self.acceptable,
            "agreement": self.agreement,
            "valid": self.valid,
            "failed": dict(self.failed),
            "skipped": dict(self.skipped),
            "requests": self.requests,
            "fields": {
                path: {"equal": one.equal, "different": one.different, "missing": one.missing, "added": one.added}
                for path, one in self.fields.items()
            },
            "judged": dict(self.judged),
            "judge_score": self.judge_score,
            "judge_failed": dict(self.unjudged),
            "then": self.then.to_dict(),
            "now": self.now.to_dict(),
        }


def _agreement(count: Counter[FieldState]) -> Agreement:
    return Agreement(equal=count["equal"], different=count["different"], missing=count["missing"], added=count["added"])


def _figures(costs: Iterable[Decimal | None], latencies: Iterable[float]) -> Figures:
    paid, taken = list(costs), sorted(latencies)
    known = [one for one in paid if one is not None]
    return Figures(
        answers=len(taken),
        priced=len(known),
        unpriced=len(paid) - len(known),
        cost_usd=sum(known, Decimal(0)),
        p50_s=_ranked(taken, 50),
        p95_s=_ranked(taken, 95),
    )


def _ranked(ordered: Sequence[float], percent: int) -> float | None:
    """Return the value of the nearest rank, as all reports have it."""
    return ordered[-(-len(ordered) * percent // 100) - 1] if ordered else None
