"""Between the two onions: an ask becomes a request, and its reply a value."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmflow.errors import ContentFiltered, DefinitionError, InvalidOutput, Refused, Truncated
from llmflow.messages import Answer, Ask, Reply, Request
from llmflow.records import quick

if TYPE_CHECKING:
    from llmflow.models import Params
    from llmflow.ports import Send
    from llmflow.schema import OutputSchema

__all__ = ["parser", "reader", "refuse_to_parse"]

new_answer, new_request = quick(Answer), quick(Request)  # made on every call


def reader(
    output: OutputSchema, checks: Sequence[Callable[..., None]], *, local_repair: bool
) -> Callable[[str, Ask], tuple[Any, bool]]:
    """Return what turns an answer's text into a value, and says whether it had to be mended."""

    def read(text: str, ask: Ask) -> tuple[Any, bool]:
        value, repaired = (
            output.parse_or_repair(text, context=ask.context)
            if local_repair
            else (output.parse(text, context=ask.context), False)
        )
        if checks:
            _run_checks(checks, value, ask.inputs, text)
        return value, repaired

    return read


def refuse_to_parse(text: str, ask: Ask) -> tuple[Any, bool]:  # noqa: ARG001  # stands where answers have no shape
    """Say that a task's value is not an answer that could be read from a text."""
    msg = "a task has no answers that could be read from a text"
    raise DefinitionError(msg)


def parser(
    send: Send, read: Callable[[str, Ask], tuple[Any, bool]], params: Params
) -> Callable[[Ask], Awaitable[Answer]]:
    """Return what turns an ask into a request and its reply into a value."""

    async def parse(ask: Ask) -> Answer:
        reply = await send(
            new_request(
                messages=ask.messages,
                model=ask.model,
                output=ask.output,
                params=params,
                deadline=ask.deadline,
                call=ask.call,
                turns=ask.turns,
                sink=ask.sink,
            )
        )
        text = _text_of(reply, params)
        try:
            value, repaired = read(text, ask)
        except InvalidOutput as error:
            error.reply = reply
            raise
        return new_answer(value=value, text=text, reply=reply, model=ask.model, repaired=repaired or bool(ask.turns))

    return parse


def _text_of(reply: Reply, params: Params) -> str:
    """Return the answer's text, or raise what the reply says went wrong."""
    if reply.finish_reason == "stop" and reply.text is not None:
        return reply.text
    error = _unfinished(reply, params)
    error.reply = reply
    raise error


def _unfinished(reply: Reply, params: Params) -> InvalidOutput:
    if reply.finish_reason == "length":
        limit = params.get("max_tokens")
        error: InvalidOutput = Truncated(f"the answer was cut after {limit} tokens", text=reply.text)
        error.add_note('Raise the limit with params={"max_tokens": ...} on the step, or ask for a shorter answer.')
        return error
    if reply.finish_reason == "refusal":
        return Refused("the model declined to answer", text=reply.text)
    if reply.finish_reason == "content_filter":
        return ContentFiltered("the provider's content filter withheld the answer", text=reply.text)
    return InvalidOutput("the reply holds no answer", problems=("the reply holds no answer",))


def _run_checks(checks: Sequence[Callable[..., None]], value: object, inputs: Mapping[str, object], text: str) -> None:
    for check in checks:
        try:
            check(value, inputs)
        except ValueError as exc:
            name = getattr(check, "__name__", type(check).__name__)
            msg = f"the answer does not pass the check {name!r}: {exc}"
            raise InvalidOutput(msg, text=text, problems=(str(exc),)) from exc
