"""Repair: mend an answer that does not fit, or ask again with what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from llmflow.errors import InvalidOutput
from llmflow.messages import Message
from llmflow.policy import Band, CallLayer, Options, Site, check_count

if TYPE_CHECKING:
    from llmflow.messages import Answer, Ask

__all__ = ["Repair"]


@dataclass(frozen=True, slots=True)
class Repair(Options):
    """Mends an answer that does not fit the step's type, first without asking, then by asking again.

    A code fence, prose around the JSON, a byte order mark and JSON inside a JSON string are mended in place; that
    costs nothing and is recorded as `Result.repaired`. What remains wrong is told to the model, together with its
    answer, at most `reasks` times. Retries of a re-ask do not use up re-asks. With `Repair.off` neither is done.

    Args:
        reasks: How many times the model is asked again for one call.
    """

    reasks: int = 2

    band: ClassVar[Band] = Band.REPAIR

    def __post_init__(self) -> None:
        check_count(self.reasks, name="Repair: reasks", minimum=0)

    def wrap(self, proceed: CallLayer, site: Site, /) -> CallLayer:  # noqa: ARG002  # re-asks need no more than the ask
        """Return `proceed` with re-asks round it."""
        reasks = self.reasks

        async def repair(ask: Ask) -> Answer:
            left = reasks
            while True:
                try:
                    return await proceed(ask)
                except InvalidOutput as error:
                    if left == 0 or not error.reaskable:
                        raise
                    turns = _turns(error)
                left -= 1
                ask.call.reasks += 1
                ask = replace(ask, turns=(*ask.turns, *turns))

        return repair


def _turns(error: InvalidOutput) -> Sequence[object]:
    """Return the turns that show the model its answer and what is wrong with it, in the provider's own form."""
    problem = "; ".join(error.problems) or str(error)
    if error.reply is not None and error.reply.reask is not None:
        return error.reply.reask(problem)
    correction = Message(
        "user", f"That answer is not valid: {problem}\nAnswer again, with the whole corrected answer only."
    )
    if not error.text:
        return (correction,)
    return (Message("assistant", error.text), correction)
