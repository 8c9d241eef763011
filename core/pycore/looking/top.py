"""The processes of a container, as the host's /proc tells of them (proc(5)). Nothing is changed, nobody is asked."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pycore.linux.look import Look

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LONGEST = 4096
"""Bytes that are read of a command line: its process can make it as long as it likes."""


@dataclass(frozen=True)
class Process:
    """One process."""

    pid: int
    """As the host numbers it, like ``ppid``."""
    ppid: int
    user: str
    """The user id that the container knows it by, or ``?`` where the container does not know its user."""
    cpu_seconds: float
    memory_bytes: int
    """What it has in memory, shared pages too."""
    started: float
    """Seconds since 1970."""
    command: str
    """Its command line, words apart by spaces, or ``[name]`` where it has none. The process itself decides what it
    says: never print it unescaped."""


@dataclass(frozen=True)
class _Stat:
    pid: int
    ppid: int
    name: str
    ticks: int
    started: int
    pages: int


def processes(look: Look, first: int) -> list[Process]:
    """All processes of the container whose first process that is, by process id; none where it has ended.

    They are those of its process id namespace, which those that ``exec`` brought are in too, and whatever descends
    from them. Where a container shares the host's namespace, they are those that descend from its first process.
    """
    stats = {stat.pid: stat for stat in _stats(look)}
    if first not in stats:
        return []
    own, space = look.link(f"/proc/{os.getpid()}/ns/pid"), look.link(f"/proc/{first}/ns/pid")
    roots = {first} if space in ("", own) else {pid for pid in stats if look.link(f"/proc/{pid}/ns/pid") == space}
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return [_process(look, stats[pid], booted) for pid in sorted(_family(stats, roots))]


def _family(stats: Mapping[int, _Stat], roots: set[int]) -> set[int]:
    """The roots and all that descend from them."""
    children: dict[int, list[int]] = {}
    for stat in stats.values():
        children.setdefault(stat.ppid, []).append(stat.pid)
    found, left = set(roots), list(roots)
    while left:
        new = [child for child in children.get(left.pop(), ()) if child not in found]
        found.update(new)
        left += new
    return found


def _stats(look: Look) -> Iterator[_Stat]:
    for name in look.listdir("/proc"):
        if name.isdigit():
            try:
                text = look.read(f"/proc/{name}/stat")
            except OSError:
                continue  # it has ended meanwhile
            left, _, right = text.rpartition(")")  # its name may hold brackets and spaces
            words = right.split()
            yield _Stat(
                int(name), int(words[1]), left.partition("(")[2], int(words[11]) + int(words[12]), int(words[19]),
                int(words[21]),
            )  # fmt: skip


def _process(look: Look, stat: _Stat, booted: float) -> Process:
    place = f"/proc/{stat.pid}"
    return Process(
        pid=stat.pid,
        ppid=stat.ppid,
        user=_user(look, place),
        cpu_seconds=stat.ticks / _TICKS,
        memory_bytes=stat.pages * _PAGE,
        started=round(booted + stat.started / _TICKS, 2),
        command=_text(look, f"{place}/cmdline").replace("\0", " ").strip() or f"[{stat.name}]",
    )


def _user(look: Look, place: str) -> str:
    """Its effective user id, through its user namespace's map (user_namespaces(7))."""
    for line in _text(look, f"{place}/status").splitlines():
        if line.startswith("Uid:"):
            outside = int(line.split()[2])
            break
    else:
        return "?"
    for line in _text(look, f"{place}/uid_map").splitlines():
        inside, start, length = map(int, line.split())
        if start <= outside < start + length:
            return str(inside + outside - start)
    return "?"


def _text(look: Look, path: str) -> str:
    try:
        return look.read(path, _LONGEST)
    except OSError:
        return ""
