"""Which process runs a run, and whether it is still there."""

from __future__ import annotations

import hashlib
import os
import platform
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path

__all__ = ["LEASE", "is_alive", "myself"]

LEASE = 60.0
"""Seconds for which a process of another machine is taken for alive since it was heard of last."""


def myself() -> str:
    """Return what tells this process from every other one: its machine, its number, and when it started."""
    return _named(os.getpid())


@cache
def _named(pid: int) -> str:  # the number is a parameter, as a forked child has another
    return f"{_machine()}:{pid}:{_started(pid)}"


def is_alive(owner: str | None, lease: float | None, now: float) -> bool:
    """Whether a process still exists; one that cannot be looked for is believed until its lease is over."""
    if owner is None:
        return False
    machine, _, process = owner.partition(":")
    pid, _, started = process.partition(":")
    if os.name != "posix" or machine != _machine() or not pid.isdecimal():
        return lease is not None and now < lease
    return _exists(int(pid)) and (_started(int(pid)) or started) == started


@cache
def _machine() -> str:
    """Return what tells machines apart, and on one machine the containers, which do not see each other's processes."""
    parts = [platform.node(), _read("/proc/sys/kernel/random/boot_id") or str(uuid.getnode())]
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def _started(pid: int) -> str:
    """Return when a process started, in the kernel's own counting; empty where that cannot be read."""
    # The name in the second field may hold spaces and parentheses; what comes after it does not.
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if fields[:1] == ["Z"]:  # it has ended, and only its parent does not know yet
        return "ended"
    return fields[19] if len(fields) > 19 else ""  # noqa: PLR2004  # the 22nd of proc(5), counted from the third


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
