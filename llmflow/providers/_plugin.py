"""The built-in providers as a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmflow.hookspecs import hookimpl

if TYPE_CHECKING:
    from llmflow.ports import Provider

__all__ = ["llmflow_provider"]


_INSTRUCTOR = frozenset(
    [
        "anyscale",
        "azure_openai",
        "bedrock",
        "cerebras",
        "cohere",
        "databricks",
        "deepseek",
        "fireworks",
        "gemini",
        "genai",
        "groq",
        "litellm",
        "mistral",
        "ollama",
        "openrouter",
        "perplexity",
        "together",
        "vertexai",
        "writer",
        "xai",
    ]
)
"""Services that are reached through an instructor client of the user's own; `client` stands for any other."""


@hookimpl(trylast=True)
def llmflow_provider(name: str) -> Provider | None:
    """Return the provider that reaches the models called `name/...`, importing its module only now."""
    if name == "openai":
        from llmflow.providers._openai import OpenAIProvider

        return OpenAIProvider()
    if name == "anthropic":
        from llmflow.providers._anthropic import AnthropicProvider

        return AnthropicProvider()
    if name == "google":
        from llmflow.providers._google import GoogleProvider

        return GoogleProvider()
    if name == "client" or name in _INSTRUCTOR:
        from llmflow.providers._clients import ClientProvider

        return ClientProvider()
    return None
