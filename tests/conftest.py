"""Fixtures of the whole suite: every async test runs on asyncio and trio, and no runtime is left over."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from llmflow import Runtime

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A job in the background ignores Ctrl-C, and so would every process that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Both backends, on real time; folders whose waits are timers replace it by virtual time."""
    return request.param


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    """A runtime of the test's own, with repeatable jitter, that is current while the test runs."""
    with Runtime(seed=1) as made:
        yield made
