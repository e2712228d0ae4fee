"""The hooks: what a plugin may contribute, provide and be told.

A plugin is a module or object whose functions carry `@hookimpl` and that is named in the entry-point group `llmflow`,
or handed to `Runtime(plugins=[...])`. Hooks are plain functions: they are called when something is bound, never on the
path of a call, except the notify hooks, which are compiled to a tuple of functions when the runtime starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llmflow import events
    from llmflow.journal import Redactor
    from llmflow.models import Model
    from llmflow.policy import Policy
    from llmflow.ports import CacheStore, Journal, Provider, Store
    from llmflow.prices import Price
    from llmflow.prompts import Wording

__all__ = ["hookimpl"]

hookspec = pluggy.HookspecMarker("llmflow")
hookimpl = pluggy.HookimplMarker("llmflow")
"""Marks a function of a plugin as the implementation of the hook of the same name."""


# -- contribute: everybody's answers are collected ---------------------------------------------------------------------


@hookspec
def llmflow_policies(step: str) -> Iterable[Policy] | None:
    """Return policies for the step of this name; a declaration on the step, its flow or the runtime goes before them."""


@hookspec
def llmflow_redactors(name: str) -> Iterable[Redactor] | None:
    """Return functions that change the texts in what the journal stores of the step, task or flow of this name."""


# -- provide: the first answer that is not None is taken ---------------------------------------------------------------


@hookspec(firstresult=True)
def llmflow_provider(name: str) -> Provider | None:
    """Return the provider that reaches the models called `name/...`, or None when it is not yours."""


@hookspec(firstresult=True)
def llmflow_price(model: Model) -> Price | None:
    """Return what this model costs in dollars per million tokens, or None when you do not know."""


@hookspec(firstresult=True)
def llmflow_store(url: str) -> CacheStore | Journal | Store | None:
    """Return the store that this address (`scheme://...`) names, or None when its scheme is not yours."""


@hookspec(firstresult=True)
def llmflow_prompt(name: str, label: str | None) -> Wording | None:
    """Return the prompt of the step of this name under this label (None: without one), or None when it is not yours."""


# -- notify: told what happened, once for each event; a failing listener is logged and never breaks a call -------------


@hookspec
def llmflow_run_started(event: events.RunStarted) -> None:
    """The outermost call has begun."""


@hookspec
def llmflow_run_finished(event: events.RunFinished) -> None:
    """The outermost call has ended."""


@hookspec
def llmflow_call_started(event: events.CallStarted) -> None:
    """A step is about to ask."""


@hookspec
def llmflow_call_finished(event: events.CallFinished) -> None:
    """A call of a step has ended."""


@hookspec
def llmflow_attempt_started(event: events.AttemptStarted) -> None:
    """A physical request is about to be sent."""


@hookspec
def llmflow_attempt_finished(event: events.AttemptFinished) -> None:
    """A physical request has ended."""


@hookspec
def llmflow_retry_scheduled(event: events.RetryScheduled) -> None:
    """A transient failure will be tried again."""


@hookspec
def llmflow_fallback_taken(event: events.FallbackTaken) -> None:
    """A model failed for good and the next one is asked."""


@hookspec
def llmflow_cache_hit(event: events.CacheHit) -> None:
    """A call was answered from a cache, or by another call that asked the same."""


@hookspec
def llmflow_breaker_changed(event: events.BreakerChanged) -> None:
    """A circuit breaker opened, half opened or closed."""


@hookspec
def llmflow_budget_refused(event: events.BudgetRefused) -> None:
    """A request was not sent because a budget cannot pay for it."""
