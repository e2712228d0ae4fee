"""Keeps e-mail addresses, phone numbers and card numbers out of what is sent to a model.

Installing this package is enough: it contributes the policy `Redact` to every step.
"""

from __future__ import annotations

from llmflow import Policy, hookimpl
from llmflow_redact._policy import Redact

__all__ = ["Redact", "llmflow_policies"]


@hookimpl
def llmflow_policies(step: str) -> tuple[Policy, ...]:  # noqa: ARG001  # the same for every step
    """Contribute `Redact` to every step; one that must see the real values says `Redact.off`."""
    return (Redact(),)
