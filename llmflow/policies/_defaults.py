"""The policies every step has unless somebody declares others of their kind."""

from __future__ import annotations

from llmflow.hookspecs import hookimpl
from llmflow.policies._bulkhead import Bulkhead
from llmflow.policies._deadline import Deadline
from llmflow.policies._repair import Repair
from llmflow.policies._retry import Retry
from llmflow.policies._timeout import Timeout
from llmflow.policy import Policy

__all__ = ["llmflow_policies"]

_DEFAULTS: tuple[Policy, ...] = (Deadline(300), Repair(2), Retry(3), Bulkhead(256), Timeout(60))


@hookimpl
def llmflow_policies(step: str) -> tuple[Policy, ...]:  # noqa: ARG001  # the same for every step
    """Supply what makes a call safe by default: both of its times are finite, failures are retried, answers repaired."""
    return _DEFAULTS
