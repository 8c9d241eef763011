"""How the kernel says that it kills processes of a container for want of memory, while the container runs on.

Written from Documentation/admin-guide/cgroup-v2.rst (memory.events), Documentation/admin-guide/cgroup-v1/memory.rst
(section 10, OOM Control) and cgroups.rst there (2.4, Notification API).
"""

from __future__ import annotations

import contextlib
import os
import select
from dataclasses import dataclass

from pycore.hookspecs import Alarm


@dataclass(frozen=True)
class MemoryAlarm:
    """A container's memory cgroup, by its directory: a :class:`pycore.hookspecs.AlarmSource`."""

    directory: str
    unified: bool
    """Whether it is cgroup v2's."""

    def open(self) -> Alarm:
        """Raises OSError where the cgroup is gone, or this kernel has no such alarm."""
        return Count(self.directory) if self.unified else Notice(self.directory)


class Count:
    """cgroup v2: the file that counts the kills, which epoll tells to have changed."""

    events = select.EPOLLPRI
    """It can always be read, and is urgent when it has changed since it was last read."""

    def __init__(self, directory: str) -> None:
        self._fd = os.open(f"{directory}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
        self._killed = self._count()

    def _count(self) -> int:
        rows = (line.split() for line in os.pread(self._fd, 4096, 0).splitlines())
        return next((int(row[1]) for row in rows if row[0] == b"oom_kill"), 0)

    def fileno(self) -> int:
        return self._fd

    def heard(self) -> bool:
        before = self._killed
        with contextlib.suppress(OSError):  # the cgroup is gone
            self._killed = self._count()
        return self._killed > before

    def close(self) -> None:
        os.close(self._fd)


class Notice:
    """cgroup v1: an eventfd that the kernel writes to before it chooses whom to kill."""

    events = select.EPOLLIN

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._ask(control)
            finally:
                os.close(control)
        except BaseException:
            os.close(self._fd)
            raise

    def _ask(self, control: int) -> None:
        place = os.open(f"{self._directory}/cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(place, f"{self._fd} {control}".encode())
        finally:
            os.close(place)

    def fileno(self) -> int:
        return self._fd

    def heard(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)
            return os.path.exists(self._directory)  # its removal is written there too
        return False

    def close(self) -> None:
        os.close(self._fd)
