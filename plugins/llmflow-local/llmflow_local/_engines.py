"""The engines of this process, what becomes of them at its end, and in its forked children."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmflow_local._engine import Engine
from llmflow_local._server import LlamaServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmflow_local._weights import Weights

__all__ = ["ENGINES", "EngineSettings", "Engines"]

_EXIT_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What makes two engines different."""

    weights: Weights
    threads: int
    context: int


class Engines:
    """One engine for each file and settings, however many runtimes, steps and event loops ask for it.

    A child made by `os.fork` has a copy of the parent's engines but not of their threads. It leaves them alone and
    builds its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engines: dict[EngineSettings, Engine] = {}
        self._hooked = False
        self._forked = False

    def get(self, settings: EngineSettings) -> Engine:
        """Return the engine of these settings; it loads its model when it is first asked something."""
        with self._lock:
            self._hook()
            if settings not in self._engines:
                self._engines[settings] = Engine(_loader(settings, immortal=self._forked))
            return self._engines[settings]

    def _hook(self) -> None:
        if not self._hooked:
            self._hooked = True
            atexit.register(self.close)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=self._leave_behind)

    def close(self) -> None:
        """Stop and release every engine, while the interpreter is still whole."""
        with self._lock:
            engines = list(self._engines.values())
            self._engines.clear()
        for engine in engines:
            engine.close(_EXIT_PATIENCE_S)

    def _leave_behind(self) -> None:
        self._lock = threading.Lock()  # the parent's may have been held by a thread that does not exist here
        if not self._engines:
            return
        for engine in self._engines.values():
            engine.leave_behind()
        self._engines = {}
        self._forked = True
        _skip_cpp_destructors()


def _loader(settings: EngineSettings, *, immortal: bool) -> Callable[[Callable[[], bool]], LlamaServer]:
    def load(stopped: Callable[[], bool]) -> LlamaServer:
        path = settings.weights.locate(stopped)
        return LlamaServer(path, threads=settings.threads, context=settings.context, immortal=immortal)

    return load


def _skip_cpp_destructors() -> None:
    """Let this process end with `_exit` once Python is done with it, whatever its exit status.

    The engine's static destructors join a logging thread. In a forked child there is none, and the C++ runtime aborts.
    """
    with contextlib.suppress(AttributeError, OSError):  # glibc has on_exit; elsewhere the child says so at its end
        libc = ctypes.CDLL(None)
        libc.on_exit(ctypes.cast(libc._exit, ctypes.c_void_p), None)  # noqa: SLF001  # the C function of that name


ENGINES = Engines()
"""A global on purpose: a model takes a quarter of a gigabyte, so two runtimes of one process must meet here."""
