"""A container whose process is there: what the lifecycle knows of it beside its record."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from pycore.launch.launcher import Starting
from pycore.life.health import HealthWatch
from pycore.ops import Operation
from pycore.records.state import ContainerRecord
from pycore.spec import Container


@dataclass
class Live:
    """A container whose process runs, or waits to be started."""

    record: ContainerRecord
    pidfd: int
    kept: Mapping[str, int] = field(default_factory=dict[str, int])
    """Our ends of its streams, by name: ``stdin`` (what it reads), ``terminal``. Its output belongs to the log pump."""
    container: Container | None = None
    """What it was made of; None where nobody has asked since it was taken over or changed."""
    more: tuple[Container, tuple[Operation, ...], tuple[Operation, ...]] | None = None
    """What one more process of it does to join and to confine itself, and the container that this was asked for."""
    health: HealthWatch | None = None
    starting: Starting | None = None
    """The way to let it go on, where it was created and not started yet."""
    drained: threading.Event | None = None
    """Set when all of its output is in the log; None where nothing of it comes to us."""
    exited: threading.Event = field(default_factory=threading.Event)
    """The process has ended; ``status`` and ``ended`` say how and when."""
    settled: threading.Event = field(default_factory=threading.Event)
    """What was attached to it is undone, and the record says that it has stopped."""
    decided: threading.Event = field(default_factory=threading.Event)
    """The start has succeeded or failed: until then the record belongs to the thread that starts it."""
    failed: bool = False
    unhealthy: bool = False
    """Its end was asked for because its health check failed."""
    status: int | None = None
    ended: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the record is changed, after the start is decided."""

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit status as a shell says it, None where nobody can know. Raises TimeoutError."""
        if not self.settled.wait(timeout):
            raise TimeoutError(f"{self.record.full_name} still runs after {timeout} s")
        return exit_code(self.status)

    def duplicate(self, name: str) -> int:
        """A descriptor of one of the kept ends, the caller's to close; -1 where there is none, or none any more."""
        with self.lock:
            return os.dup(self.kept[name]) if name in self.kept else -1

    def drop(self, name: str) -> bool:
        """Close one of the kept ends; False where there is none, or none any more."""
        with self.lock:
            fd = self.kept.get(name, -1)
            self.kept = {each: kept for each, kept in self.kept.items() if each != name}
            if fd >= 0:
                os.close(fd)
            return fd >= 0

    def process(self) -> int:
        """A descriptor of the process (pidfd), the caller's to close; -1 where we have let go of it."""
        with self.lock:
            return os.dup(self.pidfd) if self.pidfd >= 0 else -1

    def close(self) -> None:
        """Let go of the process; an adopted one that had ended already was never held."""
        starting, self.starting = self.starting, None
        if starting:
            starting.close()
        kept, self.kept = self.kept, {}
        pidfd, self.pidfd = self.pidfd, -1
        for fd in (pidfd, *kept.values()):
            if fd >= 0:
                os.close(fd)


def exit_code(status: int | None) -> int | None:
    """An exit status as a shell says it: 128 + n for signal n."""
    return status if status is None or status >= 0 else 128 - status
