"""Streamed answers of Gemini: their chunks put together to the response that would have come unstreamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmflow.providers._json import as_mapping, mappings_in
from llmflow.providers._usage import field_of

if TYPE_CHECKING:
    from llmflow.providers._sse import Event

__all__ = ["ContentStream"]


class ContentStream:
    """One response on its way; each chunk is a response with the next parts in it.

    Attributes:
        error: What the service said instead of going on, None without.
        done: Never; the stream itself ends.
    """

    __slots__ = ("_candidate", "_data", "_parts", "_response", "done", "error")

    def __init__(self) -> None:
        from google.genai.types import GenerateContentResponse  # the SDK takes a second to import

        self._response = GenerateContentResponse
        self.done = False
        self.error: object = None
        self._data: dict[str, Any] = {}
        self._candidate: dict[str, Any] = {}
        self._parts: list[dict[str, Any]] = []

    @property
    def complete(self) -> bool:
        """Whether the answer has come to its end, or was refused before it began; a stream that just stops has not."""
        return self._candidate.get("finish_reason") is not None or (
            field_of(self._data, "prompt_feedback", "block_reason") is not None
        )

    def take(self, event: Event, data: dict[str, Any]) -> str:
        """Take one chunk and return the piece of the answer in it, which may be empty."""
        if data.get("error") or event.name == "error":
            self.error = data.get("error") or data
            return ""
        chunk = self._response.model_validate(data).model_dump(mode="json", exclude_none=True)
        self._data.update(chunk)  # the tokens in each chunk are those so far: the last one counts
        candidate = as_mapping(next(iter(mappings_in(chunk.get("candidates"))), None))
        self._candidate.update(candidate)
        parts = mappings_in(as_mapping(candidate.get("content")).get("parts"))
        self._parts += parts
        return "".join(one["text"] for one in parts if isinstance(one.get("text"), str) and not one.get("thought"))

    def reply(self) -> dict[str, Any]:
        """Return the response as it would have come in one piece."""
        if not self._candidate:
            return self._data
        content = {**as_mapping(self._candidate.get("content")), "parts": self._parts}
        return {**self._data, "candidates": [{**self._candidate, "content": content}]}
