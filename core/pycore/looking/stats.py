"""What running containers use: a sample of all, and what two samples say together. The numbers are the plugins'."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pycore.errors import PycoreError
from pycore.hookspecs import Host
from pycore.plugins import Plugins
from pycore.records.state import ContainerRecord
from pycore.spec import Container

CPU = "cpu_seconds_total"


@dataclass(frozen=True)
class Sample:
    """What one container uses at one moment."""

    container: str
    """``APP/NAME``."""
    id: str
    pid: int
    time: float
    """Seconds on the monotonic clock."""
    numbers: Mapping[str, float]
    """As ``pycore_stats`` tells them: seconds and bytes; counters end with ``_total``."""

    def cpu_percent(self, before: Sample | None) -> float | None:
        """Of one processor, since an earlier sample; None where nobody counts, or it is another process now."""
        if before is None or before.pid != self.pid or CPU not in self.numbers or CPU not in before.numbers:
            return None
        passed = self.time - before.time
        return max(0.0, self.numbers[CPU] - before.numbers[CPU]) / passed * 100 if passed > 0 else None

    def to_json(self, before: Sample | None) -> dict[str, Any]:
        """As plain values."""
        share = self.cpu_percent(before)
        own = {"container": self.container, "id": self.id, "pid": self.pid}
        return own | {"cpu_percent": None if share is None else round(share, 2)} | dict(self.numbers)


def take(
    records: Iterable[ContainerRecord], container: Callable[[ContainerRecord], Container], plugins: Plugins, host: Host
) -> list[Sample]:
    """A sample of each container that runs; one that ends meanwhile is left out."""
    found: list[Sample] = []
    for record in records:
        if record.status == "running" and record.pid:
            try:
                numbers = plugins.stats(container(record), host, record.pid)
            except (OSError, PycoreError):
                continue
            found.append(Sample(record.full_name, record.id, record.pid, time.monotonic(), numbers))
    return found
