"""Folding layers into one function, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llmflow.errors import DefinitionError, LLMFlowError, PluginCallError
from llmflow.policy._policy import Site
from llmflow.policy._resolve import Declared

__all__ = ["fold"]


def fold(layers: Sequence[Declared], inner: Any, site: Callable[[Declared], Site]) -> Any:
    """Wrap `inner` in `layers`, the first one outermost, and return the whole as one async function."""
    proceed = inner
    for layer in reversed(layers):
        proceed = _wrap_foreign(layer, proceed, site) if layer.plugin else layer.policy.wrap(proceed, site(layer))
        if not callable(proceed):
            msg = f"policy {layer.policy!r} from {layer.source}: wrap() returned {proceed!r}, expected an async function"
            raise DefinitionError(msg)
    return proceed


def _wrap_foreign(layer: Declared, proceed: Any, site: Callable[[Declared], Site]) -> Any:
    """Wrap with a third party's policy so that what breaks inside it is said to be its fault.

    An exception that came from further in passes unchanged: only what the policy itself raises is translated.
    """

    async def inner(message: Any) -> Any:
        try:
            return await proceed(message)
        except Exception as exc:
            _passing(exc)
            raise

    wrapped = layer.policy.wrap(inner, site(layer))

    async def outer(message: Any) -> Any:
        try:
            return await wrapped(message)
        except LLMFlowError:
            raise
        except Exception as exc:
            if getattr(exc, _MARK, False):
                raise
            name = type(layer.policy).__name__
            msg = f"policy {name} of plugin {layer.plugin!r} raised {type(exc).__name__}: {exc}"
            raise PluginCallError(msg, plugin=layer.plugin) from exc

    return outer


_MARK = "__llmflow_passing__"


def _passing(exc: Exception) -> None:
    """Mark an exception as not the plugin's own; a class with slots refuses, and is then taken for the plugin's."""
    try:
        setattr(exc, _MARK, True)
    except AttributeError:
        return
