"""Typed LLM steps, composed into DAGs, run with production policies.

```python
from llmflow import prompt, step

@step("openai/gpt-5-mini")
def summarise(text: str) -> str:
    return prompt(f"Summarise in one sentence: {text}")
```

`await summarise("...")` runs it, `summarise.sync("...")` runs it from a script.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmflow.context import context
from llmflow.context import runtimes as _runtimes
from llmflow.errors import (
    AuthenticationFailed,
    BadRequest,
    BudgetExceeded,
    CircuitOpen,
    ContentFiltered,
    ContextTooLong,
    DeadlineExceeded,
    DefinitionError,
    FallbackExhausted,
    InvalidOutput,
    JournalUnavailable,
    LLMFlowError,
    PluginCallError,
    PluginDefinitionError,
    PluginError,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    QueueFull,
    QuotaExceeded,
    RateLimited,
    RateLimitTimeout,
    Refused,
    Rejected,
    RunConflict,
    StepError,
    Truncated,
)
from llmflow.graph import Flow, Task, build, flow, gather, or_else, switch, task, when
from llmflow.hookspecs import hookimpl
from llmflow.ledger import LedgerRow
from llmflow.messages import (
    Answer,
    Ask,
    Attempt,
    Chunk,
    File,
    Message,
    Outcome,
    Reply,
    Request,
    Result,
    Usage,
)
from llmflow.models import Model, Params
from llmflow.policies import (
    Budget,
    Bulkhead,
    Cache,
    CircuitBreaker,
    Deadline,
    Fallback,
    Hedge,
    RateLimit,
    Repair,
    Retry,
    Timeout,
)
from llmflow.policies._budget import BudgetTooSmallWarning, UnpricedModelWarning
from llmflow.policy import Band, Off, Policy, Site
from llmflow.ports import CacheStore, Clock, Journal, Kept, Provider
from llmflow.prices import Price, Tier
from llmflow.prompts import UnusedParameterWarning, Wording, prompt
from llmflow.schema import Partial
from llmflow.step import Call, Final, Restarted, Snapshot, Step, Stream, step

if TYPE_CHECKING:
    from llmflow.observers import Ledger, Stats, configure_logging
    from llmflow.runtime import Plan, Runtime, plan

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Ask",
    "Attempt",
    "AuthenticationFailed",
    "BadRequest",
    "Band",
    "Budget",
    "BudgetExceeded",
    "BudgetTooSmallWarning",
    "Bulkhead",
    "Cache",
    "CacheStore",
    "Call",
    "Chunk",
    "CircuitBreaker",
    "CircuitOpen",
    "Clock",
    "ContentFiltered",
    "ContextTooLong",
    "Deadline",
    "DeadlineExceeded",
    "DefinitionError",
    "Fallback",
    "FallbackExhausted",
    "File",
    "Final",
    "Flow",
    "Hedge",
    "InvalidOutput",
    "Journal",
    "JournalUnavailable",
    "Kept",
    "LLMFlowError",
    "Ledger",
    "LedgerRow",
    "Message",
    "Model",
    "Off",
    "Outcome",
    "Params",
    "Partial",
    "Plan",
    "PluginCallError",
    "PluginDefinitionError",
    "PluginError",
    "Policy",
    "Price",
    "Provider",
    "ProviderError",
    "ProviderTimeout",
    "ProviderUnavailable",
    "QueueFull",
    "QuotaExceeded",
    "RateLimit",
    "RateLimitTimeout",
    "RateLimited",
    "Refused",
    "Rejected",
    "Repair",
    "Reply",
    "Request",
    "Restarted",
    "Result",
    "Retry",
    "RunConflict",
    "Runtime",
    "Site",
    "Snapshot",
    "Stats",
    "Step",
    "StepError",
    "Stream",
    "Task",
    "Tier",
    "Timeout",
    "Truncated",
    "UnpricedModelWarning",
    "UnusedParameterWarning",
    "Usage",
    "Wording",
    "build",
    "configure_logging",
    "context",
    "flow",
    "gather",
    "hookimpl",
    "or_else",
    "plan",
    "prompt",
    "step",
    "switch",
    "task",
    "when",
]

_LAZY = {
    "Ledger": "llmflow.observers",
    "Plan": "llmflow.runtime",
    "Runtime": "llmflow.runtime",
    "Stats": "llmflow.observers",
    "configure_logging": "llmflow.observers",
    "plan": "llmflow.runtime",
}


def __getattr__(name: str) -> Any:
    """Import the parts that a module of steps does not need until it runs (PEP 562)."""
    if (module := _LAZY.get(name)) is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


def _default_runtime() -> Any:
    """Make the runtime of calls that nobody entered one for; here, as this is the one place that may know all layers."""
    from llmflow.runtime import default_runtime  # see `__getattr__`

    return default_runtime()


_runtimes.set_factory(_default_runtime)
