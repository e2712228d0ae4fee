"""Fixtures of the whole suite: every async test runs on asyncio and trio, and no runtime is left over."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from llmflow import Runtime
from llmflow.testing._time import virtual_backend

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A job in the background ignores Ctrl-C, and so would every process that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Both backends, on real time, or "asyncio on virtual time"; folders whose waits are timers always use that."""
    name, _, virtual = request.param.partition(" on ")
    return virtual_backend(name) if virtual else name


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    """A runtime of the test's own, with repeatable jitter, that is current while the test runs."""
    with Runtime(seed=1) as made:
        yield made
