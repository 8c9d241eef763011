"""Processes by descriptor: a pidfd always means the same process, however often its number is given to another.

pidfd_open(2), waitid(2) with P_PIDFD, and the ioctl PIDFD_GET_INFO of linux/pidfd.h (Linux 6.13, exit status
since 6.15), which tells how a process ended to whoever holds a pidfd of it, parent or not.
"""

from __future__ import annotations

import fcntl
import os
import struct
from enum import Enum

_INFO = struct.Struct("=QQ11Ii")
"""struct pidfd_info as of its first version: mask, cgroup id, eleven ids, the status as waitpid(2) has it."""
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11
_INFO_EXIT = 1 << 3


class Unreaped(Enum):
    """The one answer of :func:`exit_status` that is none."""

    YET = "its parent has not waited for it yet"


def exit_status(pidfd: int) -> int | Unreaped | None:
    """How a process ended, negative for a signal's number; for a pidfd that is readable, so it has ended.

    A child of this process is reaped by this. For any other, the kernel knows only once its parent has reaped
    it: until then the answer is ``Unreaped.YET``, and poll(2) says POLLHUP when it is time to ask again. None
    means that nobody can know: the kernel is too old.
    """
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except ChildProcessError:
        return _told(pidfd)
    assert result
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def _told(pidfd: int) -> int | Unreaped | None:
    """What PIDFD_GET_INFO says."""
    question = bytearray(_INFO.pack(_INFO_EXIT, *[0] * 13))
    try:
        fcntl.ioctl(pidfd, _GET_INFO, question)
    except OSError:  # no such call before 6.13 (ENOTTY, EINVAL); reaped, and no status kept, before 6.15 (ESRCH)
        return None
    mask, *_, status = _INFO.unpack(question)
    return os.waitstatus_to_exitcode(status) if mask & _INFO_EXIT else Unreaped.YET


def pid_of(pidfd: int) -> int:
    """The process id as this process's /proc shows it; 0 where it has been reaped, or is of a foreign namespace."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pid:"):
                return max(0, int(line[4:]))
    return 0


def start_time(pid: int) -> int:
    """When a process began, in ticks since the boot: field 22 of /proc/PID/stat; 0 where there is none.

    With the process id it names one process for good, across the lives of those who look after it.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(text[text.rindex(b")") + 2 :].split()[19])  # the name before it may hold anything, brackets too
