"""Folding layers into one function, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llmflow.errors import DefinitionError, LLMFlowError, PluginCallError, PluginDefinitionError
from llmflow.messages import Answer, Reply
from llmflow.policy._policy import Site
from llmflow.policy._resolve import Declared

__all__ = ["fold"]


def fold(layers: Sequence[Declared], inner: Any, site: Callable[[Declared], Site]) -> Any:
    """Wrap `inner` in `layers`, the first one outermost, and return the whole as one async function."""
    proceed = inner
    for layer in reversed(layers):
        proceed = _wrap_foreign(layer, proceed, site) if layer.plugin else _wrap(layer, proceed, site)
    return proceed


def _wrap(layer: Declared, proceed: Any, site: Callable[[Declared], Site]) -> Any:
    wrapped = layer.policy.wrap(proceed, site(layer))
    if not callable(wrapped):
        msg = f"policy {layer.policy!r} from {layer.source}: wrap() returned {wrapped!r}, expected an async function"
        raise DefinitionError(msg)
    return wrapped


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

    # llmflow's own policies do not break, and limits that follow each other must see each other to act as one.
    if type(layer.policy).__module__.startswith("llmflow."):
        return _contributed(layer, proceed, site)
    wrapped = _contributed(layer, inner, site)
    name = _name_of(layer)
    expected = Answer if layer.band.wraps_calls else Reply

    async def outer(message: Any) -> Any:
        try:
            outcome = await wrapped(message)
        except LLMFlowError:
            raise
        except Exception as exc:
            if getattr(exc, _MARK, False):
                raise
            msg = f"{name} raised {type(exc).__name__}: {exc}"
            raise PluginCallError(msg, plugin=layer.plugin) from exc
        if not isinstance(outcome, expected):
            msg = f"{name} returned {type(outcome).__name__}, expected {expected.__name__}"
            raise PluginCallError(msg, plugin=layer.plugin)
        return outcome

    return outer


def _contributed(layer: Declared, proceed: Any, site: Callable[[Declared], Site]) -> Any:
    """Wrap with a policy that a plugin contributed; what is wrong with it is said to be the plugin's."""
    try:
        return _wrap(layer, proceed, site)
    except DefinitionError as exc:
        raise PluginDefinitionError(str(exc), plugin=layer.plugin) from exc
    except Exception as exc:
        msg = f"{_name_of(layer)} raised {type(exc).__name__} in wrap(): {exc}"
        raise PluginDefinitionError(msg, plugin=layer.plugin) from exc


def _name_of(layer: Declared) -> str:
    return f"policy {type(layer.policy).__name__} of plugin {layer.plugin!r}"


_MARK = "__llmflow_passing__"


def _passing(exc: Exception) -> None:
    """Mark an exception as not the plugin's own; a class with slots refuses, and is then taken for the plugin's."""
    try:
        setattr(exc, _MARK, True)
    except AttributeError:
        return
