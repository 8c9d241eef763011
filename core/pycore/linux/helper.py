"""Programs of the host that serve one container for as long as its process lives, such as pasta for its network.

One outlives who started it. It is known by its number and the time of its start, in a file; where that could not be
written yet, by the path of the pipe in its command line, through which it says that it is ready.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from collections.abc import Sequence

from pycore.linux.pidfd import start_time

READY = "{ready}"
"""Stands for the path of a pipe among the words of a command: there the program writes its number when it is ready."""
_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)
"""By every Python; pasta takes it for a failure to be started so."""
_PATIENCE = 20.0
_LARGE = 4096


def start(words: Sequence[str], record: str, network: int) -> None:
    """Start a program, and wait until it is ready; what is known of it is in files that begin with ``record``.

    ``words`` has the program's whole path first. ``network`` is a process whose network namespace it has as
    ``/proc/self/fd/0``: it needs no power over that process to open it. Raises OSError with what it has said.
    """
    end(record)
    ready = f"{record}.ready"
    os.mkfifo(ready, 0o600)
    hears = os.open(ready, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        pid = _spawn([word.replace(READY, ready) for word in words], f"{record}.log", network)
        pidfd = os.pidfd_open(pid)
        try:
            if not _is_ready(hears, pidfd):
                raise OSError(errno.EIO, _said(f"{record}.log") or "it is not ready in time", words[0])
            with open(f"{record}.new", "w", encoding="ascii") as file:
                file.write(f"{pid} {start_time(pid)}")
            os.rename(f"{record}.new", record)
        finally:
            os.close(pidfd)
    except OSError:
        end(record)
        raise
    finally:
        os.close(hears)
    os.unlink(ready)


def is_alive(record: str) -> bool:
    """Whether the program of a record runs."""
    pidfd = _find(record)
    if pidfd < 0:
        return False
    try:
        return not _has_ended(pidfd, 0)
    finally:
        os.close(pidfd)


def end(record: str) -> None:
    """End the program of a record, if there is one, and forget it."""
    for pidfd in _all(record):
        try:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            _has_ended(pidfd, None)
            with contextlib.suppress(ChildProcessError):  # it may have been started by another process
                os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
        finally:
            os.close(pidfd)
    for path in (record, f"{record}.new", f"{record}.log", f"{record}.ready"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _spawn(words: list[str], log: str, network: int) -> int:
    namespace = os.open(f"/proc/{network}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        moves = [(os.POSIX_SPAWN_DUP2, namespace, 0), *((os.POSIX_SPAWN_DUP2, output, fd) for fd in (1, 2))]
        return os.posix_spawn(
            words[0], words, {"PATH": os.defpath}, file_actions=moves, setsid=True, setsigmask=(), setsigdef=_IGNORED
        )
    finally:
        os.close(namespace)
        os.close(output)


def _is_ready(hears: int, pidfd: int) -> bool:
    """Whether it has said so, rather than ended, or said nothing at all."""
    poll = select.poll()
    poll.register(hears, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    found = dict(poll.poll(_PATIENCE * 1000))
    return bool(found.get(hears, 0) & select.POLLIN and os.read(hears, 32))


def _said(log: str) -> str:
    """The last thing that it has said; what it says of the system's log is not about us."""
    with contextlib.suppress(OSError), open(log, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file.read(_LARGE).splitlines() if "syslog" not in line and line.strip()]
        return lines[-1].lstrip("0123456789.: ") if lines else ""
    return ""


def _all(record: str) -> list[int]:
    """Pidfds of what was started under a record."""
    found = [pidfd for pidfd in (_find(record),) if pidfd >= 0]
    ready = f"{record}.ready"
    if os.path.exists(ready):
        wanted = os.fsencode(ready)
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(int(pid))
                if wanted in _words(pid):
                    found.append(pidfd)
                else:
                    os.close(pidfd)
    return found


def _words(pid: str) -> list[bytes]:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read(_LARGE).split(b"\0")
    return []


def _find(record: str) -> int:
    """A pidfd of the program of a record; -1 where it is not there any more."""
    try:
        with open(record, encoding="ascii") as file:
            pid, began = (int(word) for word in file.read().split())
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError):
        return -1
    if start_time(pid) == began:
        return pidfd
    os.close(pidfd)
    return -1


def _has_ended(pidfd: int, milliseconds: int | None) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(milliseconds))
