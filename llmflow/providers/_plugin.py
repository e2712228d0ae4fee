"""The built-in providers as a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmflow.hookspecs import hookimpl

if TYPE_CHECKING:
    from llmflow.ports import Provider

__all__ = ["llmflow_provider"]


@hookimpl
def llmflow_provider(name: str) -> Provider | None:
    """Return the provider that reaches the models called `name/...`, importing its module only now."""
    if name == "openai":
        from llmflow.providers._openai import OpenAIProvider

        return OpenAIProvider()
    return None
