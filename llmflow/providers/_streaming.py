"""Reading a streamed reply: pieces go out as they come, and at the end there is the reply that would have come whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from llmflow.errors import BadRequest, StepError
from llmflow.messages import Chunk
from llmflow.providers._decoding import MAX_BODY, ReplyTooLarge
from llmflow.providers._errors import unavailable
from llmflow.providers._json import as_mapping, decode_object, encodable
from llmflow.providers._sse import EventReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn

    from llmflow.messages import Request
    from llmflow.providers._errors import Source
    from llmflow.providers._sse import Event

__all__ = ["Reading", "Stream", "refuses_usage"]

_STARTS = (b"data:", b"event:", b":", b"id:", b"retry:")


class Stream(Protocol):
    """Puts the events of one provider together."""

    done: bool
    """Whether nothing more comes that counts."""
    error: object
    """What the provider said instead of going on, None without."""

    @property
    def complete(self) -> bool:
        """Whether the answer has come to its end; a stream that just stops has not."""
        ...

    def take(self, event: Event, data: dict[str, Any], /) -> str:
        """Take one event and return the piece of the answer in it, which may be empty."""
        ...

    def reply(self) -> dict[str, Any]:
        """Return the reply as it would have come in one piece."""
        ...


class Reading:
    """Reads the body of one reply.

    Args:
        stream: Puts the provider's events together.
        request: Its sink gets the pieces.
        source: Who is blamed.
        fail: Raises the error for what a provider said in the middle of its stream.

    Attributes:
        plain: The body when it is no stream: a service that does not know how to, or a page of something between.
    """

    def __init__(self, stream: Stream, request: Request, source: Source, fail: Callable[[object], NoReturn]) -> None:
        assert request.sink is not None
        self._stream = stream
        self._sink = request.sink
        self._attempt = request.attempt
        self._source = source
        self._fail = fail
        self._events: EventReader | None = None
        self._size = 0
        self._has_begun = False
        self.plain: list[bytes] | None = None

    async def receive(self, headers: Mapping[str, str], data: bytes) -> bool:
        """Take a piece of the body; True when the answer is complete."""
        self._size += len(data)
        if self._size > MAX_BODY:  # a client of the user's own has no limit
            raise ReplyTooLarge(MAX_BODY)
        if self._events is None and self.plain is None:
            self._start(headers, data)
        if self._events is None:
            assert self.plain is not None
            self.plain.append(data)
            return False
        return await self._take(self._events.feed(data))

    async def finish(self) -> dict[str, Any]:
        """Say that the body has ended, and return the reply.

        Raises:
            ProviderUnavailable: When it ended in the middle of the answer.
        """
        if self._events is not None and not self._stream.done:
            await self._take(self._events.finish(), at_end=True)
        if not self._stream.complete:
            raise unavailable(self._source, "the stream ended early, in the middle of the answer")
        return self._stream.reply()

    def _start(self, headers: Mapping[str, str], data: bytes) -> None:
        is_stream = "event-stream" in headers.get("content-type", "") or data.lstrip().startswith(_STARTS)
        if is_stream:
            self._events = EventReader()
        else:
            self.plain = []

    async def _take(self, events: list[Event], *, at_end: bool = False) -> bool:
        stream = self._stream
        for event in events:
            data = self._decoded(event, at_end=at_end)
            if data is not None and (piece := stream.take(event, data)):
                await self._sink(Chunk(encodable(piece), self._attempt))
            if stream.error is not None:
                self._fail_in_stream(stream.error)
            self._has_begun = True
            if stream.done:
                break
        return stream.done

    def _fail_in_stream(self, error: object) -> NoReturn:
        try:
            self._fail(error)
        except StepError as exc:
            if self._has_begun:
                exc.status = None  # the status was 200, and what was written till here may be billed
            raise

    def _decoded(self, event: Event, *, at_end: bool) -> dict[str, Any] | None:
        """Return what an event says, None for the one that ends a stream without saying anything."""
        text = event.data.strip()
        if text.startswith("[DONE]"):
            self._stream.done = True
            return None
        if not text:
            return None
        try:
            return decode_object(event.data.encode())
        except ValueError as exc:
            if event.name == "error":
                return {"error": {"message": event.data}}
            what = "the stream ended early" if at_end else "the stream holds an event that is no JSON object"
            raise unavailable(self._source, what) from exc


def refuses_usage(error: Exception, body: dict[str, Any]) -> bool:
    """Whether a service refused a request for asking it to count tokens in a stream, which not all of them know."""
    return (
        isinstance(error, BadRequest)
        and error.status in (400, 422)
        and bool(as_mapping(body.get("stream_options")))
        and "stream_options" in error.message
    )
