"""The one place that knows xllamacpp, llama.cpp's server as a Python extension.

Every setting below answers something that was seen on real machines; none is taste.
"""

from __future__ import annotations

import ctypes
import secrets
from typing import TYPE_CHECKING, Any

from llmflow.errors import BadRequest
from llmflow_local._failures import LocalFailure
from llmflow_local._generation import Collector, Generation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["LlamaServer", "read_through"]

_PROMPT_CACHE_MB = 256
"""How much of past prompts is kept (8 GB unless said), so that steps which take turns find their examples read."""


class LlamaServer:
    """A GGUF file, loaded and ready.

    Args:
        path: The file.
        threads: Threads that compute. More than the machine has idle makes it many times slower, not faster: they wait
            for each other at every layer.
        context: Tokens that prompt and answer may have together.
        immortal: Never run the destructor.
    """

    def __init__(self, path: Path, *, threads: int, context: int, immortal: bool = False) -> None:
        read_through(path)
        llama = _import_engine()
        try:
            self._server = llama.Server(_parameters(llama, path, threads, context))
        except RuntimeError as exc:
            msg = f"the engine cannot load {str(path)!r}: {exc}"
            raise LocalFailure(msg, retryable=False) from exc
        if immortal:
            self.immortalize()
        # A server that is destroyed before its first request may hang for good.
        self._server.handle_chat_completions({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1})

    def generate(
        self, body: Mapping[str, object], on_text: Callable[[str], None], stopped: Callable[[], bool]
    ) -> Generation:
        """Answer one request; blocks, without holding the interpreter's lock."""
        collector = Collector(on_text, stopped)
        try:
            self._server.handle_chat_completions(body, collector.receive)
        except (ValueError, RuntimeError) as exc:  # both come from reading the request, before anything is generated
            msg = f"the engine refused the request: {exc}"
            raise LocalFailure(msg, BadRequest) from exc
        return collector.generation()

    def immortalize(self) -> None:
        """Keep the C++ object from ever being destroyed: in a forked child that waits for threads it does not have."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._server))


def read_through(path: Path) -> None:
    """Read the file once, so that loading it finds it in memory.

    Loading holds the interpreter's lock and with it every event loop; reading from a cold disk does not.
    """
    buffer = bytearray(1 << 23)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def _import_engine() -> Any:
    try:
        import xllamacpp  # type: ignore[import-untyped,unused-ignore]  # 100 MB, at the first request
    except ImportError as exc:
        msg = f"xllamacpp cannot be loaded ({exc}); it has wheels for Linux with glibc, macOS 13+ and Windows x64"
        raise LocalFailure(msg, retryable=False) from exc
    return xllamacpp


def _parameters(llama: Any, path: Path, threads: int, context: int) -> Any:
    parameters = llama.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = context
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    parameters.n_parallel = 1  # slots share the threads and the context: no more throughput, only smaller windows
    # The stop flag is asked once for each batch of the prompt; smaller ones read a fifth slower, larger ones no faster.
    parameters.n_batch = parameters.n_ubatch = 64
    parameters.cache_ram_mib = _PROMPT_CACHE_MB
    parameters.fit_params = False  # a third of the load time, to find out what `context` says already
    parameters.warmup = False  # the constructor's own request warms up
    parameters.verbosity = -1  # nothing on stderr
    # A loopback HTTP listener comes with the server and cannot be turned off: lock it, and take away what it offers.
    parameters.api_keys = [secrets.token_hex(32)]
    parameters.n_threads_http = 1
    parameters.ui = False
    parameters.endpoint_slots = False
    return parameters
