"""Reaching a model: through a function in this process, or through a third party's provider."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

from llmflow.errors import DefinitionError, LLMFlowError, PluginCallError, PluginDefinitionError
from llmflow.messages import Reply, Usage
from llmflow.records import quick

if TYPE_CHECKING:
    from llmflow.messages import OutputFormat, Request
    from llmflow.models import Model
    from llmflow.ports import Provider, Send

__all__ = ["connect_foreign", "connect_handler"]

new_reply = quick(Reply)

_COUNTS = tuple(one.name for one in fields(Usage))


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
            return _with_honest_usage(reply)
        msg = f"the handler of {model.name!r} returned {type(reply).__name__}, expected a Reply or the answer's text"
        raise DefinitionError(msg)

    return send


def _not_async(model: Model, returned: object) -> str:
    return f"the handler of {model.name!r} is not async: it returned {type(returned).__name__}; write it as `async def`"


def connect_foreign(provider: Provider, plugin: str, model: Model, output: OutputFormat) -> Send:
    """Return what sends through a third party's provider; what breaks inside it is said to be its fault."""
    try:
        send = provider.connect(model, output)
    except LLMFlowError:
        raise
    except Exception as exc:
        msg = f"the provider of plugin {plugin!r} cannot connect {model.name!r}: {type(exc).__name__}: {exc}"
        raise PluginDefinitionError(msg, plugin=plugin) from exc

    async def guarded(request: Request) -> Reply:
        try:
            return _with_honest_usage(await send(request))
        except LLMFlowError:
            raise
        except Exception as exc:
            msg = f"the provider of plugin {plugin!r} raised {type(exc).__name__}: {exc}"
            raise PluginCallError(msg, plugin=plugin) from exc

    return guarded


def _with_honest_usage(reply: Reply) -> Reply:
    """Return a reply whose token counts can be: whatever is no count becomes unknown, so that nothing is refunded."""
    usage = reply.usage
    if usage is None or _is_honest(usage):
        return reply
    if not isinstance(usage, Usage):
        return replace(reply, usage=None)
    counts = {name: getattr(usage, name) for name in _COUNTS}
    known = {name: value for name, value in counts.items() if value is not None and _is_count(value)}
    return replace(reply, usage=Usage(**known) if known else None)


def _is_honest(usage: Usage) -> bool:
    return type(usage) is Usage and (
        _is_count(usage.input_tokens)
        and _is_count(usage.output_tokens)
        and _is_count(usage.cached_tokens)
        and _is_count(usage.reasoning_tokens)
        and _is_count(usage.cache_write_tokens)
    )


def _is_count(value: object) -> bool:
    return value is None or (type(value) is int and value >= 0)
