"""The plugin is handed over to the runtimes of these tests, so they need no installed one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import llmflow_redact
import pytest

from llmflow import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Both backends."""
    return request.param


@pytest.fixture
def redacting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """A runtime with this plugin and no other."""
    monkeypatch.setenv("LLMFLOW_DISABLE_PLUGINS", "all")
    with Runtime(plugins=[llmflow_redact]) as runtime:
        yield runtime
