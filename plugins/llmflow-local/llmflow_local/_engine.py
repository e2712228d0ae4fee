"""A queue in front of one loaded model, and the thread that serves it."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Protocol, TypeAlias

from llmflow_local._failures import LocalFailure
from llmflow_local._job import Job

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from llmflow_local._generation import Generation

__all__ = ["Engine", "Load", "Server"]


class Server(Protocol):
    """A loaded model, one request at a time."""

    def generate(
        self, body: Mapping[str, object], on_text: Callable[[str], None], stopped: Callable[[], bool], /
    ) -> Generation:
        """Answer one request; blocks, and ends soon after `stopped` says so."""
        ...

    def immortalize(self) -> None:
        """Keep the model from ever being destroyed."""


Load: TypeAlias = "Callable[[Callable[[], bool]], Server]"
"""Fetches and loads the model; blocks, and gives up soon after the function it is handed says so."""


class Engine:
    """Answers requests one after the other, first come first served, from any number of event loops.

    The model is loaded for the first request. The thread that serves lives as long as there is something to serve, so
    an idle engine has none. Waiting requests hold no thread.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        self._server: Server | None = None
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._serving: Job | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    async def generate(
        self, body: Mapping[str, object], on_text: Callable[[str], Awaitable[None]] | None = None
    ) -> Generation:
        """Wait for a turn and for the answer.

        Cancelled, it returns at once. A request that waits is taken out; one that is being answered is stopped, which
        costs the next one in the queue a fraction of a second.

        Raises:
            LocalFailure: When there is no answer.
        """
        job = Job(body, streamed=on_text is not None)
        self._enqueue(job)
        try:
            return await job.wait_finished(on_text)
        finally:
            self._abandon(job)

    def _enqueue(self, job: Job) -> None:
        with self._lock:
            if self._closing.is_set():
                msg = "the interpreter is shutting down"
                raise LocalFailure(msg, retryable=False)
            self._waiting.append(job)
            if self._thread is None:
                # A daemon, because the interpreter waits for other threads before it lets `close` stop them.
                self._thread = threading.Thread(target=self._serve, name="llmflow-local", daemon=True)
                self._thread.start()

    def _abandon(self, job: Job) -> None:
        job.stop.set()
        with self._lock:
            if job in self._waiting:
                self._waiting.remove(job)

    # -- on the thread -------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            try:
                server = self._loaded()
            except LocalFailure as failure:
                self._finish([job, *self._take_waiting()], failure)  # they need not each try again to fetch it
            else:
                self._finish([job], _outcome(server, job))

    def _next(self) -> Job | None:
        """Return the job whose turn it is; without one the thread is signed off, under the lock that signs on."""
        with self._lock:
            self._serving = self._waiting.popleft() if self._waiting else None
            if self._serving is None:
                self._thread = None
            return self._serving

    def _loaded(self) -> Server:
        if self._server is None:
            try:
                # Not stopped by a cancelled request: a slow download serves whoever asks next.
                self._server = self._load(self._closing.is_set)
            except LocalFailure:
                raise
            except Exception as exc:
                msg = f"the engine cannot be loaded: {exc!r}"
                raise LocalFailure(msg, retryable=False) from exc
        return self._server

    def _take_waiting(self) -> list[Job]:
        with self._lock:
            waiting = list(self._waiting)
            self._waiting.clear()
            return waiting

    def _finish(self, jobs: Iterable[Job], outcome: Generation | LocalFailure) -> None:
        if self._closing.is_set():
            # Only loops in daemon threads are left by now; woken, they would race with the end of the interpreter.
            return
        for job in jobs:
            job.finish(outcome)

    # -- the end of the process, or of its copy ------------------------------------------------------------------------

    def close(self, patience: float) -> None:
        """Stop what runs, wait `patience` seconds for it, and let go of the model; nobody gets an answer any more."""
        with self._lock:
            self._closing.set()
            thread = self._thread
            for job in (*self._waiting, self._serving):
                if job is not None:
                    job.stop.set()
        if thread is not None:
            thread.join(patience)
        self._server = None

    def leave_behind(self) -> None:
        """In a forked child: never touch the parent's model, not even to destroy it."""
        if self._server is not None:
            self._server.immortalize()


def _outcome(server: Server, job: Job) -> Generation | LocalFailure:
    if job.stop.is_set():
        return LocalFailure("stopped before it began")
    try:
        return server.generate(job.body, job.add, job.stop.is_set)
    except LocalFailure as failure:
        return failure
    except Exception as exc:  # noqa: BLE001  # whatever it is, a task waits for it
        return LocalFailure(f"the engine failed: {exc!r}")
