"""How many descriptors a process of pycore may have open: some for each container, so more than 1,024.

The programs in containers get what pycore was started with: select(2) cannot take higher numbers than 1,023,
and a program that closes all descriptors one by one takes long where there may be a million.
"""

from __future__ import annotations

import contextlib
import resource

_programs: int | None = None


def for_programs() -> int:
    """How many open files a program may have (soft limit): as many as pycore was started with."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] if _programs is None else _programs


def raise_open_files(programs: int | None = None) -> None:
    """Let this process open as many files as it may at all; ``programs`` is what :func:`for_programs` is to say."""
    global _programs
    _programs = for_programs() if programs is None else programs
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    _set(hard, hard)


def restore_open_files() -> None:
    """In a process that becomes a program: what the program is to have, as far as the hard limit allows."""
    soft, (_, hard) = for_programs(), resource.getrlimit(resource.RLIMIT_NOFILE)
    _set(hard if hard != resource.RLIM_INFINITY and (soft == resource.RLIM_INFINITY or soft > hard) else soft, hard)


def _set(soft: int, hard: int) -> None:
    with contextlib.suppress(OSError, ValueError):  # beyond /proc/sys/fs/nr_open
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
