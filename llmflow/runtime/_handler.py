"""Models that are a function in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmflow.errors import DefinitionError
from llmflow.messages import Reply
from llmflow.records import quick

if TYPE_CHECKING:
    from llmflow.messages import Request
    from llmflow.models import Model
    from llmflow.ports import Send

__all__ = ["connect_handler"]

new_reply = quick(Reply)


def connect_handler(model: Model) -> Send:
    """Return what asks the model's `handler`; a text it returns becomes a `Reply`."""
    handler = model.handler
    assert handler is not None

    async def send(request: Request) -> Reply:
        pending = handler(request)
        if not hasattr(pending, "__await__"):
            raise DefinitionError(_not_async(model, pending))
        reply = await pending
        if isinstance(reply, str):
            return new_reply(text=reply, model=model.model)
        if isinstance(reply, Reply):
            return reply
        msg = f"the handler of {model.name!r} returned {type(reply).__name__}, expected a Reply or the answer's text"
        raise DefinitionError(msg)

    return send


def _not_async(model: Model, returned: object) -> str:
    return f"the handler of {model.name!r} is not async: it returned {type(returned).__name__}; write it as `async def`"
