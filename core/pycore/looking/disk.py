"""What a data dir takes on the disk: what the core keeps in it, and what plugins do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from pycore.errors import PycoreError
from pycore.hookspecs import DiskUse, Host
from pycore.linux.measure import measure
from pycore.plugins import Plugins
from pycore.records.state import ContainerRecord
from pycore.spec import Container


def used(
    records: Sequence[ContainerRecord],
    container: Callable[[ContainerRecord], Container],
    plugins: Plugins,
    host: Host,
) -> list[DiskUse]:
    """Containers first, then what plugins keep, by its kind, then what is made anew when it is missed."""
    known: dict[str, Container] = {}
    for record in records:
        with contextlib.suppress(PycoreError):  # of a plugin that is not installed any more
            known[record.id] = container(record)
    running = {record.id for record in records if record.status == "running"}
    found = sorted(plugins.disk(host, [*known.values()], running), key=lambda use: use.kind)
    return [_containers(records, running, host), *found, _cache(host)]


def _containers(records: Sequence[ContainerRecord], running: set[str], host: Host) -> DiskUse:
    """Of each its directory: the writable layer, the log. One that does not run can be removed."""
    taken = {record.id: measure(str(host.data_dir / "containers" / record.id)).bytes for record in records}
    idle = sum(size for each, size in taken.items() if each not in running)
    return DiskUse("containers", len(records), len(running), sum(taken.values()), idle)


def _cache(host: Host) -> DiskUse:
    usage = measure(str(host.data_dir / "cache"))
    return DiskUse("cache", usage.inodes, 0, usage.bytes, usage.bytes)
