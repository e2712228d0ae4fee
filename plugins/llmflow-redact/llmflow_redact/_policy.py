"""The policy: what leaves is redacted, what comes back is not touched."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from llmflow import Band, Site
from llmflow.policy import Options, RequestLayer
from llmflow_redact._text import redacted, redacted_turn

if TYPE_CHECKING:
    from llmflow import Reply, Request

__all__ = ["Redact"]


@dataclass(frozen=True, slots=True)
class Redact(Options):
    """Replaces e-mail addresses, phone numbers and card numbers in whatever a request says by placeholders."""

    # The outermost of the request layers. Further out, among the call layers, re-asks would slip through: Repair adds
    # their turns further in, and a check's text may quote the very address that was kept out of the first ask. Further
    # in, the same text would be searched again for every retry, and budgets and rate limits would count tokens that
    # are never sent. The cache stands outside, so two customers whose texts differ by an address alone never share an
    # answer. System text and few-shot turns are redacted like the rest: examples are often real past cases.
    band: ClassVar[Band] = Band.before(Band.RETRY)
    # What it is given is sent once, so a plan over it still has bounds.
    sends: ClassVar[int] = 1

    def wrap(self, proceed: RequestLayer, site: Site, /) -> RequestLayer:  # noqa: ARG002  # the same everywhere
        """Return `proceed` for the request without what must not be sent."""

        async def redact(request: Request) -> Reply:
            messages = tuple(replace(one, content=redacted(one.content)) for one in request.messages)
            turns = tuple(redacted_turn(one) for one in request.turns)
            return await proceed(replace(request, messages=messages, turns=turns))

        return redact
