"""Keeps e-mail addresses, phone numbers and card numbers out of what is sent to a model and out of the journal.

Installing this package is enough: it contributes the policy `Redact` to every step, and redacts what is stored of runs.
"""

from __future__ import annotations

from collections.abc import Callable

from llmflow import Policy, hookimpl
from llmflow_redact._policy import Redact
from llmflow_redact._text import redacted

__all__ = ["Redact", "llmflow_policies", "llmflow_redactors"]


@hookimpl
def llmflow_policies(step: str) -> tuple[Policy, ...]:  # noqa: ARG001  # the same for every step
    """Contribute `Redact` to every step; one that must see the real values says `Redact.off`."""
    return (Redact(),)


@hookimpl
def llmflow_redactors(name: str) -> tuple[Callable[[str], str], ...]:  # noqa: ARG001  # the same for everything
    """Redact the texts in what the journal stores of every step, task and flow."""
    return (redacted,)
