"""A small real model for llmflow, in the process: `"local/smollm2"`, or any GGUF file as `"local/<path>.gguf"`.

Loading this module costs nothing. The engine, the weights and a worker thread come with the first request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmflow.hookspecs import hookimpl

if TYPE_CHECKING:
    from llmflow.models import Model
    from llmflow.ports import Provider
    from llmflow.prices import Price

__all__ = ["llmflow_price", "llmflow_provider"]


@hookimpl
def llmflow_provider(name: str) -> Provider | None:
    """Return the provider of the models called `local/...`."""
    if name != "local":
        return None
    from llmflow_local._provider import LocalProvider  # kept out of the time to load plugins

    return LocalProvider()


@hookimpl
def llmflow_price(model: Model) -> Price | None:
    """Return a price of nothing for the models called `local/...`, so that budgets in dollars accept them."""
    if model.provider != "local":
        return None
    from llmflow.prices import Price  # kept out of the time to load plugins

    return Price(input=0.0, output=0.0)
