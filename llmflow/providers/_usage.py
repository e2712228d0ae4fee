"""Token counts as providers report them, taken only where they make sense, and counted the same way for all.

Each reads a piece of usage as JSON or as an SDK's object, so that a stream's last event can be read like a reply.
"""

from __future__ import annotations

from typing import Any

from llmflow.messages import Usage
from llmflow.providers._json import as_mapping

__all__ = ["anthropic_usage", "any_usage", "count", "field_of", "gemini_usage", "openai_usage", "usage_of"]

_MOST = 10**12


def openai_usage(usage: object) -> Usage | None:
    """Return the tokens of a chat completion."""
    prompt, answer = field_of(usage, "prompt_tokens"), field_of(usage, "completion_tokens")
    cached = field_of(usage, "prompt_tokens_details", "cached_tokens")
    reasoning = field_of(usage, "completion_tokens_details", "reasoning_tokens")
    if _leaves_out(prompt, answer, reasoning, field_of(usage, "total_tokens")):
        answer += reasoning
    return usage_of(
        prompt,
        answer,
        field_of(usage, "prompt_cache_hit_tokens") if cached is None else cached,
        reasoning,
        field_of(usage, "prompt_tokens_details", "cache_write_tokens"),
    )


def anthropic_usage(usage: object) -> Usage | None:
    """Return the tokens of a message; Anthropic counts what it reads from and writes to its cache apart."""
    read, written = field_of(usage, "cache_read_input_tokens"), field_of(usage, "cache_creation_input_tokens")
    return usage_of(
        _together(field_of(usage, "input_tokens"), read, written),
        field_of(usage, "output_tokens"),
        0 if read is None else read,
        field_of(usage, "output_tokens_details", "thinking_tokens"),
        written,
    )


def gemini_usage(usage: object) -> Usage | None:
    """Return the tokens of a response, in either spelling; Gemini counts reasoning and tool results apart."""

    def said(name: str) -> Any:
        head, *tail = name.split("_")
        found = field_of(usage, name)
        return field_of(usage, head + "".join(map(str.title, tail))) if found is None else found

    answer, thoughts = said("candidates_token_count"), said("thoughts_token_count")
    return usage_of(
        _together(said("prompt_token_count"), said("tool_use_prompt_token_count")),
        _together(thoughts) if answer is None else _together(answer, thoughts),
        said("cached_content_token_count"),
        thoughts,
    )


def any_usage(response: object) -> Usage | None:
    """Return the tokens of a reply of whichever service an instructor client has asked."""
    usage = field_of(response, "usage") or field_of(response, "usage_metadata")
    if field_of(usage, "prompt_tokens") is not None or field_of(usage, "completion_tokens") is not None:
        return openai_usage(usage)
    if (details := field_of(usage, "input_tokens_details")) is not None:  # OpenAI's responses
        return usage_of(
            field_of(usage, "input_tokens"),
            field_of(usage, "output_tokens"),
            field_of(details, "cached_tokens"),
            field_of(usage, "output_tokens_details", "reasoning_tokens"),
            field_of(details, "cache_write_tokens"),
        )
    if (billed := field_of(usage, "billed_units")) is not None:  # Cohere; as floats
        return usage_of(_whole(field_of(billed, "input_tokens")), _whole(field_of(billed, "output_tokens")))
    if field_of(usage, "inputTokens") is not None:  # Bedrock
        read, written = field_of(usage, "cacheReadInputTokens"), field_of(usage, "cacheWriteInputTokens")
        prompt = _together(field_of(usage, "inputTokens"), read, written)
        return usage_of(prompt, field_of(usage, "outputTokens"), read, None, written)
    return anthropic_usage(usage) or gemini_usage(usage)


def usage_of(
    input_tokens: object,
    output_tokens: object,
    cached: object = None,
    reasoning: object = None,
    cache_write: object = None,
) -> Usage | None:
    """Return the usage; what is missing, junk or contradictory counts as unknown, so that no cost can be negative."""
    total_in, total_out, part_out = count(input_tokens), count(output_tokens), count(reasoning)
    read, written = count(cached), count(cache_write)
    if total_in is None and total_out is None:
        return None
    if total_in is None or (read or 0) + (written or 0) > total_in:
        read = written = None
    return Usage(
        input_tokens=total_in,
        output_tokens=total_out,
        cached_tokens=read,
        reasoning_tokens=part_out if total_out is not None and (part_out or 0) <= total_out else None,
        cache_write_tokens=written,
    )


def count(value: object) -> int | None:
    """Return `value` when it is a number of tokens that can be."""
    return value if type(value) is int and 0 <= value <= _MOST else None


def field_of(owner: object, *names: str) -> Any:
    """Follow a path of keys or attributes, to None where it ends."""
    for name in names:
        inner = as_mapping(owner)
        owner = inner.get(name) if inner else getattr(owner, name, None)
    return owner


def _together(first: object, *others: object) -> int | None:
    """Add counts that are reported apart: one that is missing is 0, but junk in one makes their sum unknown."""
    total = count(first)
    for one in others:
        part = 0 if one is None else count(one)
        total = None if total is None or part is None else total + part
    return total


def _leaves_out(prompt: object, answer: object, reasoning: object, total: object) -> bool:
    """Whether a service (xAI) counts reasoning beside the answer, where OpenAI counts it within."""
    counts = [count(one) for one in (prompt, answer, reasoning)]
    return bool(counts[2]) and None not in counts and count(total) == sum(one for one in counts if one is not None)


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value
