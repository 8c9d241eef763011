"""What a container uses, and which of its limits it has run into: told from the files of its cgroups.

Nothing is kept on disk for it. The kernel's counts of events go on over restarts of a container, so what has
happened in one run is told from the count at the end of the run before.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from pycore.linux.look import Look

_NO_LIMIT = 1 << 62
"""What cgroup v1 says for no limit is the largest number of pages, in bytes; it is above this."""
_TICKS = os.sysconf("SC_CLK_TCK")

Numbers = dict[str, float]


@dataclass(frozen=True)
class Files:
    """Where the numbers of one container are."""

    directories: Mapping[str, str]
    """``cpu``, ``memory``, ``pids``: the container's directory for each; with cgroup v2 the same one."""
    unified: bool
    """Whether they are v2's."""


def usage(look: Look, files: Files) -> Numbers:
    """Processor time, memory, processes and blocks moved, as far as this host counts them; units by the names."""
    found: Numbers = {}
    for count in _V2 if files.unified else _V1:
        with contextlib.suppress(OSError, ValueError, KeyError):  # it is not counted here, or goes at this moment
            found |= count(look, files.directories)
    return found


def _cpu_v2(look: Look, directories: Mapping[str, str]) -> Numbers:
    return {"cpu_seconds_total": _table(look, f"{directories['cpu']}/cpu.stat")["usage_usec"] / 1e6}


def _memory_v2(look: Look, directories: Mapping[str, str]) -> Numbers:
    path = directories["memory"]
    used = _number(look, f"{path}/memory.current") - _table(look, f"{path}/memory.stat").get("inactive_file", 0)
    found: Numbers = {"memory_bytes": max(0, used)}
    if (limit := look.read(f"{path}/memory.max").strip()) != "max":
        found["memory_limit_bytes"] = int(limit)
    return found


def _pids(look: Look, directories: Mapping[str, str]) -> Numbers:
    return {"pids": _number(look, f"{directories['pids']}/pids.current")}


def _blocks_v2(look: Look, directories: Mapping[str, str]) -> Numbers:
    """A line for each device: ``8:0 rbytes=4096 wbytes=0 ...``. Only where the host gives us that controller too."""
    read = written = 0
    for line in look.read(f"{directories['cpu']}/io.stat").splitlines():
        values = dict(word.split("=") for word in line.split()[1:])
        read, written = read + int(values.get("rbytes", 0)), written + int(values.get("wbytes", 0))
    return {"block_read_bytes_total": read, "block_write_bytes_total": written}


def _cpu_v1(look: Look, directories: Mapping[str, str]) -> Numbers:
    """From cpuacct where it is mounted with cpu, as it usually is; else from the processes themselves."""
    try:
        return {"cpu_seconds_total": _number(look, f"{directories['cpu']}/cpuacct.usage") / 1e9}
    except FileNotFoundError:
        members = look.read(f"{next(iter(directories.values()))}/cgroup.procs").split()
        return {"cpu_seconds_total": sum(_ticks(look, pid) for pid in members) / _TICKS}


def _ticks(look: Look, pid: str) -> int:
    """Processor time of a process and of its children that have ended (proc_pid_stat(5), fields 14 to 17).

    What a container's orphans used is counted with its first process, which waits for them.
    """
    try:
        fields = look.read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(map(int, fields[11:15]))


def _memory_v1(look: Look, directories: Mapping[str, str]) -> Numbers:
    path = directories["memory"]
    cache = _table(look, f"{path}/memory.stat").get("total_inactive_file", 0)
    found: Numbers = {"memory_bytes": max(0, _number(look, f"{path}/memory.usage_in_bytes") - cache)}
    limit = _number(look, f"{path}/memory.limit_in_bytes")
    return found if limit > _NO_LIMIT else {**found, "memory_limit_bytes": limit}


_Count = Callable[[Look, Mapping[str, str]], Numbers]
_V2: tuple[_Count, ...] = (_cpu_v2, _memory_v2, _pids, _blocks_v2)
_V1: tuple[_Count, ...] = (_cpu_v1, _memory_v1, _pids)


@dataclass(frozen=True)
class Events:
    """How often a container has run into its limits, since its cgroups were made."""

    killed: int = 0
    """Processes that were killed for want of memory."""
    forks: int = 0
    """Processes that could not be made."""


def events(look: Look, files: Files) -> Events:
    """The kernel's counts; 0 for what this host does not count."""
    memory, pids = files.directories.get("memory"), files.directories.get("pids")
    of_memory = "memory.events" if files.unified else "memory.oom_control"
    return Events(
        _quietly(look, f"{memory}/{of_memory}", "oom_kill") if memory else 0,
        _quietly(look, f"{pids}/pids.events", "max") if pids else 0,
    )


_told: WeakKeyDictionary[Look, dict[str, Events]] = WeakKeyDictionary()


def news(look: Look, files: Files) -> Events:
    """What has been counted since this was last asked for the same container; an engine that is new asks anew."""
    seen, now = _told.setdefault(look, {}), events(look, files)
    place = next(iter(files.directories.values()))
    before = seen.get(place, Events())
    if now == Events():
        seen.pop(place, None)
    else:
        seen[place] = now
    if now.killed < before.killed or now.forks < before.forks:  # another container's, of the same name
        return now
    return Events(now.killed - before.killed, now.forks - before.forks)


def _quietly(look: Look, path: str, key: str) -> int:
    try:
        return _table(look, path).get(key, 0)
    except (OSError, ValueError):
        return 0


def _number(look: Look, path: str) -> int:
    return int(look.read(path))


def _table(look: Look, path: str) -> dict[str, int]:
    """A file of lines ``key number``."""
    rows: Iterator[list[str]] = (line.split() for line in look.read(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2}
